package sequential

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sane checks what holds of every result.
func sane(t *testing.T, r Result) {
	t.Helper()
	for _, x := range []float64{r.Estimate, r.Lower, r.Upper, r.Tolerated} {
		require.False(t, math.IsNaN(x) || math.IsInf(x, 0), "%+v", r)
	}
	require.LessOrEqual(t, r.Lower, r.Estimate, "%+v", r)
	require.LessOrEqual(t, r.Estimate, r.Upper, "%+v", r)
	require.Contains(t, []Outcome{Undecided, Harm, Safe}, r.Outcome)
	require.Equal(t, r.Outcome == Undecided, r.Needed > 0, "%+v", r)
	require.NotEmpty(t, r.String())
	_, err := json.Marshal(r)
	require.NoError(t, err)
}

var extremes = []uint64{0, 1, 2, 999, 1e9, math.MaxInt64, math.MaxUint64 - 1, math.MaxUint64}

func TestRateOfExtremeCounts(t *testing.T) {
	var all []Counts
	for _, n := range extremes {
		for _, k := range extremes {
			if k <= n {
				all = append(all, Counts{Requests: n, Failures: k})
			}
		}
	}
	for _, config := range []RateConfig{{}, {RelativeTolerance: 0.5}, {Tolerance: 1e-9, Alpha: 1e-12, Dispersion: 1e6, MinRequests: math.MaxUint64}} {
		rate, err := NewRate(config)
		require.NoError(t, err)
		for i, canary := range all {
			result, err := rate.Against(canary, 0.01)
			require.NoError(t, err)
			sane(t, result)
			for j := i % 3; j < len(all); j += 3 {
				result, err := rate.Compare(canary, all[j])
				require.NoError(t, err)
				sane(t, result)
			}
		}
	}
}

func FuzzRate(f *testing.F) {
	f.Add(uint64(100), uint64(3), uint64(900), uint64(2), 0.01, 0.0, 1.0)
	f.Fuzz(func(t *testing.T, n1, k1, n0, k0 uint64, tolerance, relative, dispersion float64) {
		rate, err := NewRate(RateConfig{Tolerance: tolerance, RelativeTolerance: relative, Dispersion: dispersion})
		if err != nil {
			return
		}
		result, err := rate.Compare(Counts{n1, k1}, Counts{n0, k0})
		if k1 > n1 || k0 > n0 {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		sane(t, result)
	})
}

func FuzzQuantile(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6}, 0.99, 0.2, uint8(3))
	f.Fuzz(func(t *testing.T, counts []byte, q, tolerance float64, scale uint8) {
		quantile, err := NewQuantile(QuantileConfig{Quantile: q, Tolerance: tolerance})
		if err != nil || len(counts) < 2 || len(counts) > 64 {
			return
		}
		m := len(counts) / 2
		canary, baseline := Histogram{}, Histogram{}
		for i := range m {
			bound := math.Pow(1.3, float64(i)) / 100
			if i == m-1 && scale%2 == 0 {
				bound = math.Inf(1)
			}
			canary.UpperBounds, baseline.UpperBounds = append(canary.UpperBounds, bound), append(baseline.UpperBounds, bound)
			canary.Counts = append(canary.Counts, uint64(counts[i])<<(scale%48))
			baseline.Counts = append(baseline.Counts, uint64(counts[m+i])<<(scale%48))
		}
		result, err := quantile.Compare(canary, baseline)
		require.NoError(t, err)
		sane(t, result)
		result, err = quantile.Against(canary, 0.1)
		require.NoError(t, err)
		sane(t, result)
	})
}

// One failure more never makes a canary look better, nor one less worse.
func TestMoreFailuresAreNeverLessHarmful(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	rate, err := NewRate(RateConfig{Alpha: 0.05, Tolerance: 0.02, RelativeTolerance: 0.1})
	require.NoError(t, err)
	rank := map[Outcome]int{Safe: 0, Undecided: 1, Harm: 2}
	for range 40 {
		n := uint64(1 + rng.IntN(400))
		baseline := Counts{Requests: uint64(1 + rng.IntN(4000))}
		baseline.Failures = baseline.Requests * uint64(rng.IntN(30)) / 100
		var before Result
		for k := uint64(0); k <= n; k += 1 + n/60 {
			result, err := rate.Compare(Counts{n, k}, baseline)
			require.NoError(t, err)
			if k > 0 {
				assert.GreaterOrEqual(t, rank[result.Outcome], rank[before.Outcome], "%d of %d against %v", k, n, baseline)
				assert.GreaterOrEqual(t, result.Lower, before.Lower-1e-4, "%d of %d against %v", k, n, baseline)
				assert.GreaterOrEqual(t, result.Upper, before.Upper-1e-4, "%d of %d against %v", k, n, baseline)
			}
			before = result
		}
	}
}

// The outcome and the interval tell the same story.
func TestOutcomeAgreesWithInterval(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	rate, err := NewRate(RateConfig{Alpha: 0.05, Beta: 0.2, Tolerance: 0.02})
	require.NoError(t, err)
	for range 500 {
		canary, baseline := Counts{Requests: uint64(rng.IntN(3000))}, Counts{Requests: uint64(rng.IntN(9000))}
		canary.Failures = canary.Requests * uint64(rng.IntN(20)) / 100
		baseline.Failures = baseline.Requests * uint64(rng.IntN(10)) / 100
		result, err := rate.Compare(canary, baseline)
		require.NoError(t, err)
		sane(t, result)
		switch result.Outcome {
		case Harm:
			assert.Greater(t, result.Lower, 0.02-1e-4, "%v", result)
		case Safe:
			assert.Less(t, result.Upper, 0.02+1e-4, "%v", result)
		case Undecided:
			assert.LessOrEqual(t, result.Lower, 0.02, "%v", result)
			assert.GreaterOrEqual(t, result.Upper, 0.02, "%v", result)
		}
	}
}

// Needed more requests like those before decide; half of them don't.
func TestNeededIsEnough(t *testing.T) {
	rate, err := NewRate(RateConfig{Tolerance: 0.01})
	require.NoError(t, err)
	for _, counts := range [][2]Counts{
		{{1000, 20}, {9000, 90}},
		{{100, 0}, {900, 0}},
		{{100, 9}, {900, 18}},
		{{4000, 40}, {4000, 40}},
	} {
		result, err := rate.Compare(counts[0], counts[1])
		require.NoError(t, err)
		if result.Needed == Never {
			continue
		}
		require.Equal(t, Undecided, result.Outcome)
		p := pair{canary: rate.side(counts[0]), baseline: rate.side(counts[1])}
		whole := 1 + float64(result.Needed)/p.canary.n
		half := 1 + float64(result.Needed)/2/p.canary.n
		assert.NotEqual(t, Undecided, rate.decide(p.times(whole)), "%v", result)
		assert.Equal(t, Undecided, rate.decide(p.times(half)), "%v", result)
	}
}

// Seconds or milliseconds, the ratio is the same.
func TestRatioDoesNotDependOnTheUnit(t *testing.T) {
	quantile, err := NewQuantile(QuantileConfig{Quantile: 0.9})
	require.NoError(t, err)
	canary := Histogram{UpperBounds: []float64{0.125, 0.25, 0.5, 1}, Counts: []uint64{300, 500, 100, 600}}
	baseline := Histogram{UpperBounds: canary.UpperBounds, Counts: []uint64{3000, 5000, 100, 3}}
	seconds, err := quantile.Compare(canary, baseline)
	require.NoError(t, err)
	assert.Equal(t, Harm, seconds.Outcome)
	canary.UpperBounds = []float64{128, 256, 512, 1024}
	baseline.UpperBounds = canary.UpperBounds
	milliseconds, err := quantile.Compare(canary, baseline)
	require.NoError(t, err)
	assert.Equal(t, seconds, milliseconds)
}

// Coarser buckets say less, and nothing else.
func TestCoarserBucketsSayLess(t *testing.T) {
	quantile, err := NewQuantile(QuantileConfig{Quantile: 0.9, Alpha: 0.1})
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		fine := [2]Histogram{}
		coarse := [2]Histogram{}
		for side := range fine {
			for i := range 24 {
				count := uint64(rng.IntN(1 + 400/(1+abs(i-8-side*2))))
				fine[side].UpperBounds = append(fine[side].UpperBounds, math.Pow(1.2, float64(i+1)))
				fine[side].Counts = append(fine[side].Counts, count)
			}
			for i := 0; i < 24; i += 3 {
				coarse[side].UpperBounds = append(coarse[side].UpperBounds, fine[side].UpperBounds[i+2])
				coarse[side].Counts = append(coarse[side].Counts, fine[side].Counts[i]+fine[side].Counts[i+1]+fine[side].Counts[i+2])
			}
		}
		sharp, err := quantile.Compare(fine[1], fine[0])
		require.NoError(t, err)
		blunt, err := quantile.Compare(coarse[1], coarse[0])
		require.NoError(t, err)
		sane(t, sharp)
		sane(t, blunt)
		assert.LessOrEqual(t, blunt.Lower, sharp.Lower)
		assert.GreaterOrEqual(t, blunt.Upper, sharp.Upper)
	}
}

func abs(i int) int { return max(i, -i) }

func TestQuantileOfExtremeHistograms(t *testing.T) {
	quantile, err := NewQuantile(QuantileConfig{})
	require.NoError(t, err)
	bounds := []float64{0.1, 1, math.Inf(1)}
	shapes := [][]uint64{{0, 0, 0}, {1, 0, 0}, {0, 0, math.MaxUint64}, {math.MaxUint64, 0, 0}, {1e9, 1e6, 0}, {1 << 62, 1 << 62, 1 << 62}}
	for _, canary := range shapes {
		for _, baseline := range shapes {
			result, err := quantile.Compare(Histogram{bounds, canary}, Histogram{bounds, baseline})
			require.NoError(t, err)
			sane(t, result)
		}
		result, err := quantile.Against(Histogram{bounds, canary}, 0.5)
		require.NoError(t, err)
		sane(t, result)
	}
	// Where both end beyond the last finite bound, nothing can be said, ever.
	slow := Histogram{bounds, slices.Clone([]uint64{0, 10, 1e6})}
	result, err := quantile.Compare(slow, slow)
	require.NoError(t, err)
	assert.Equal(t, Undecided, result.Outcome)
	assert.Equal(t, uint64(Never), result.Needed)
	assert.Contains(t, result.String(), "buckets are too wide")
}
