package metric

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/sequential"
)

// reads is one look's readings of counters, by series.
type reads map[string]float64

func (r reads) points(at int) []point {
	var out []point
	for series, value := range r {
		out = append(out, point{series: series, time: time.Unix(int64(at), 0), buckets: []Bucket{{Lower: math.Inf(-1), Upper: math.Inf(1), Count: value}}})
	}
	return out
}

func TestTally(t *testing.T) {
	for name, test := range map[string]struct {
		looks []reads
		want  uint64
	}{
		"what was before doesn't count":    {[]reads{{"a": 1e6}}, 0},
		"the difference counts":            {[]reads{{"a": 1e6}, {"a": 1e6 + 5}, {"a": 1e6 + 7}}, 7},
		"the same sample twice":            {[]reads{{"a": 1}, {"a": 5}, {"a": 5}}, 4},
		"a restart begins at zero":         {[]reads{{"a": 100}, {"a": 110}, {"a": 4}, {"a": 9}}, 19},
		"what is new may be old":           {[]reads{{"a": 100}, {"a": 100, "b": 8}, {"a": 101, "b": 9}}, 2},
		"a pod that goes keeps its counts": {[]reads{{"a": 100, "b": 5}, {"a": 100, "b": 9}, {"a": 103}}, 7},
		"and one that is back goes on":     {[]reads{{"a": 100, "b": 5}, {"a": 100}, {"a": 100, "b": 11}}, 6},
		"nobody at first":                  {[]reads{{}, {"a": 1e6}, {"a": 1e6 + 3}}, 3},
		"everybody gone":                   {[]reads{{"a": 5}, {"a": 7}, {}}, 2},
	} {
		var sum tally
		for at, look := range test.looks {
			require.Empty(t, sum.add(look.points(at)), name)
		}
		assert.Equal(t, test.want, sum.requests(), name)
	}
}

// since is a reading of a counter that knows when it began to count.
func since(series string, start, at int, value float64) point {
	p := reads{series: value}.points(at)[0]
	p.start = time.Unix(int64(start), 0)
	return p
}

func TestTallyOfWhatAppears(t *testing.T) {
	old := func(at int) point { return since("old", 1, at, 1e6+float64(at)) }
	for name, test := range map[string]struct {
		past  []point // nil if it can't be looked back
		looks [][]point
		want  uint64 // beside ten a look, which are old's
	}{
		"an old pod that comes late": {
			looks: [][]point{{old(100)}, {old(110), since("late", 50, 110, 1e6)}, {old(120), since("late", 50, 120, 1e6+3)}}, want: 3,
		},
		"an old pod's other series that come even later": {
			looks: [][]point{{old(100)}, {old(110), since("late", 50, 110, 1e6)}, {old(120), since("late", 50, 120, 1e6), since("later", 50, 120, 1e5)}}, want: 0,
		},
		"a new pod":                     {looks: [][]point{{old(100)}, {old(110), since("new", 105, 110, 8)}, {old(120), since("new", 105, 120, 9)}}, want: 9},
		"the first failure of old":      {looks: [][]point{{old(100)}, {old(110)}, {old(120), since("failures", 1, 120, 4)}}, want: 4},
		"the rest of a split export":    {looks: [][]point{{old(100)}, {old(110), since("split", 1, 110, 1e6)}, {old(120), since("split", 1, 120, 1e6+4)}}, want: 4},
		"a restart":                     {looks: [][]point{{old(100), since("b", 1, 100, 5)}, {old(110), since("b", 104, 110, 50)}, {old(120)}}, want: 50},
		"a restart before it began":     {looks: [][]point{{old(100), since("b", 1, 20, 5)}, {old(110), since("b", 90, 110, 50)}, {old(120), since("b", 90, 120, 57)}}, want: 7},
		"it fell without a new start":   {looks: [][]point{{old(100), since("b", 1, 100, 5)}, {old(110), since("b", 1, 110, 3)}, {old(120)}}, want: 3},
		"new, as looking back shows":    {past: []point{}, looks: [][]point{{old(100)}, {old(110), reads{"new": 8}.points(110)[0]}, {old(120)}}, want: 8},
		"lapsed, as looking back shows": {past: reads{"b": 1e6}.points(50), looks: [][]point{{old(100)}, {old(110), reads{"b": 1e6 + 8}.points(110)[0]}, {old(120)}}, want: 8},
	} {
		var side sideTally
		if test.past != nil {
			side.requests.remember(test.past)
		}
		for _, look := range test.looks {
			require.Empty(t, side.add(sidePoints{requests: look}), name)
		}
		assert.Equal(t, test.want+20, side.counts().Requests, name)
	}
}

// TestFailuresOfLatePods: where failures are a selection of the requests' metric,
// its series tell of each other.
func TestFailuresOfLatePods(t *testing.T) {
	var side sideTally
	for _, look := range []sidePoints{
		{requests: []point{since("old", 1, 100, 10)}},
		{requests: []point{since("old", 1, 110, 20), since("late", 50, 110, 1e6)}, failures: []point{since("late", 50, 110, 1e5)}},
		{requests: []point{since("old", 1, 120, 30), since("late", 50, 120, 1e6)}, failures: []point{since("late", 50, 120, 1e5), since("old", 1, 120, 5)}},
	} {
		side.add(look)
	}
	assert.Equal(t, sequential.Counts{Requests: 20, Failures: 5}, side.counts())
}

func TestTallyIgnoresReplicasThatLag(t *testing.T) {
	var sum tally
	sum.add(reads{"a": 100}.points(10))
	sum.add(reads{"a": 150}.points(20))
	sum.add(reads{"a": 140}.points(18)) // by another replica, which scraped earlier
	sum.add(reads{"a": 160}.points(22))
	assert.Equal(t, uint64(60), sum.requests())
}

func TestTallyKnowsRestartsByTheirStart(t *testing.T) {
	var sum tally
	p := reads{"a": 100}.points(10)
	p[0].start = time.Unix(1, 0)
	sum.add(p)
	p = reads{"a": 300}.points(20)
	p[0].start = time.Unix(15, 0)
	sum.add(p)
	assert.Equal(t, uint64(300), sum.requests(), "it counted beyond the old value since it began again")
}

func TestTallyOfHistogramsThatChangeTheirBuckets(t *testing.T) {
	at := 0
	look := func(buckets ...Bucket) []point {
		at++
		return []point{{series: "a", time: time.Unix(int64(at), 0), buckets: buckets}}
	}
	var sum tally
	sum.add(look(Bucket{1, 2, 100}, Bucket{2, 4, 100}))
	assert.Empty(t, sum.add(look(Bucket{1, 2, 110}, Bucket{2, 4, 100}, Bucket{4, 8, 1})), "a new bucket is no change")
	assert.Equal(t, uint64(11), sum.requests())
	assert.Empty(t, sum.add(look(Bucket{1, 4, 220}, Bucket{4, 8, 2})), "the resolution was halved")
	assert.Equal(t, uint64(22), sum.requests())
	assert.Empty(t, sum.add(look(Bucket{1, 4, 5}, Bucket{4, 8, 3})), "a restart")
	assert.Equal(t, uint64(30), sum.requests())
	assert.Empty(t, sum.add(look(Bucket{0, 8, 6})), "a restart with coarser buckets")
	assert.Equal(t, uint64(36), sum.requests())
	assert.Equal(t, []string{"a"}, sum.add(look(Bucket{0, 4, 6}, Bucket{4, 8, 6})), "which of them the old ones are in is not known")
	assert.Equal(t, []string{"a"}, sum.add(look(Bucket{0, 2, 10}, Bucket{2, 8, 10})), "other buckets")
	assert.Equal(t, uint64(36), sum.requests())
	assert.Empty(t, sum.add(look(Bucket{0, 2, 11}, Bucket{2, 8, 10})))
	assert.Equal(t, uint64(37), sum.requests())
}

func TestHistogramsOfClassicBuckets(t *testing.T) {
	bucket := func(pod, le string, v float64) Sample {
		return Sample{Labels: map[string]string{"pod": pod, "le": le}, Value: v}
	}
	points, err := histograms([]Sample{bucket("a", "+Inf", 9), bucket("a", "0.1", 4), bucket("b", "+Inf", 1), bucket("a", "0.5", 4)})
	require.NoError(t, err)
	require.Len(t, points, 2)
	assert.Equal(t, `{pod="a"}`, points[0].series)
	assert.Equal(t, []Bucket{{math.Inf(-1), 0.1, 4}, {0.1, 0.5, 0}, {0.5, math.Inf(1), 5}}, points[0].buckets)

	for name, samples := range map[string][]Sample{
		"no bound":            {{Labels: map[string]string{"pod": "a"}}},
		"not a number":        {bucket("a", "NaN", 1)},
		"no last bucket":      {bucket("a", "0.1", 1)},
		"the same twice":      {bucket("a", "0.1", 1), bucket("a", "0.10", 1), bucket("a", "+Inf", 1)},
		"fewer below a bound": {bucket("a", "0.1", 5), bucket("a", "+Inf", 1)},
	} {
		_, err := histograms(samples)
		require.ErrorIs(t, err, ErrUnfit, name)
	}
}

func tallyOf(looks ...[]Bucket) *tally {
	sum := tally{began: true, lookedBack: true} // so that what the first look says counts as well
	for i, buckets := range looks {
		sum.add([]point{{series: "a", time: time.Unix(int64(i), 0), buckets: buckets}})
	}
	return &sum
}

func TestAlignFindsTheBucketsThatBothFitIn(t *testing.T) {
	inf := math.Inf(1)
	for name, test := range map[string]struct {
		canary, baseline *tally
		bounds           []float64
		c, b             []uint64
	}{
		"the same":              {tallyOf([]Bucket{{0, 1, 5}, {1, 2, 3}}), tallyOf([]Bucket{{0, 1, 9}, {1, 2, 1}}), []float64{1, 2}, []uint64{5, 3}, []uint64{9, 1}},
		"some without requests": {tallyOf([]Bucket{{0, 1, 5}, {4, inf, 1}}), tallyOf([]Bucket{{0, 1, 6}, {1, 4, 2}}), []float64{1, 4, inf}, []uint64{5, 0, 1}, []uint64{6, 2, 0}},
		"a finer canary":        {tallyOf([]Bucket{{1, 1.5, 5}, {1.5, 2, 3}, {2, 4, 1}}), tallyOf([]Bucket{{1, 2, 9}}), []float64{2, 4}, []uint64{8, 1}, []uint64{9, 0}},
		"a finer baseline":      {tallyOf([]Bucket{{1, 2, 9}}), tallyOf([]Bucket{{1.5, 2, 3}}), []float64{2}, []uint64{9}, []uint64{3}},
		"one that got coarser":  {tallyOf([]Bucket{{1, 2, 3}}, []Bucket{{1, 4, 5}}), tallyOf([]Bucket{{2, 3, 9}}), []float64{4}, []uint64{5}, []uint64{9}},
		"a wider zero bucket":   {tallyOf([]Bucket{{-1, 1, 3}, {1, 2, 1}}), tallyOf([]Bucket{{-.1, .1, 1}, {.5, 1, 2}}), []float64{1, 2}, []uint64{3, 1}, []uint64{3, 0}},
		"one up to zero":        {tallyOf([]Bucket{{-inf, 0, 1}, {0, 5, 2}, {5, inf, 3}}), tallyOf([]Bucket{{-inf, 0, 0}, {0, 5, 7}, {5, inf, 0}}), []float64{5, inf}, []uint64{3, 3}, []uint64{7, 0}},
		"neither has bounds":    {tallyOf([]Bucket{{-inf, inf, 3}}), tallyOf([]Bucket{{-inf, inf, 4}}), []float64{inf}, []uint64{3}, []uint64{4}},
	} {
		c, b, err := align(test.canary, test.baseline)
		require.NoError(t, err, name)
		assert.Equal(t, test.bounds, c.UpperBounds, name)
		assert.Equal(t, test.bounds, b.UpperBounds, name)
		assert.Equal(t, test.c, c.Counts, name)
		assert.Equal(t, test.b, b.Counts, name)
	}
	for name, other := range map[string]*tally{
		"an overlap": tallyOf([]Bucket{{0.5, 2, 5}}),
		"no bounds":  tallyOf([]Bucket{{-inf, inf, 5}}),
	} {
		_, _, err := align(tallyOf([]Bucket{{0, 1, 5}}), other)
		require.ErrorIs(t, err, ErrUnfit, name)
	}
}

func TestTallyTellsLongLabelsApart(t *testing.T) {
	var sum tally
	for at, values := range [][2]float64{{100, 1e6}, {101, 1e6 + 1}} {
		points, err := counters([]Sample{
			{Labels: map[string]string{"path": strings.Repeat("x", 300) + "a"}, Value: values[0], Time: time.Unix(int64(at), 0)},
			{Labels: map[string]string{"path": strings.Repeat("x", 300) + "b"}, Value: values[1], Time: time.Unix(int64(at), 0)},
		})
		require.NoError(t, err)
		sum.add(points)
	}
	assert.Equal(t, uint64(2), sum.requests())
}
