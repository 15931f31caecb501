// Package prometheus asks Prometheus, or what speaks its HTTP API, about a release.
// It is a [metric.Source] on the official client.
//
//	source, err := prometheus.New(prometheus.Config{URL: "http://prometheus.monitoring.svc:9090"})
//	…
//	gate, err := metric.NewThreshold(metric.ThresholdConfig{Source: source, …})
//
// # How old an answer is
//
// Prometheus answers with the last value of the past five minutes and stamps it
// with the time of the question, so that a target that is gone for four minutes
// looks alive. Here, each answer is followed by a second query, at the very same
// time, of what the expression reads: timestamp() of its vector selectors. If the
// expression is one selector, each sample gets the time of its own series. Other
// expressions get the time of the selector whose newest series is the oldest;
// those that match nothing at present are left out, because a counter of
// failures may not exist before the first one, unless none of them matches: then
// the last quarter of an hour is searched, and a sample of which nothing is found
// has no time at all, which the gates take for stale. So does a constant, such as
// vector(1). Selectors with offset or @ ask for the past, and aren't held to it.
//
// A sample has one time then, though an expression may read over a range: that
// rate(x[5m]) is fresh says that x is still scraped, not that it has been for
// five minutes.
//
// # What is partial
//
// Prometheus answers with a warning where a store that it reads from remotely
// doesn't answer, or where an expression could not use some of its data. An answer
// with any warning is partial, on which no gate decides. Infos are passed on.
//
// # What it was tried with
//
// Prometheus 3, with classic and native histograms, and with both kinds of
// warnings. Thanos, Mimir and VictoriaMetrics speak the same API, but no test runs
// them. By their documentation, Thanos tells of a store that doesn't answer by a
// warning too, if it may answer partially, and Mimir fails the query.
//
// # What it never does
//
// It takes no secret from files or the environment, sends none to another host,
// because it follows no redirect, and lets none into an error. It never retries.
package prometheus
