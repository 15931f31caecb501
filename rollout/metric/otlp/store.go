package otlp

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"

	"github.com/fairlead-dev/fairlead/rollout/metric"
)

// store keeps the last point of each series.
type store struct {
	config Config

	mu       sync.Mutex
	series   map[string]map[string]*series // by metric and labels
	count    int
	overflow int64 // series that there was no room for
}

// series is what is known of one.
type series struct {
	labels   map[string]string
	start    time.Time
	time     time.Time
	received time.Time
	distribution
}

// distribution is what was observed: a value, explicit buckets or an exponential
// histogram.
type distribution struct {
	value       float64
	buckets     []metric.Bucket
	exponential *exponential
}

// add adds what a delta comes on top of, and reports whether it could: explicit
// buckets have to be the same.
func (d *distribution) add(before distribution) bool {
	switch {
	case d.exponential != nil && before.exponential != nil:
		d.exponential.add(before.exponential)
		return true
	case (d.exponential != nil) != (before.exponential != nil) || !sameBounds(d.buckets, before.buckets):
		return false
	}
	d.value += before.value
	for i := range d.buckets {
		d.buckets[i].Count += before.buckets[i].Count
	}
	return true
}

func (d *distribution) histogram() *metric.Histogram {
	switch {
	case d.exponential != nil:
		return &metric.Histogram{Buckets: d.exponential.buckets()}
	case d.buckets != nil:
		return &metric.Histogram{Buckets: slices.Clone(d.buckets)}
	}
	return nil
}

// point is what a sender said of a series.
type point struct {
	attributes []*common.KeyValue
	start      time.Time
	time       time.Time
	gone       bool // the sender says that there is no value any more
	delta      bool
	distribution
}

func newStore(config Config) *store {
	return &store{config: config, series: map[string]map[string]*series{}}
}

// rejections count the points that were not kept although their metric is.
type rejections struct {
	points  int64
	reasons map[string]bool
}

func (r *rejections) add(n int, reason string) {
	if r.reasons == nil {
		r.reasons = map[string]bool{}
	}
	r.points += int64(n)
	r.reasons[reason] = true
}

func (r *rejections) sum() Rejected {
	return Rejected{Points: r.points, Reason: strings.Join(slices.Sorted(maps.Keys(r.reasons)), "; ")}
}

// take takes in a request.
func (s *store) take(all []*metrics.ResourceMetrics) Rejected {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.expire(now)
	var rejected rejections
	for _, resource := range all {
		ofResource := sync.OnceValue(func() map[string]string {
			return labelsOf(map[string]string{}, resource.GetResource().GetAttributes())
		})
		for _, scope := range resource.GetScopeMetrics() {
			ofScope := sync.OnceValue(func() map[string]string {
				return labelsOf(ofResource(), scopeAttributes(scope.GetScope()))
			})
			for _, m := range scope.GetMetrics() {
				if !slices.Contains(s.config.Keep, m.GetName()) {
					continue
				}
				for _, p := range pointsOf(m, &rejected) {
					s.put(m.GetName(), labelsOf(ofScope(), p.attributes), p, now, &rejected)
				}
			}
		}
	}
	return rejected.sum()
}

// scopeAttributes are a scope's name and its attributes, which win.
func scopeAttributes(scope *common.InstrumentationScope) []*common.KeyValue {
	if scope.GetName() == "" {
		return scope.GetAttributes()
	}
	name := &common.KeyValue{Key: "otel.scope.name", Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: scope.GetName()}}}
	return append([]*common.KeyValue{name}, scope.GetAttributes()...)
}

func (s *store) expire(now time.Time) {
	for name, list := range s.series {
		for key, one := range list {
			if now.Sub(one.received) > s.config.Retention {
				delete(list, key)
				s.count--
			}
		}
		if len(list) == 0 {
			delete(s.series, name)
		}
	}
}

func (s *store) put(name string, labels map[string]string, p point, now time.Time, rejected *rejections) {
	if labels == nil {
		rejected.add(1, fmt.Sprintf("a series has too many or too long attributes, for more than %d bytes", maxLabels))
		return
	}
	key := keyOf(labels)
	known := s.series[name][key]
	if p.gone {
		if known != nil {
			delete(s.series[name], key)
			s.count--
		}
		return
	}
	if p.time.IsZero() || p.time.After(now) {
		p.time = now
	}
	switch {
	case known == nil && s.count >= s.config.MaxSeries:
		s.overflow++
		rejected.add(1, fmt.Sprintf("there are %d series already", s.count))
		return
	case known != nil && p.delta && !p.time.After(known.time), known != nil && p.time.Before(known.time):
		rejected.add(1, "the series has a later point already")
		return
	}
	one := &series{labels: labels, start: p.start, time: p.time, received: now, distribution: p.distribution}
	if known != nil && p.delta && one.add(known.distribution) {
		one.start = known.start
	}
	if known == nil {
		s.count++
		if s.series[name] == nil {
			s.series[name] = map[string]*series{}
		}
	}
	s.series[name][key] = one
}

func sameBounds(a, b []metric.Bucket) bool {
	return slices.EqualFunc(a, b, func(x, y metric.Bucket) bool { return x.Upper == y.Upper })
}

// answer returns the samples that s selects.
func (s *store) answer(selected selector) metric.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(time.Now())
	result := metric.Result{Source: s.config.Name}
	list := s.series[selected.name]
	for _, key := range slices.Sorted(maps.Keys(list)) {
		one := list[key]
		if !selected.matches(one.labels) {
			continue
		}
		result.Samples = append(result.Samples, metric.Sample{
			Labels: maps.Clone(one.labels), Time: one.time, Start: one.start, Value: one.value, Histogram: one.histogram(),
		})
	}
	if s.overflow > 0 {
		result.Partial = true
		result.Warnings = []string{fmt.Sprintf("points of further series were rejected %d times: raise Config.MaxSeries above %d, or keep less", s.overflow, s.config.MaxSeries)}
	}
	return result
}

// pointsOf returns the points of a metric, and counts those of a kind that isn't
// kept as rejected.
func pointsOf(m *metrics.Metric, rejected *rejections) []point {
	switch data := m.GetData().(type) {
	case *metrics.Metric_Gauge:
		return numbers(data.Gauge.GetDataPoints(), false)
	case *metrics.Metric_Sum:
		if delta, ok := isDelta(data.Sum.GetAggregationTemporality()); ok {
			return numbers(data.Sum.GetDataPoints(), delta)
		}
		rejected.add(len(data.Sum.GetDataPoints()), "a sum doesn't tell its temporality")
	case *metrics.Metric_Histogram:
		if delta, ok := isDelta(data.Histogram.GetAggregationTemporality()); ok {
			return explicit(data.Histogram.GetDataPoints(), delta, rejected)
		}
		rejected.add(len(data.Histogram.GetDataPoints()), "a histogram doesn't tell its temporality")
	case *metrics.Metric_ExponentialHistogram:
		if delta, ok := isDelta(data.ExponentialHistogram.GetAggregationTemporality()); ok {
			return exponentials(data.ExponentialHistogram.GetDataPoints(), delta, rejected)
		}
		rejected.add(len(data.ExponentialHistogram.GetDataPoints()), "a histogram doesn't tell its temporality")
	case *metrics.Metric_Summary:
		rejected.add(len(data.Summary.GetDataPoints()), "summaries are not supported, use histograms")
	}
	return nil
}

// isDelta returns false for ok if the temporality is neither that nor cumulative.
func isDelta(t metrics.AggregationTemporality) (delta, ok bool) {
	delta = t == metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
	return delta, delta || t == metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
}

func gone(flags uint32) bool {
	return flags&uint32(metrics.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK) != 0
}

func numbers(list []*metrics.NumberDataPoint, delta bool) []point {
	out := make([]point, 0, len(list))
	for _, p := range list {
		value := p.GetAsDouble()
		if _, ok := p.GetValue().(*metrics.NumberDataPoint_AsInt); ok {
			value = float64(p.GetAsInt())
		}
		out = append(out, point{
			attributes: p.GetAttributes(), start: nanos(p.GetStartTimeUnixNano()), time: nanos(p.GetTimeUnixNano()),
			distribution: distribution{value: value}, gone: gone(p.GetFlags()) || p.GetValue() == nil, delta: delta,
		})
	}
	return out
}

func explicit(list []*metrics.HistogramDataPoint, delta bool, rejected *rejections) []point {
	out := make([]point, 0, len(list))
	for _, p := range list {
		buckets, ok := bucketsOf(p)
		if !ok && !gone(p.GetFlags()) {
			rejected.add(1, "a histogram's buckets don't fit its bounds or its count, or are too many")
			continue
		}
		out = append(out, point{
			attributes: p.GetAttributes(), start: nanos(p.GetStartTimeUnixNano()), time: nanos(p.GetTimeUnixNano()),
			distribution: distribution{buckets: buckets}, gone: gone(p.GetFlags()), delta: delta,
		})
	}
	return out
}

func exponentials(list []*metrics.ExponentialHistogramDataPoint, delta bool, rejected *rejections) []point {
	out := make([]point, 0, len(list))
	for _, p := range list {
		e, ok := exponentialOf(p)
		if !ok && !gone(p.GetFlags()) {
			rejected.add(1, "an exponential histogram's numbers contradict each other, or its buckets are too many")
			continue
		}
		out = append(out, point{
			attributes: p.GetAttributes(), start: nanos(p.GetStartTimeUnixNano()), time: nanos(p.GetTimeUnixNano()),
			distribution: distribution{exponential: e}, gone: gone(p.GetFlags()), delta: delta,
		})
	}
	return out
}

// bucketsOf returns a histogram's buckets. Without any, all observations are in
// one.
func bucketsOf(p *metrics.HistogramDataPoint) ([]metric.Bucket, bool) {
	counts, bounds := p.GetBucketCounts(), p.GetExplicitBounds()
	if len(counts) == 0 && len(bounds) == 0 {
		counts = []uint64{p.GetCount()}
	}
	if len(counts) != len(bounds)+1 || len(counts) > maxBuckets {
		return nil, false
	}
	lower, total := math.Inf(-1), uint64(0)
	buckets := make([]metric.Bucket, 0, len(counts))
	for i, count := range counts {
		upper := math.Inf(1)
		if i < len(bounds) {
			upper = bounds[i]
		}
		if !(upper > lower) {
			return nil, false
		}
		buckets = append(buckets, metric.Bucket{Lower: lower, Upper: upper, Count: float64(count)})
		lower = upper
		total += count
	}
	return buckets, total == p.GetCount()
}

func nanos(n uint64) time.Time {
	if n == 0 || n > math.MaxInt64 {
		return time.Time{}
	}
	return time.Unix(0, int64(n))
}
