package metric_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/stages"
)

// undecided is a comparison that never sees a request.
func undecided(t *testing.T, watch metric.Watch, spoil func(ctx context.Context) error) *metric.Comparison {
	t.Helper()
	now := time.Now()
	pods := &fleet{pods: []pod{{name: "canary-1", track: "canary", from: now, rate: 0.1}, stable(now)}}
	c := metric.ComparisonConfig{FailureLabel: "code", FailurePattern: "5..", Watch: watch}
	c.Source = metric.SourceFunc(func(ctx context.Context, q metric.Query) (metric.Result, error) {
		if spoil != nil {
			if err := spoil(ctx); err != nil {
				return metric.Result{}, err
			}
		}
		return pods.Query(ctx, q)
	})
	c.Canary, c.Baseline = sides("coded")
	return comparison(t, c)
}

// TestDeadlineOfTheCaller is one that comes before the gate's own.
func TestDeadlineOfTheCaller(t *testing.T) {
	const allowed = 30 * time.Second
	hangs := func(after time.Duration) func(t *testing.T) func(context.Context) error {
		return func(t *testing.T) func(context.Context) error {
			began := time.Now()
			return func(ctx context.Context) error {
				if time.Since(began) < after {
					return nil
				}
				<-ctx.Done()
				return context.Cause(ctx)
			}
		}
	}
	for name, test := range map[string]struct {
		spoil func(t *testing.T) func(context.Context) error
		watch metric.Watch
		rules []string
	}{
		"it says how much is missing":       {rules: []string{"failure-rate-undecided", "out-of-time"}},
		"and passes nothing":                {watch: metric.Watch{AllowUndecided: true}, rules: []string{"failure-rate-undecided", "out-of-time"}},
		"the last query hangs":              {spoil: hangs(20 * time.Second), watch: metric.Watch{AllowUndecided: true}, rules: []string{"failure-rate-undecided", "out-of-time"}},
		"every query hangs":                 {spoil: hangs(0), watch: metric.Watch{QueryTimeout: time.Hour}, rules: []string{"query-timeout", "out-of-time"}},
		"the last query hangs at the limit": {spoil: hangs(27 * time.Second), watch: metric.Watch{Timeout: 27 * time.Second, AllowUndecided: true}, rules: []string{"failure-rate-undecided"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var spoil func(context.Context) error
				if test.spoil != nil {
					spoil = test.spoil(t)
				}
				gate := undecided(t, test.watch, spoil)
				both, err := metric.All("all", gate)
				require.NoError(t, err)
				for _, gate := range []stages.Gate[stages.Release]{gate, both, gate.Series(1)} {
					ctx, cancel := context.WithTimeout(t.Context(), allowed)
					began := time.Now()
					d, err := gate.Decide(ctx, release())
					require.NoError(t, err)
					require.NoError(t, ctx.Err(), "it must end by itself")
					assert.Greater(t, time.Since(began), allowed-10*time.Second)
					assert.Equal(t, stages.Inconclusive, d.Verdict)
					assert.Equal(t, test.rules, rules(d.Reasons))
					if test.rules[0] == "failure-rate-undecided" {
						assert.Contains(t, d.Reasons[0].Message, "more canary requests are needed")
					}
					cancel()
					if test.spoil != nil {
						break // its time is reckoned from the first decision
					}
				}
			})
		})
	}
}

// TestDeafSourceKeepsTheReasons has the caller's time end in a look.
func TestDeafSourceKeepsTheReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		gate := undecided(t, metric.Watch{}, func(context.Context) error {
			if time.Since(began) > 20*time.Second {
				time.Sleep(time.Minute)
			}
			return nil
		})
		both, err := metric.All("all", gate)
		require.NoError(t, err)
		why := errors.New("no answer in time")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, why)
		defer cancel()
		d, err := both.Decide(ctx, release())
		require.ErrorIs(t, err, why)
		assert.Equal(t, stages.Inconclusive, d.Verdict)
		require.Equal(t, []string{"failure-rate-undecided"}, rules(d.Reasons))
	})
}
