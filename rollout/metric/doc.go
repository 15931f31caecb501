// Package metric decides on a release by what is measured of it. Its gates ask a
// [Source], such as Prometheus, and hold the answers to a threshold, compare a
// canary with its baseline, or watch an error budget.
//
//	source, err := prometheus.New(prometheus.Config{URL: "http://prometheus.monitoring.svc:9090"})
//	…
//	gate, err := metric.NewThreshold(metric.ThresholdConfig{
//		Source: source,
//		Expression: `(sum(rate(http_requests_total{namespace="{{.Namespace}}",release="{{.Release}}",code=~"5.."}[{{.Window}}])) or vector(0))
//		           / sum(rate(http_requests_total{namespace="{{.Namespace}}",release="{{.Release}}"}[{{.Window}}]))`,
//		Max: new(0.01),
//		For: 2 * time.Minute,
//	})
//	…
//	decision, err := gate.Decide(ctx, release)
//
// A gate is a [stages.Gate] of [stages.Release], so a pipeline takes it as one of
// its ReleaseGates, and a step of a canary does as well: there, a gate that looks
// for a while has to be done within traffic.CanaryConfig.GateTimeout, save for a
// comparison, which goes on counting from look to look. [Threshold] bounds one
// expression. [Comparison] judges a canary by package sequential, which may look
// after every scrape without raising false alarms. [BurnRate] watches an error
// budget over several windows, and tells what the release burns from what burnt
// before. [All] asks several gates at the same time.
//
// # Expressions
//
// An expression is a strict template (package text/template): an unknown name
// is an error when the gate is made. It has
//
//	{{.Release}} {{.Namespace}}   the release's names
//	{{.Revision}} {{.Previous}}   its number, and that of what it replaced
//	{{.Image}} {{.Digest}}        the pinned reference, and sha256:…
//	{{.Window}}                   the time since it was deployed, such as 95s
//	{{.Vars.name}}                the caller's own values
//	{{regex .Release}}            a value to be matched literally by =~
//
// Where a value stands decides how it is written. In a string in single or
// double quotes it is escaped, so that a hostile name stays a string. Anywhere
// else only a single word or number is accepted: names belong in quotes.
//
// # Ratios
//
// A counter of failures often isn't there before the first one, and PromQL answers
// with no data where one side of a division has none. So the failures above end in
// "or vector(0)", inside of the parentheses. The requests must not have it: where
// they have no data the ratio has none, and without traffic it is 0/0, which is not
// a number; neither ever passes. As a mistyped name in the failures looks like none
// at all, select both from one metric, and try the expression on a release that
// fails.
//
// # Three verdicts
//
// A gate passes when it was shown that it may, fails as soon as it is shown that
// it must, and looks again otherwise. What isn't decided at the timeout, or shortly
// before the deadline of the context, is inconclusive, with the reason of the last
// look. These are told apart:
//
//	no-data          the source has no samples, or too few      [ErrNoData]
//	not-finite       NaN or infinite, as a ratio without traffic [ErrNotFinite]
//	stale            older than [Watch.MaxAge], or than the
//	                 release, or of unknown age                  [ErrStale]
//	partial-answer   a store behind the source didn't answer    [ErrPartial]
//	unfit-data       a histogram for a number, or no bounds     [ErrUnfit]
//	query-…          a failing query, by [Class]                [ErrQuery]
//
// A reason out-of-time beside it says that the context allows less than
// [Watch.Timeout].
//
// A sample's age is reckoned by the source's clock, and the time of the deployment
// is this machine's: they should agree to a second or two. If they differ by more
// than [Watch.MaxAge], everything is stale.
//
// None of them ever passes, whatever the configuration. A wrong expression and
// refused credentials end the decision at once, because no look mends them.
//
// What becomes of an inconclusive release is declared in three places. The gate
// waits: [Watch.Timeout] bounds it. The gate may pass what sound data could not
// decide, such as too little traffic in the night: [Watch.AllowUndecided], which
// leaves a warning in the decision. Everything else is for the caller, who knows
// what is at stake: pipeline.Config.OnInconclusive for a release, the step for a
// canary. No gate turns doubt into a failure either.
//
// # What it never does
//
// It changes nothing, imports nothing of Kubernetes and no client of a metrics
// system: those are in packages prometheus and otlp below it, and a Go function
// is a source by [SourceFunc]. It takes no bare number for an answer: every
// sample has its labels and its own time. It never retries a query within a look.
package metric
