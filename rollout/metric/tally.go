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
// restart: all of its new value counts, unless it restarted before the tally began.
// A series that vanishes keeps what it had counted, and goes on from there if it
// comes back. One that appears after the beginning counts from zero if that is
// known of it, see fromZero; otherwise what it had counted when it is first seen is
// of before.
//
// A histogram may change to coarser buckets, as exponential ones do when they run
// out of room: what it had counted in finer ones is put together.
type tally struct {
	began bool
	// since is when it did: the time of the newest point then.
	since time.Time
	// lookedBack says that last has the series of before the beginning.
	lookedBack bool
	last       map[string]point
	counts     map[bounds]float64
	// siblings are the starts of this side's series, of earlier looks.
	siblings map[time.Time]sighting
}

// sighting is when series of the same start were observed, first and last.
type sighting struct{ first, last time.Time }

// bounds are those of a bucket.
type bounds struct{ lower, upper float64 }

// point is a series with what it counts, in buckets in ascending order; a plain
// counter is one bucket up to +Inf.
type point struct {
	series  string
	time    time.Time
	start   time.Time
	buckets []Bucket
}

// remember takes in points from before the beginning: of series that are missing
// when it begins and come back later, with all that they had counted long ago.
func (t *tally) remember(points []point) {
	t.last, t.lookedBack = map[string]point{}, true
	for _, p := range points {
		t.last[p.series] = p
	}
}

// fromZero reports whether all that a series says was counted since the tally
// began, where it appears, or restarts if it was known before.
//
// A start before the beginning is that of a process whose metrics took long to
// arrive, unless the process was observed more than once without this series: then
// that began with its first event. Where the start is not known, sources that can
// look back have shown that there was no such series.
func (t *tally) fromZero(before, now point, known bool) bool {
	seen := t.siblings[now.start]
	switch {
	case known:
		return !now.start.After(before.start) || !now.start.Before(t.since)
	case now.start.IsZero():
		return t.lookedBack
	case seen.last.After(seen.first):
		return true
	}
	return !now.start.Before(t.since)
}

// add takes in one look's points. It returns the series whose buckets changed
// into ones that don't hold the old ones: what they counted since the last look
// is not known.
func (t *tally) add(points []point) (lost []string) {
	if t.last == nil {
		t.last = map[string]point{}
	}
	if t.counts == nil {
		t.counts = map[bounds]float64{}
	}
	for _, now := range points {
		if !t.began && now.time.After(t.since) {
			t.since = now.time
		}
		before, known := t.last[now.series]
		if known && now.time.Before(before.time) {
			continue // from a replica of the source that lags behind: nothing was reset
		}
		t.last[now.series] = now
		had, fits := within(before.buckets, now.buckets)
		begins := !known || wasReset(before, now, had)
		switch {
		case !t.began, begins && !t.fromZero(before, now, known):
			t.count(now.buckets, now.buckets) // nothing yet, but the bounds are known
		case begins:
			t.count(nil, now.buckets)
		case !fits:
			lost = append(lost, now.series)
		default:
			t.count(before.buckets, now.buckets)
		}
	}
	t.began = t.began || len(points) > 0
	return lost
}

func (t *tally) count(before, now []Bucket) {
	had, _ := within(before, now)
	for i, b := range now {
		t.counts[bounds{b.Lower, b.Upper}] += b.Count - had[i]
	}
}

// within returns how much of what was counted before is within each of the buckets
// now, or false if a bucket that had counted is in none of them.
func within(before, now []Bucket) ([]float64, bool) {
	counts := make([]float64, len(now))
	i := 0
	for _, b := range before {
		for i < len(now) && now[i].Upper < b.Upper {
			i++
		}
		switch {
		case i < len(now) && now[i].Lower <= b.Lower:
			counts[i] += b.Count
		case b.Count > 0:
			return nil, false
		}
	}
	return counts, true
}

// wasReset tells of a point that counts less than it had before.
func wasReset(before, now point, had []float64) bool {
	if !before.start.IsZero() && now.start.After(before.start) {
		return true
	}
	for i, count := range had {
		if now.buckets[i].Count < count {
			return true
		}
	}
	return total(now.buckets) < total(before.buckets)
}

func total(buckets []Bucket) float64 {
	h := Histogram{Buckets: buckets}
	return h.Total()
}

// requests returns how much was counted in all.
func (t *tally) requests() uint64 {
	sum := 0.0
	for _, count := range t.counts {
		sum += count
	}
	return whole(sum)
}

func whole(f float64) uint64 { return uint64(math.Round(max(0, f))) }

// align returns the two sides' histograms in the finest buckets that those of both
// fit in, or an error if they were measured in different ones.
//
// Which buckets those are depends on what was observed. That makes no false alarm
// more likely, because whatever is claimed of coarser buckets, there is more
// evidence for in finer ones.
func align(canary, baseline *tally) (c, b sequential.Histogram, err error) {
	all := slices.AppendSeq(slices.Collect(maps.Keys(canary.counts)), maps.Keys(baseline.counts))
	slices.SortFunc(all, func(x, y bounds) int {
		return cmp.Or(cmp.Compare(x.lower, y.lower), cmp.Compare(y.upper, x.upper))
	})
	if everything := (bounds{math.Inf(-1), math.Inf(1)}); len(all) > 0 && all[0] == everything && all[len(all)-1] != everything {
		return c, b, unusable(ErrUnfit, "some histograms have no bounds, others do: only buckets that fit in each other can be compared")
	}
	last := bounds{lower: math.Inf(-1), upper: math.Inf(-1)} // what the last bucket covers
	for i, one := range all {
		switch {
		case i > 0 && one == all[i-1]:
			continue // both sides have it
		case one.lower >= last.upper:
			last = one
			c.UpperBounds, c.Counts = append(c.UpperBounds, one.upper), append(c.Counts, 0)
			b.UpperBounds, b.Counts = append(b.UpperBounds, one.upper), append(b.Counts, 0)
		case one.upper > last.upper:
			return c, b, unusable(ErrUnfit, "the bucket from %v to %v overlaps the one from %v to %v: only buckets that fit in each other can be compared", one.lower, one.upper, last.lower, last.upper)
		}
		at := len(c.Counts) - 1
		c.Counts[at] += whole(canary.counts[one])
		b.Counts[at] += whole(baseline.counts[one])
	}
	return positive(c), positive(b), nil
}

// positive puts what took no time at all, which some histograms have a bucket for,
// into the first bucket above.
func positive(h sequential.Histogram) sequential.Histogram {
	for len(h.Counts) > 1 && h.UpperBounds[0] <= 0 && h.UpperBounds[1] > 0 {
		h.Counts[1] += h.Counts[0]
		h.UpperBounds, h.Counts = h.UpperBounds[1:], h.Counts[1:]
	}
	return h
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
