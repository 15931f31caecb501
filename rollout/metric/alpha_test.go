package metric

import (
	"math"
	"sort"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/sequential"
	"github.com/fairlead-dev/fairlead/stages"
)

// judged is the verdict on a canary that had a thousand requests of either measure.
func judged(t *testing.T, canary Side, alpha float64, failed, slow int) stages.Verdict {
	t.Helper()
	c := ComparisonConfig{
		Source: SourceFunc(nil), Canary: canary, MaxLatency: time.Second,
		Rate: sequential.RateConfig{Alpha: alpha, Beta: 0.01}, Quantile: sequential.QuantileConfig{Alpha: alpha, Beta: 0.01, Quantile: 0.9},
	}
	if canary.Requests != "" {
		c.FailureLabel, c.FailurePattern, c.MaxFailureRate = "code", "5..", 0.1
	}
	gate, err := NewComparison(c)
	require.NoError(t, err)
	all := bounds{math.Inf(-1), math.Inf(1)}
	run := &comparisonRun{Comparison: gate}
	run.canary.requests.counts = map[bounds]float64{all: 1000}
	run.canary.failures.counts = map[bounds]float64{all: float64(failed)}
	run.canary.latency.counts = map[bounds]float64{{0, 1}: float64(1000 - slow), {1, 2}: float64(slow)}
	return run.judge().verdict
}

// TestTwoMeasuresShareAlpha: that either of two raises a false alarm is as probable as
// both together at most, so each has to be as sure as one alone with half of Alpha.
func TestTwoMeasuresShareAlpha(t *testing.T) {
	const alpha = 0.02
	both := Side{Requests: "requests", Latency: "latency"}
	for name, test := range map[string]struct {
		alone Side
		count func(n int) (failed, slow int)
	}{
		"failures": {Side{Requests: "requests"}, func(n int) (int, int) { return n, 0 }},
		"latency":  {Side{Latency: "latency"}, func(n int) (int, int) { return 0, n }},
	} {
		fails := func(canary Side, alpha float64) int {
			return sort.Search(1000, func(n int) bool {
				failed, slow := test.count(n)
				return judged(t, canary, alpha, failed, slow) == stages.Fail
			})
		}
		assert.Equal(t, fails(test.alone, alpha/2), fails(both, alpha), name)
		assert.Greater(t, fails(both, alpha), fails(test.alone, alpha), name)
		passes := func(canary Side) int {
			return sort.Search(1000, func(n int) bool {
				failed, slow := test.count(n)
				return judged(t, canary, alpha, failed, slow) != stages.Pass
			})
		}
		assert.Equal(t, passes(test.alone), passes(both), "%s: harm has to pass for safe by both, so Beta isn't shared", name)
	}
}

// TestAlphaIsCheckedBeforeItIsShared: half of it may be a probability.
func TestAlphaIsCheckedBeforeItIsShared(t *testing.T) {
	for _, c := range []ComparisonConfig{
		{Rate: sequential.RateConfig{Alpha: 0.8}}, {Quantile: sequential.QuantileConfig{Alpha: 0.8}},
	} {
		c.Source, c.FailureLabel, c.FailurePattern, c.MaxFailureRate, c.MaxLatency = SourceFunc(nil), "code", "5..", 0.1, time.Second
		c.Canary = Side{Requests: "requests", Latency: "latency"}
		_, err := NewComparison(c)
		require.ErrorIs(t, err, stages.ErrInvalid)
	}
}
