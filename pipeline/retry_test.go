package pipeline_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// attemptsAt runs a pipeline whose scan does as script says, and returns when,
// after its first attempt, each attempt began.
func attemptsAt(t *testing.T, policy pipeline.Retry, script func(ctx context.Context, attempt int) error) (at []time.Duration, rec *recorder, res *pipeline.Result, err error) {
	f, rec := newFake(t), &recorder{}
	var first time.Time
	f.on["scan"] = func(ctx context.Context, attempt int) error {
		if attempt == 1 {
			first = time.Now()
		}
		at = append(at, time.Since(first))
		return script(ctx, attempt)
	}
	c := config(f, rec)
	c.Retries.Scan = policy
	res, err = newPipeline(t, c).Run(t.Context(), source)
	return at, rec, res, err
}

func TestRetry(t *testing.T) {
	const s = time.Second
	transient, permanent := errors.New("connection reset"), stages.Permanent(errors.New("unauthorized"))
	always := func(err error) func(context.Context, int) error {
		return func(context.Context, int) error { return err }
	}
	for _, tc := range []struct {
		name      string
		policy    pipeline.Retry
		script    func(context.Context, int) error
		at        []time.Duration
		exhausted bool
		ok        bool
	}{
		{"zero value tries once", pipeline.Retry{}, always(transient), []time.Duration{0}, false, false},
		{"defaults double from a second", pipeline.Retry{Attempts: 5}, always(transient), []time.Duration{0, 1 * s, 3 * s, 7 * s, 15 * s}, true, false},
		{"limit", pipeline.Retry{Attempts: 4, Initial: 2 * s, Max: 3 * s}, always(transient), []time.Duration{0, 2 * s, 5 * s, 8 * s}, true, false},
		{"multiplier", pipeline.Retry{Attempts: 4, Initial: s, Multiplier: 3}, always(transient), []time.Duration{0, 1 * s, 4 * s, 13 * s}, true, false},
		{"constant", pipeline.Retry{Attempts: 3, Initial: 4 * s, Multiplier: 1}, always(transient), []time.Duration{0, 4 * s, 8 * s}, true, false},
		{"elapsed limit", pipeline.Retry{Attempts: 9, Elapsed: 7 * s}, always(transient), []time.Duration{0, 1 * s, 3 * s, 7 * s}, true, false},
		{"permanent", pipeline.Retry{Attempts: 5}, always(permanent), []time.Duration{0}, false, false},
		{"panic", pipeline.Retry{Attempts: 5, Retryable: func(error) bool { return true }}, func(context.Context, int) error { panic("x") }, []time.Duration{0}, false, false},
		{"classifier", pipeline.Retry{Attempts: 2, Retryable: func(err error) bool { return errors.Is(err, permanent) }}, always(permanent), []time.Duration{0, 1 * s}, true, false},
		{"classifier that panics", pipeline.Retry{Attempts: 2, Retryable: func(error) bool { panic("x") }}, always(transient), []time.Duration{0}, false, false},
		{"recovers", pipeline.Retry{Attempts: 5}, func(_ context.Context, n int) error {
			if n < 3 {
				return transient
			}
			return nil
		}, []time.Duration{0, 1 * s, 3 * s}, false, true},
		{"attempt timeout", pipeline.Retry{Attempts: 2, Timeout: 10 * s}, func(ctx context.Context, n int) error {
			if n == 2 {
				return nil
			}
			<-ctx.Done()
			return errors.New("stage says something else")
		}, []time.Duration{0, 11 * s}, false, true},
		{"every attempt times out", pipeline.Retry{Attempts: 2, Timeout: 10 * s}, func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}, []time.Duration{0, 11 * s}, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at, rec, res, err := attemptsAt(t, tc.policy, tc.script)
				assert.Equal(t, tc.at, at)
				assert.Equal(t, tc.ok, err == nil, "%v", err)
				assert.Equal(t, tc.exhausted, errors.Is(err, stages.ErrRetryExhausted), "%v", err)
				assert.Len(t, rec.of(pipeline.KindRetrying), len(at)-1)
				for _, timing := range res.Timings {
					if timing.Stage == pipeline.StageScan {
						assert.Equal(t, len(at), timing.Attempts)
					}
				}
			})
		})
	}
}

func TestTimeoutIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, _, err := attemptsAt(t, pipeline.Retry{Timeout: 10 * time.Second}, func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, context.Canceled)
		assert.ErrorContains(t, err, ": timed out after 10s; nothing was deployed")
	})
}

func TestJitterStaysInBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		varied := map[time.Duration]bool{}
		for range 50 {
			at, _, _, _ := attemptsAt(t, pipeline.Retry{Attempts: 2, Initial: 10 * time.Second, Jitter: 0.2}, func(context.Context, int) error { return errors.New("no") })
			require.Len(t, at, 2)
			assert.InDelta(t, 10, at[1].Seconds(), 2)
			varied[at[1]] = true
		}
		assert.Greater(t, len(varied), 10)
	})
}

func TestInconclusiveGateIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, rec := newFake(t), &recorder{}
		f.on["release-gate"] = func(_ context.Context, attempt int) error {
			switch attempt {
			case 1:
				return verdict(stages.Inconclusive)
			case 2:
				return errors.New("metrics server away")
			default:
				return nil
			}
		}
		c := config(f, rec)
		c.Retries.ReleaseGate = pipeline.Retry{Attempts: 3}
		res, err := newPipeline(t, c).Run(t.Context(), source)
		require.NoError(t, err)
		assert.Len(t, res.Decisions, 3, "the last of each gate")
		assert.Len(t, rec.of(pipeline.KindDecided), 5)
	})
}

func TestRefusalIsNotAskedAgain(t *testing.T) {
	f := newFake(t)
	f.fail("scan-gate", verdict(stages.Fail))
	c := config(f)
	c.Retries.ScanGate = pipeline.Backoff(5)
	_, err := newPipeline(t, c).Run(t.Context(), source)
	require.ErrorIs(t, err, stages.ErrGateRefused)
	require.NotErrorIs(t, err, stages.ErrRetryExhausted)
	assert.ErrorContains(t, err, "gate refused: scan-gate: r1: because; nothing was deployed; mend what the gate names and run again")
}

// The checkpoint is the state before the first attempt, never between two.
func TestRetriedDeployIsCheckpointedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("deploy", errors.New("conflict"))
		c := config(f)
		c.Deployer = idempotent{f}
		c.Retries.Deploy = pipeline.Backoff(3)
		_, err := newPipeline(t, c).Run(t.Context(), source)
		require.ErrorIs(t, err, stages.ErrRetryExhausted)
		require.ErrorIs(t, err, stages.ErrRolledBack)
		assert.Equal(t, 1, f.counts["checkpoint"])
		assert.Equal(t, 3, f.counts["deploy"])
		assert.Equal(t, 1, f.counts["restore"])
		assert.Equal(t, "before", f.state())
	})
}
