package otlp

import (
	"maps"
	"math"
	"slices"

	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"

	"github.com/fairlead-dev/fairlead/rollout/metric"
)

// exponential is a histogram whose bucket i, of those above zero, counts what is
// above base^i and at most base^(i+1), where base is 2^(2^-scale). Buckets that
// count nothing are left out.
type exponential struct {
	scale     int
	threshold float64 // what is at most that far from zero is counted as zero
	zero      float64
	positive  map[int64]float64
	negative  map[int64]float64 // by absolute value
}

// The scales of exponential histograms: with the lowest, a bucket covers all
// numbers from 1 on; finer ones than the highest tell nothing more apart.
const (
	minScale = -10
	maxScale = 20
)

// maxBuckets bounds the buckets of a histogram. Senders are refused more, and
// exponential histograms that get more by adding up become coarser instead.
const maxBuckets = 1000

// exponentialOf reads a point, or returns false if its numbers contradict each
// other.
func exponentialOf(p *metrics.ExponentialHistogramDataPoint) (*exponential, bool) {
	if p.GetScale() < minScale || !(p.GetZeroThreshold() < math.Inf(1)) {
		return nil, false
	}
	e := &exponential{
		scale: int(p.GetScale()), threshold: max(p.GetZeroThreshold(), math.SmallestNonzeroFloat64),
		zero: float64(p.GetZeroCount()), positive: map[int64]float64{}, negative: map[int64]float64{},
	}
	total := e.zero
	for _, side := range []struct {
		from *metrics.ExponentialHistogramDataPoint_Buckets
		into map[int64]float64
	}{{p.GetPositive(), e.positive}, {p.GetNegative(), e.negative}} {
		if len(side.from.GetBucketCounts()) > maxBuckets {
			return nil, false
		}
		for i, count := range side.from.GetBucketCounts() {
			if index := int64(side.from.GetOffset()) + int64(i); count > 0 {
				if math.IsInf(bound(e.scale, index), 0) {
					return nil, false
				}
				side.into[index] = float64(count)
				total += float64(count)
			}
		}
	}
	if total != float64(p.GetCount()) {
		return nil, false
	}
	e.coarsen(max(0, e.scale-maxScale))
	e.settle()
	return e, true
}

// add adds what was counted before, which it makes as coarse as the result.
func (e *exponential) add(before *exponential) {
	e.coarsen(max(0, e.scale-before.scale))
	before.coarsen(max(0, before.scale-e.scale))
	e.threshold = max(e.threshold, before.threshold)
	e.zero += before.zero
	merge(e.positive, before.positive, 0)
	merge(e.negative, before.negative, 0)
	e.settle()
	for len(e.positive)+len(e.negative) > maxBuckets && e.scale > minScale {
		e.coarsen(1)
		e.settle()
	}
}

// coarsen lowers the scale: by one, it puts each two neighbours together.
func (e *exponential) coarsen(by int) {
	if by == 0 {
		return
	}
	e.scale -= by
	e.positive = merge(map[int64]float64{}, e.positive, by)
	e.negative = merge(map[int64]float64{}, e.negative, by)
}

func merge(into, from map[int64]float64, shift int) map[int64]float64 {
	for i, count := range from {
		into[i>>shift] += count
	}
	return into
}

// settle counts as zero what is in buckets that reach into what is counted as
// zero, all of which is zero then.
func (e *exponential) settle() {
	for widened := true; widened; {
		widened = false
		for _, side := range []map[int64]float64{e.positive, e.negative} {
			for i, count := range side {
				if bound(e.scale, i) >= e.threshold {
					continue
				}
				e.zero += count
				delete(side, i)
				if upper := bound(e.scale, i+1); upper > e.threshold {
					e.threshold, widened = upper, true
				}
			}
		}
	}
}

// buckets returns those that count something, in ascending order.
func (e *exponential) buckets() []metric.Bucket {
	out := make([]metric.Bucket, 0, len(e.negative)+1+len(e.positive))
	for _, i := range slices.Backward(slices.Sorted(maps.Keys(e.negative))) {
		out = append(out, metric.Bucket{Lower: -bound(e.scale, i+1), Upper: -bound(e.scale, i), Count: e.negative[i]})
	}
	if e.zero > 0 {
		out = append(out, metric.Bucket{Lower: -e.threshold, Upper: e.threshold, Count: e.zero})
	}
	for _, i := range slices.Sorted(maps.Keys(e.positive)) {
		out = append(out, metric.Bucket{Lower: bound(e.scale, i), Upper: bound(e.scale, i+1), Count: e.positive[i]})
	}
	return out
}

// bound returns base^index. The same bound is the same number at every scale.
func bound(scale int, index int64) float64 {
	exponent := math.Ldexp(float64(index), -scale)
	whole := math.Floor(exponent)
	return math.Ldexp(math.Exp2(exponent-whole), int(whole))
}
