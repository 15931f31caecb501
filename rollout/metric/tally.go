package metric

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/fairlead-dev/fairlead/rollout/sequential"
)

// tally adds up what the counters of one side have counted since it began. It
// takes raw readings of each series and sums their differences itself: unlike
// PromQL's increase it extrapolates nothing, so that the sums are whole requests.
//
// A counter that went down, or that began later than before, was reset by a
// restart: all of its new value counts. A series that vanishes keeps what it had
// counted, and goes on from there if it comes back. A series that appears after
// the beginning counts from zero, as a new pod or the first failure of an old one.
type tally struct {
	began   bool
	last    map[string]reading
	buckets map[float64]Bucket // by upper bound
}

// reading is the value of one series' counters.
type reading struct {
	time   time.Time
	start  time.Time
	counts map[float64]Bucket
}

// point is a series with what it counts; a plain counter is one bucket up to +Inf.
type point struct {
	series  string
	time    time.Time
	start   time.Time
	buckets []Bucket
}

// remember takes in points from before the beginning: of series that are missing
// when it begins and come back later, with all that they had counted long ago.
func (t *tally) remember(points []point) {
	t.last = map[string]reading{}
	for _, p := range points {
		t.last[p.series] = p.reading()
	}
}

func (p point) reading() reading {
	r := reading{time: p.time, start: p.start, counts: make(map[float64]Bucket, len(p.buckets))}
	for _, b := range p.buckets {
		r.counts[b.Upper] = b
	}
	return r
}

// add takes in one look's points. It returns the series whose buckets changed
// meanwhile: what they counted since the last look is not known.
func (t *tally) add(points []point) (lost []string) {
	if t.last == nil {
		t.last = map[string]reading{}
	}
	if t.buckets == nil {
		t.buckets = map[float64]Bucket{}
	}
	for _, p := range points {
		now := p.reading()
		before, known := t.last[p.series]
		if known && now.time.Before(before.time) {
			continue // from a replica of the source that lags behind: nothing was reset
		}
		t.last[p.series] = now
		switch {
		case !t.began:
			t.count(now, now) // nothing yet, but the bounds are known
		case !known || wasReset(before, now):
			t.count(reading{}, now)
		case rearranged(before, now):
			lost = append(lost, p.series)
		default:
			t.count(before, now)
		}
	}
	t.began = t.began || len(points) > 0
	return lost
}

func (t *tally) count(before, now reading) {
	for upper, b := range now.counts {
		sum := t.buckets[upper]
		if sum.Upper != b.Upper || sum.Lower < b.Lower {
			sum.Lower, sum.Upper = b.Lower, b.Upper
		}
		sum.Count += b.Count - before.counts[upper].Count
		t.buckets[upper] = sum
	}
}

func wasReset(before, now reading) bool {
	if !before.start.IsZero() && now.start.After(before.start) {
		return true
	}
	for upper, b := range now.counts {
		if b.Count < before.counts[upper].Count {
			return true
		}
	}
	return total(now) < total(before)
}

// rearranged tells of a histogram that changed its resolution: a bucket that had
// counted is gone, although nothing was reset.
func rearranged(before, now reading) bool {
	for upper, b := range before.counts {
		if after, ok := now.counts[upper]; ok && after.Lower != b.Lower || !ok && b.Count > 0 {
			return true
		}
	}
	return false
}

func total(r reading) float64 {
	sum := 0.0
	for _, b := range r.counts {
		sum += b.Count
	}
	return sum
}

// requests returns how much was counted in all.
func (t *tally) requests() uint64 { return whole(total(reading{counts: t.buckets})) }

func whole(f float64) uint64 { return uint64(math.Round(max(0, f))) }

// align returns the two sides' histograms over the bounds of both, or an error
// if they were measured in different buckets.
func align(canary, baseline *tally) (c, b sequential.Histogram, err error) {
	all := map[float64]float64{}
	for _, side := range []*tally{canary, baseline} {
		for upper, bucket := range side.buckets {
			if lower, ok := all[upper]; ok && lower != bucket.Lower {
				return c, b, unusable(ErrUnfit, "the buckets up to %v begin at %v and at %v: only equal buckets can be compared", upper, lower, bucket.Lower)
			}
			all[upper] = bucket.Lower
		}
	}
	below := math.Inf(-1)
	for _, upper := range slices.Sorted(maps.Keys(all)) {
		if all[upper] < below {
			return c, b, unusable(ErrUnfit, "the bucket up to %v overlaps the one up to %v: only equal buckets can be compared", upper, below)
		}
		below = upper
		c.UpperBounds, c.Counts = append(c.UpperBounds, upper), append(c.Counts, whole(canary.buckets[upper].Count))
		b.UpperBounds, b.Counts = append(b.UpperBounds, upper), append(b.Counts, whole(baseline.buckets[upper].Count))
	}
	return c, b, nil
}

// counters turns samples into points: plain counters, or histograms by their
// total.
func counters(samples []Sample) ([]point, error) {
	points := make([]point, 0, len(samples))
	for _, s := range samples {
		value := s.Value
		if s.Histogram != nil {
			value = s.Histogram.Total()
		}
		if value < 0 {
			return nil, unusable(ErrUnfit, "%s is %v, which no counter can be", s.series(), value)
		}
		points = append(points, point{series: s.series(), time: s.Time, start: s.Start, buckets: []Bucket{{Lower: math.Inf(-1), Upper: math.Inf(1), Count: value}}})
	}
	return points, nil
}

// boundLabel is the label that holds the bound of a classic bucket.
const boundLabel = "le"

// histograms turns samples into points: histograms as they are, and the buckets
// of classic ones, which count everything up to their bound, put together.
func histograms(samples []Sample) ([]point, error) {
	var points []point
	classic := map[string][]Bucket{}
	latest := map[string]Sample{}
	for _, s := range samples {
		if s.Histogram != nil {
			points = append(points, point{series: s.series(), time: s.Time, start: s.Start, buckets: s.Histogram.Buckets})
			continue
		}
		bound, err := strconv.ParseFloat(s.Labels[boundLabel], 64)
		if err != nil || math.IsNaN(bound) {
			return nil, unusable(ErrUnfit, "%s is neither a histogram nor a bucket of one with the label %s", s.series(), boundLabel)
		}
		rest := maps.Clone(s.Labels)
		delete(rest, boundLabel)
		series := Sample{Labels: rest}.series()
		classic[series] = append(classic[series], Bucket{Upper: bound, Count: s.Value})
		latest[series] = s
	}
	for _, series := range slices.Sorted(maps.Keys(classic)) {
		buckets, err := apart(series, classic[series])
		if err != nil {
			return nil, err
		}
		points = append(points, point{series: series, time: latest[series].Time, start: latest[series].Start, buckets: buckets})
	}
	return points, nil
}

// apart turns buckets that count everything up to their bound into ones that
// don't count what those before them do.
func apart(series string, buckets []Bucket) ([]Bucket, error) {
	slices.SortFunc(buckets, func(a, b Bucket) int { return cmp.Compare(a.Upper, b.Upper) })
	if !math.IsInf(buckets[len(buckets)-1].Upper, 1) {
		return nil, unusable(ErrUnfit, "%s has no bucket up to +Inf", series)
	}
	below, counted := math.Inf(-1), 0.0
	for i, b := range buckets {
		if b.Upper == below || b.Count < counted {
			return nil, unusable(ErrUnfit, "%s: its bucket up to %v counts %v, the one before it %v", series, b.Upper, b.Count, counted)
		}
		buckets[i] = Bucket{Lower: below, Upper: b.Upper, Count: b.Count - counted}
		below, counted = b.Upper, b.Count
	}
	return buckets, nil
}
