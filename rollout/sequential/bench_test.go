package sequential

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func BenchmarkRateCompare(b *testing.B) {
	rate, err := NewRate(RateConfig{Tolerance: 0.005})
	require.NoError(b, err)
	for name, counts := range map[string][2]Counts{
		"decided":   {{Requests: 1200, Failures: 35}, {Requests: 10800, Failures: 51}},
		"undecided": {{Requests: 1200, Failures: 12}, {Requests: 10800, Failures: 51}},
		"billions":  {{Requests: 1e9, Failures: 1e7}, {Requests: 9e9, Failures: 3e7}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = rate.Compare(counts[0], counts[1])
			}
		})
	}
}

func BenchmarkQuantileCompare(b *testing.B) {
	quantile, err := NewQuantile(QuantileConfig{})
	require.NoError(b, err)
	for _, buckets := range []int{12, 160} {
		h := Histogram{}
		for i := range buckets {
			h.UpperBounds = append(h.UpperBounds, 0.01*float64(i+1))
			h.Counts = append(h.Counts, uint64(100*(i+1)))
		}
		b.Run(fmt.Sprintf("%d buckets", buckets), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = quantile.Compare(h, h)
			}
		})
	}
}
