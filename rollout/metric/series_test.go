package metric_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestSeriesCountsOn has decisions end after two looks each.
func TestSeriesCountsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		c := metric.ComparisonConfig{Source: &fleet{pods: []pod{{name: "canary-1", track: "canary", from: now, rate: 5, failing: 0.05}, stable(now)}}, FailureLabel: "code", FailurePattern: "5.."}
		c.Canary, c.Baseline = sides("coded")
		c.Watch.Timeout = interval
		gate, rel := comparison(t, c), release()
		both, err := metric.All("all", gate)
		require.NoError(t, err)
		series := map[string]stages.Gate[stages.Release]{"": gate.Series(1), "among others": stages.GateSeries(both, 1)}
		for name, series := range series {
			for n := 0; ; n++ {
				require.Less(t, n, 60, name)
				d := decide(t, series, rel)
				if d.Verdict == stages.Fail {
					assert.Greater(t, n, 3, name)
					break
				}
				assert.Equal(t, stages.Inconclusive, d.Verdict)
				assert.Equal(t, stages.Inconclusive, decide(t, gate, rel).Verdict, "by itself it begins anew each time")
			}
		}
		other := release()
		other.Revision++
		_, err = series[""].Decide(t.Context(), other)
		require.ErrorIs(t, err, stages.ErrInvalid, "what was counted is of another release")
	})
}

// TestSeriesShareAlpha: the more there may be, the more each has to be sure of.
func TestSeriesShareAlpha(t *testing.T) {
	for failing, want := range map[float64]stages.Verdict{0.06: stages.Fail, 0: stages.Pass} {
		took := func(of int) (d stages.Decision, after time.Duration) {
			synctest.Test(t, func(t *testing.T) {
				now := time.Now()
				c := metric.ComparisonConfig{Source: &fleet{pods: []pod{{name: "canary-1", track: "canary", from: now, rate: 10, failing: failing}, stable(now)}}, FailureLabel: "code", FailurePattern: "5.."}
				c.Canary, c.Baseline = sides("coded")
				c.Watch.Timeout = time.Hour
				d = decide(t, comparison(t, c).Series(of), release())
				after = time.Since(now)
			})
			return d, after
		}
		alone, first := took(1)
		many, later := took(10_000)
		assert.Equal(t, want, alone.Verdict)
		assert.Equal(t, want, many.Verdict)
		assert.Equal(t, want == stages.Fail, later > first, "%s, and %s of many", first, later)
	}
}

// TestSeriesDecidesOneAtATime, and doesn't wait for longer than it may.
func TestSeriesDecidesOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		c := metric.ComparisonConfig{Source: &fleet{pods: []pod{{name: "canary-1", track: "canary", from: now}, stable(now)}}, FailureLabel: "code", FailurePattern: "5.."}
		c.Canary, c.Baseline = sides("coded")
		series := comparison(t, c).Series(1)
		var first sync.WaitGroup
		first.Go(func() { decide(t, series, release()) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := series.Decide(ctx, release())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		first.Wait()
	})
}
