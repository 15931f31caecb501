// Package otlp receives metrics by the OpenTelemetry protocol and is a
// [metric.Source] of what it received last: a release's own metrics without any
// store in between.
//
//	receiver, err := otlp.New(otlp.Config{Keep: []string{"http.server.request.duration"}})
//	…
//	mux.Handle("POST /v1/metrics", receiver) // an OTLP/HTTP exporter's or a collector's endpoint
//	…
//	gate, err := metric.NewComparison(metric.ComparisonConfig{
//		Source:       receiver,
//		Canary:       metric.Side{Requests: `http.server.request.duration{service.version="{{.Vars.canary}}"}`},
//		Baseline:     metric.Side{Requests: `http.server.request.duration{service.version="{{.Vars.stable}}"}`},
//		FailureLabel: "http.response.status_code", FailurePattern: "5..",
//		…
//	})
//
// # What it takes
//
// OTLP/HTTP in protobuf and in JSON, plain or compressed by gzip, of bounded size;
// OTLP/gRPC by package otlpgrpc below it. Gauges, sums and histograms are kept, in
// cumulative and in delta temporality: deltas are added up. Summaries are rejected
// in the answer to the sender, as are points that are late, and those whose
// temporality is unknown, whose numbers contradict each other or whose attributes,
// the resource's included, take more than 16 KiB. A point's time is the sender's,
// but never later than it was received.
//
// Histograms have explicit bounds or are exponential. Deltas of the latter are
// added up even if their scales or zero thresholds differ, in the coarser buckets;
// those of the former only if their bounds are the same: otherwise the series
// begins anew. A zero is counted in a bucket around it, and a number that is
// exactly a bound below zero in the bucket beyond it.
//
// The attributes of the resource, the scope's name as otel.scope.name and those of
// the point are the labels of a sample; the narrower one wins. A histogram is one
// sample.
//
// What a counter has counted when its first point arrives, a comparison takes for new
// only if the point's start says so, or if the same process had sent other series of
// that start, more than once, without this one. Without a start it counts what is
// added from then on.
//
// # Expressions
//
// A metric's name, and optionally matchers of attributes in braces, all of which
// must hold:
//
//	http.server.active_requests
//	http.server.request.duration{service.name="shop", http.response.status_code=~"5..", env!="dev", "odd key"!~"a|b"}
//
// Operators are = and != for equality, =~ and !~ for a regular expression (RE2)
// that must match the whole value; a missing attribute is the empty string.
// Values are strings in double or single quotes with the escapes of Go. That is
// all of it: there are no functions, and no past but the last point, so the source
// suits [metric.Comparison], and [metric.Threshold] on gauges; a query about
// another time is refused.
//
// # What it never does
//
// It listens nowhere by itself and authenticates nobody: wrap the handler. It keeps
// nothing but the metrics that it was told to keep, and never more series than it
// may; once it had to reject some for that, every answer is partial.
package otlp
