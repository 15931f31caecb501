package otlp_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
)

func exponential(temporality int, points ...string) string {
	return fmt.Sprintf(`{"name":"latency","exponentialHistogram":{"aggregationTemporality":%d,"dataPoints":[%s]}}`, temporality, strings.Join(points, ","))
}

func buckets(t *testing.T, r metric.Source) []metric.Bucket {
	t.Helper()
	list := query(t, r, "latency")
	require.Len(t, list, 1)
	require.NotNil(t, list[0].Histogram)
	return list[0].Histogram.Buckets
}

const tiny = math.SmallestNonzeroFloat64

func TestExponentialHistograms(t *testing.T) {
	for name, test := range map[string]struct {
		point string
		want  []metric.Bucket
	}{
		"nothing observed": {`{}`, []metric.Bucket{}},
		"powers of two":    {`{"scale":0,"count":"6","positive":{"offset":-1,"bucketCounts":["1","0","5"]}}`, []metric.Bucket{{Lower: 0.5, Upper: 1, Count: 1}, {Lower: 2, Upper: 4, Count: 5}}},
		"of four":          {`{"scale":-1,"count":"1","positive":{"offset":1,"bucketCounts":["1"]}}`, []metric.Bucket{{Lower: 4, Upper: 16, Count: 1}}},
		"of the root":      {`{"scale":1,"count":"1","positive":{"offset":-1,"bucketCounts":["1"]}}`, []metric.Bucket{{Lower: math.Exp2(-0.5), Upper: 1, Count: 1}}},
		"all there is":     {`{"scale":-10,"count":"3","positive":{"offset":-1,"bucketCounts":["1","2"]}}`, []metric.Bucket{{Lower: 0x1p-1024, Upper: 1, Count: 1}, {Lower: 1, Upper: math.Inf(1), Count: 2}}},
		"zero and below": {
			`{"scale":0,"count":"6","zeroCount":"1","negative":{"bucketCounts":["2","3"]}}`,
			[]metric.Bucket{{Lower: -4, Upper: -2, Count: 3}, {Lower: -2, Upper: -1, Count: 2}, {Lower: -tiny, Upper: tiny, Count: 1}},
		},
		"a threshold": {`{"scale":0,"count":"3","zeroCount":"1","zeroThreshold":1,"positive":{"bucketCounts":["2"]}}`, []metric.Bucket{{Lower: -1, Upper: 1, Count: 1}, {Lower: 1, Upper: 2, Count: 2}}},
		"a threshold inside a bucket": {
			`{"scale":0,"count":"7","zeroCount":"1","zeroThreshold":1.5,"positive":{"offset":-1,"bucketCounts":["1","2"]},"negative":{"bucketCounts":["3"]}}`,
			[]metric.Bucket{{Lower: -2, Upper: 2, Count: 7}},
		},
		"finer than numbers": {`{"scale":40,"count":"2","positive":{"offset":1048576,"bucketCounts":["1","1"]}}`, []metric.Bucket{{Lower: math.Exp2(0x1p-20), Upper: math.Exp2(0x1p-19), Count: 2}}},
	} {
		r := receiver(t, nil)
		assert.NotContains(t, send(t, r, exponential(cumulative, test.point)), "rejected", name)
		assert.Equal(t, test.want, buckets(t, r), name)
	}
}

// pointAt is a point of a second of 1970.
func pointAt(second int, fields string) string {
	return fmt.Sprintf(`{"startTimeUnixNano":"%d","timeUnixNano":"%d",%s}`, int64(time.Second), int64(second)*int64(time.Second), fields)
}

func TestExponentialDeltasAreMerged(t *testing.T) {
	r := receiver(t, nil)
	for second, fields := range []string{
		`"scale":1,"count":"3","positive":{"offset":2,"bucketCounts":["1","2"]}`,                                    // 2 to 2.8 to 4
		`"scale":2,"count":"5","positive":{"offset":4,"bucketCounts":["1","0","1","2"]},"zeroCount":"1"`,            // 2 to 2.4, 2.8 to 3.4 to 4
		`"scale":0,"count":"1","negative":{"bucketCounts":["1"]}`,                                                   // the coarsest
		`"scale":5,"count":"3","positive":{"offset":-64,"bucketCounts":["2"]},"zeroThreshold":0.25,"zeroCount":"1"`, // 0.25 to 0.256
		`"scale":3,"count":"1","positive":{"offset":8,"bucketCounts":["1"]},"zeroThreshold":0.1`,                    // 2 to 2.2
		`"count":"0","scale":20`, // nothing
	} {
		assert.NotContains(t, send(t, r, exponential(delta, pointAt(second+2, fields))), "rejected")
		assert.Contains(t, send(t, r, exponential(delta, pointAt(second+2, fields))), "later point", "the same again")
	}
	assert.Equal(t, []metric.Bucket{{Lower: -2, Upper: -1, Count: 1}, {Lower: -0.25, Upper: 0.25, Count: 2}, {Lower: 0.25, Upper: 0.5, Count: 2}, {Lower: 2, Upper: 4, Count: 8}}, buckets(t, r))
	assert.Equal(t, time.Unix(1, 0), query(t, r, "latency")[0].Start)

	send(t, r, exponential(cumulative, pointAt(60, `"scale":4,"count":"1","positive":{"bucketCounts":["1"]}`)))
	assert.Equal(t, []metric.Bucket{{Lower: 1, Upper: math.Exp2(1.0 / 16), Count: 1}}, buckets(t, r), "a cumulative point replaces what there was")
	send(t, r, fmt.Sprintf(`{"name":"latency","histogram":{"aggregationTemporality":1,"dataPoints":[%s]}}`, pointAt(61, `"count":"1","bucketCounts":["1","0"],"explicitBounds":[1]`)))
	assert.Equal(t, []metric.Bucket{{Lower: math.Inf(-1), Upper: 1, Count: 1}, {Lower: 1, Upper: math.Inf(1)}}, buckets(t, r), "so does a delta in other buckets")
}

// TestExponentialDeltasAreBounded has a sender whose deltas are always elsewhere.
func TestExponentialDeltasAreBounded(t *testing.T) {
	r := receiver(t, nil)
	const exports = 3000
	for i := range exports {
		send(t, r, exponential(delta, pointAt(i+2, fmt.Sprintf(`"scale":10,"count":"1","positive":{"offset":%d,"bucketCounts":["1"]}`, i))))
	}
	got := buckets(t, r)
	assert.LessOrEqual(t, len(got), 1000)
	assert.Greater(t, len(got), 500, "no coarser than needed")
	assert.InDelta(t, exports, query(t, r, "latency")[0].Histogram.Total(), 0)
}

func FuzzExponential(f *testing.F) {
	f.Add(int32(20), int32(-3), uint64(1), uint64(2), 0.0, int32(3), int32(7), 1e-3)
	f.Add(int32(-10), int32(math.MaxInt32), uint64(1), uint64(0), math.Inf(1), int32(math.MinInt32), int32(math.MinInt32), -1.0)
	f.Add(int32(math.MaxInt32), int32(0), uint64(math.MaxUint64), uint64(math.MaxUint64), math.NaN(), int32(0), int32(-1), 2.0)
	f.Fuzz(func(t *testing.T, scale, offset int32, a, b uint64, threshold float64, scale2, offset2 int32, threshold2 float64) {
		if math.IsNaN(threshold+threshold2) || math.IsInf(threshold, 0) || math.IsInf(threshold2, 0) {
			threshold, threshold2 = 0, 0 // JSON has no such numbers
		}
		a, b = a>>12, b>>12
		r := receiver(t, nil)
		send(t, r, exponential(delta, pointAt(2, fmt.Sprintf(`"scale":%d,"zeroThreshold":%v,"count":"%d","positive":{"offset":%d,"bucketCounts":["%d","%d"]}`, scale, threshold, a+b, offset, a, b))))
		send(t, r, exponential(delta, pointAt(3, fmt.Sprintf(`"scale":%d,"zeroThreshold":%v,"count":"%d","zeroCount":"%d","negative":{"offset":%d,"bucketCounts":["%d"]}`, scale2, threshold2, a+b, b, offset2, a))))
		for _, s := range query(t, r, "latency") {
			below := math.Inf(-1)
			for _, bucket := range s.Histogram.Buckets {
				require.Greater(t, bucket.Upper, bucket.Lower)
				require.GreaterOrEqual(t, bucket.Lower, below, "buckets must not overlap")
				below = bucket.Upper
			}
			require.Contains(t, []float64{float64(a + b), 2 * float64(a+b)}, s.Histogram.Total(), "nothing may get lost")
		}
	})
}
