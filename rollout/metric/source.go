package metric

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Source answers queries about metrics. It is safe for concurrent use.
type Source interface {
	// Query evaluates q. No data is an answer without samples, not an error; a
	// sample that is not a number is answered as it is. An error is a
	// [*QueryError], unless ctx is done: then it matches the context's cause. Query
	// tries once, because the gates ask again.
	Query(ctx context.Context, q Query) (Result, error)
}

// SourceFunc lets a function serve as a [Source].
type SourceFunc func(ctx context.Context, q Query) (Result, error)

// Query calls f.
func (f SourceFunc) Query(ctx context.Context, q Query) (Result, error) { return f(ctx, q) }

// Query is a question to a [Source].
type Query struct {
	// Expression is in the source's own language.
	Expression string
	// At is the time to evaluate it at; zero for the source's present.
	At time.Time
}

// Result is a source's answer. Treat it as immutable.
type Result struct {
	// Source names who answered, without secrets, such as
	// "Prometheus http://prometheus.monitoring.svc:9090".
	Source string
	// Evaluated is when the expression was evaluated, by the source's clock. Zero
	// stands for the time of the question, and says that the source has no past to
	// ask about.
	Evaluated time.Time
	// Samples are one for each series; none if there is no data.
	Samples []Sample
	// Partial says that data may be missing from the answer, for example because a
	// store behind the source didn't answer. No gate decides on such an answer.
	Partial bool
	// Warnings are what the source wants to be known, without secrets.
	Warnings []string
}

// Sample is the value of one series.
type Sample struct {
	// Labels identify the series.
	Labels map[string]string
	// Time is when the value was observed: not when it was asked for. Zero means
	// that the source can't tell, which counts as stale.
	Time time.Time
	// Start is when a counter began to count, if the source knows. Where it doesn't,
	// and has no past to ask about either, what a counter says when a comparison first
	// sees it may be from long ago, and isn't counted.
	Start time.Time
	// Value is what was observed, unless there is a histogram.
	Value float64
	// Histogram is a distribution in one sample, such as a native histogram of
	// Prometheus or a histogram of OpenTelemetry.
	Histogram *Histogram
}

// Histogram is a distribution.
type Histogram struct {
	// Buckets are in ascending order and don't overlap. Between them nothing was
	// observed.
	Buckets []Bucket
}

// Bucket counts the observations above its lower and at most at its upper bound.
type Bucket struct {
	Lower, Upper float64
	Count        float64
}

// Total returns how many observations there are.
func (h *Histogram) Total() float64 {
	total := 0.0
	for _, b := range h.Buckets {
		total += b.Count
	}
	return total
}

// series returns the identity of a sample's series, readable and unambiguous.
func (s Sample) series() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, name := range slices.Sorted(maps.Keys(s.Labels)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(name)
		b.WriteByte('=')
		b.WriteString(identity(s.Labels[name]))
	}
	b.WriteByte('}')
	return b.String()
}

// identity is short, but no two values have the same.
func identity(value string) string {
	text := short(value)
	if strings.HasSuffix(text, "…") {
		text += fmt.Sprintf("%x", sha256.Sum256([]byte(value)))
	}
	return text
}
