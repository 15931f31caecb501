package sequential

import (
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConfigsNameTheWrongField(t *testing.T) {
	for field, config := range map[string]RateConfig{
		"RateConfig.Alpha":             {Alpha: 0.6},
		"RateConfig.Beta":              {Beta: -0.1},
		"RateConfig.Tolerance":         {Tolerance: 1},
		"RateConfig.RelativeTolerance": {RelativeTolerance: math.NaN()},
		"RateConfig.Dispersion":        {Dispersion: 0.5},
	} {
		_, err := NewRate(config)
		wrong, ok := errors.AsType[*InputError](err)
		require.True(t, ok, field)
		assert.Equal(t, field, wrong.Field)
		assert.ErrorContains(t, err, field+": ")
	}
	for field, config := range map[string]QuantileConfig{
		"QuantileConfig.Alpha":      {Alpha: math.NaN()},
		"QuantileConfig.Quantile":   {Quantile: 1},
		"QuantileConfig.Tolerance":  {Tolerance: -1},
		"QuantileConfig.Dispersion": {Dispersion: math.Inf(1)},
	} {
		_, err := NewQuantile(config)
		wrong, ok := errors.AsType[*InputError](err)
		require.True(t, ok, field)
		assert.Equal(t, field, wrong.Field)
	}
}

func TestObservationsThatCannotBe(t *testing.T) {
	rate, err := NewRate(RateConfig{})
	require.NoError(t, err)
	quantile, err := NewQuantile(QuantileConfig{})
	require.NoError(t, err)
	good := Histogram{UpperBounds: []float64{1, math.Inf(1)}, Counts: []uint64{3, 4}}
	compare := func(canary, baseline Histogram) error {
		_, err := quantile.Compare(canary, baseline)
		return err
	}
	against := func(_ Result, err error) error { return err }
	for field, err := range map[string]error{
		"canary.Failures":         against(rate.Compare(Counts{1, 2}, Counts{1, 1})),
		"baseline.Failures":       against(rate.Compare(Counts{1, 1}, Counts{1, 2})),
		"limit":                   against(rate.Against(Counts{1, 1}, 1.5)),
		"canary.UpperBounds":      compare(Histogram{}, good),
		"canary.UpperBounds[1]":   compare(Histogram{UpperBounds: []float64{1, 1}, Counts: []uint64{1, 1}}, good),
		"canary.UpperBounds[0]":   compare(Histogram{UpperBounds: []float64{math.NaN()}, Counts: []uint64{1}}, good),
		"canary.Counts[1]":        compare(Histogram{UpperBounds: []float64{1, 2}, Counts: []uint64{math.MaxUint64, 1}}, good),
		"baseline.UpperBounds":    compare(good, Histogram{UpperBounds: []float64{2, math.Inf(1)}, Counts: []uint64{3, 4}}),
		"baseline.UpperBounds[0]": compare(good, Histogram{UpperBounds: []float64{-1, 1}, Counts: []uint64{3, 4}}),
	} {
		wrong, ok := errors.AsType[*InputError](err)
		require.True(t, ok, "%s: %v", field, err)
		assert.Equal(t, field, wrong.Field)
	}
	_, err = quantile.Against(good, 0)
	assert.ErrorContains(t, err, "limit: ")
	_, err = good.Slower(0.5)
	assert.ErrorContains(t, err, "not one of the upper bounds")
}

func TestSince(t *testing.T) {
	got, err := Counts{10, 3}.Since(Counts{4, 1})
	require.NoError(t, err)
	assert.Equal(t, Counts{6, 2}, got)
	for _, before := range []Counts{{11, 0}, {10, 4}} {
		_, err = Counts{10, 3}.Since(before)
		_, ok := errors.AsType[*ResetError](err)
		assert.True(t, ok, "%v", before)
	}
	start := Histogram{UpperBounds: []float64{1, math.Inf(1)}, Counts: []uint64{3, 4}}
	now := Histogram{UpperBounds: start.UpperBounds, Counts: []uint64{30, 4}}
	since, err := now.Since(start)
	require.NoError(t, err)
	assert.Equal(t, []uint64{27, 0}, since.Counts)
	_, err = start.Since(now)
	assert.ErrorContains(t, err, "counter of bucket 1 s went down from 30 to 3")
	_, err = now.Since(Histogram{UpperBounds: []float64{1}, Counts: []uint64{3}})
	assert.ErrorContains(t, err, "only equal buckets can be compared")
}

func TestNothingIsDecidedWithoutData(t *testing.T) {
	rate, err := NewRate(RateConfig{Tolerance: 0.01})
	require.NoError(t, err)
	for _, counts := range [][2]Counts{{}, {{1e6, 1e6}, {}}, {{}, {1e6, 0}}} {
		result, err := rate.Compare(counts[0], counts[1])
		require.NoError(t, err)
		assert.Equal(t, Undecided, result.Outcome)
		assert.NotZero(t, result.Needed)
		assert.InDelta(t, -1, result.Lower, 0)
		assert.InDelta(t, 1, result.Upper, 0)
	}
	quantile, err := NewQuantile(QuantileConfig{})
	require.NoError(t, err)
	empty := Histogram{UpperBounds: []float64{0.1, 0.2}, Counts: []uint64{0, 0}}
	full := Histogram{UpperBounds: []float64{0.1, 0.2}, Counts: []uint64{1e6, 10}}
	for _, pair := range [][2]Histogram{{empty, empty}, {empty, full}, {full, empty}} {
		result, err := quantile.Compare(pair[0], pair[1])
		require.NoError(t, err)
		assert.Equal(t, Undecided, result.Outcome)
	}
	result, err := quantile.Against(empty, 0.1)
	require.NoError(t, err)
	assert.Equal(t, Undecided, result.Outcome)
}

func TestMinRequestsHoldBack(t *testing.T) {
	rate, err := NewRate(RateConfig{MinRequests: 1000})
	require.NoError(t, err)
	result, err := rate.Compare(Counts{500, 500}, Counts{900, 0})
	require.NoError(t, err)
	assert.Equal(t, Undecided, result.Outcome)
	assert.EqualValues(t, 500, result.Needed)
	result, err = rate.Compare(Counts{1000, 1000}, Counts{1800, 0})
	require.NoError(t, err)
	assert.Equal(t, Harm, result.Outcome)
}

func TestTheLargerToleranceCounts(t *testing.T) {
	rate, err := NewRate(RateConfig{Tolerance: 0.001, RelativeTolerance: 1})
	require.NoError(t, err)
	// Twice the baseline's failures are tolerated; ten times not.
	result, err := rate.Compare(Counts{100_000, 8_000}, Counts{100_000, 5_000})
	require.NoError(t, err)
	assert.Equal(t, Safe, result.Outcome)
	assert.InDelta(t, 0.05, result.Tolerated, 1e-12)
	result, err = rate.Compare(Counts{100_000, 12_000}, Counts{100_000, 5_000})
	require.NoError(t, err)
	assert.Equal(t, Harm, result.Outcome)
	// Where the baseline hardly fails, a thousandth is.
	result, err = rate.Compare(Counts{100_000, 30}, Counts{100_000, 5})
	require.NoError(t, err)
	assert.Equal(t, Safe, result.Outcome)
	result, err = rate.Compare(Counts{100_000, 300}, Counts{100_000, 5})
	require.NoError(t, err)
	assert.Equal(t, Harm, result.Outcome)
}

func TestQuantileAgainstALimit(t *testing.T) {
	quantile, err := NewQuantile(QuantileConfig{Quantile: 0.95})
	require.NoError(t, err)
	h := Histogram{UpperBounds: []float64{0.1, 0.2, 0.4, math.Inf(1)}, Counts: []uint64{800, 180, 19, 1}}
	for limit, want := range map[float64]Outcome{0.05: Harm, 0.1: Harm, 0.15: Undecided, 0.2: Safe, 1: Safe} {
		result, err := quantile.Against(h, limit)
		require.NoError(t, err)
		assert.Equal(t, want, result.Outcome, "limit %g: %v", limit, result)
		assert.InDelta(t, 0.1, result.Lower, 0)
		assert.InDelta(t, 0.2, result.Upper, 0)
		assert.InDelta(t, 0.1833, result.Estimate, 1e-3)
	}
}
