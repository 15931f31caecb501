package metric

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
		"a new pod counts from zero":       {[]reads{{"a": 100}, {"a": 100, "b": 8}, {"a": 101, "b": 9}}, 10},
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
	assert.Equal(t, []string{"a"}, sum.add(look(Bucket{1, 4, 220}, Bucket{4, 8, 2})), "the resolution was halved")
	assert.Empty(t, sum.add(look(Bucket{1, 4, 0}, Bucket{4, 8, 3})), "a restart")
	assert.Equal(t, uint64(14), sum.requests())
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

func TestAlignRefusesOtherBuckets(t *testing.T) {
	of := func(buckets ...Bucket) *tally {
		var sum tally
		sum.add([]point{{series: "a", buckets: buckets}})
		return &sum
	}
	inf := math.Inf(1)
	c, b, err := align(of(Bucket{0, 1, 5}, Bucket{4, inf, 0}), of(Bucket{0, 1, 5}, Bucket{1, 4, 0}, Bucket{4, inf, 0}))
	require.NoError(t, err)
	assert.Equal(t, []float64{1, 4, inf}, c.UpperBounds)
	assert.Equal(t, c.UpperBounds, b.UpperBounds)
	for name, other := range map[string]*tally{
		"another lower bound": of(Bucket{0.5, 1, 5}),
		"an overlap":          of(Bucket{0, 2, 5}),
		"a finer one":         of(Bucket{0, 0.5, 5}),
	} {
		_, _, err := align(of(Bucket{0, 1, 5}), other)
		require.ErrorIs(t, err, ErrUnfit, name)
	}
}
