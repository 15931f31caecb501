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

// lasting makes a call take d, or end at once when cancelled.
func lasting(d time.Duration) func(context.Context, int) error {
	return func(ctx context.Context, _ int) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// deaf makes a call take d whatever happens to its context.
func deaf(d time.Duration, err error) func(context.Context, int) error {
	return func(context.Context, int) error {
		<-time.After(d)
		return err
	}
}

func TestScanAndPlanOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		for _, call := range []string{"scan", "scan-gate", "plan", "plan-gate"} {
			f.on[call] = lasting(time.Minute)
		}
		start := time.Now()
		res, err := newPipeline(t, config(f)).Run(t.Context(), source)
		require.NoError(t, err)
		assert.Equal(t, 2*time.Minute, time.Since(start))
		assert.Equal(t, 2*time.Minute, res.Elapsed)
	})
}

func TestFirstFailureStopsTheSibling(t *testing.T) {
	for _, tc := range []struct{ fails, sibling string }{{"scan-gate", "plan"}, {"plan-gate", "scan"}} {
		t.Run(tc.fails, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, rec := newFake(t), &recorder{}
				f.on[tc.fails] = deaf(time.Second, verdict(stages.Fail))
				stopped := false
				f.on[tc.sibling] = func(ctx context.Context, _ int) error {
					<-ctx.Done()
					<-time.After(3 * time.Second) // takes its time to stop
					stopped = true
					return context.Cause(ctx)
				}
				_, err := newPipeline(t, config(f, rec)).Run(t.Context(), source)
				require.ErrorIs(t, err, stages.ErrGateRefused)
				require.NotErrorIs(t, err, context.Canceled, "nobody cancelled the run")
				assert.True(t, stopped)
				cancelled := rec.of(pipeline.KindStageCancelled)
				require.Len(t, cancelled, 1)
				assert.Equal(t, "cancelled: "+tc.fails+" failed", cancelled[0].Error)
				assert.Equal(t, tc.sibling, string(cancelled[0].Stage))
			})
		})
	}
}

func TestCancelInTheMiddleOfADeploy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, rec := newFake(t), &recorder{}
		why := errors.New("operator pressed stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		f.on["deploy"] = func(ctx context.Context, _ int) error {
			cancel(why)
			<-ctx.Done()
			<-time.After(25 * time.Second) // Helm takes its time
			f.set("still changing")
			return errors.New("some text that hides the cause")
		}
		f.on["restore"] = func(ctx context.Context, _ int) error {
			assert.NoError(t, ctx.Err(), "restore has a context of its own")
			deadline, ok := ctx.Deadline()
			assert.True(t, ok)
			assert.Equal(t, pipeline.DefaultRollbackTimeout, time.Until(deadline))
			return nil
		}
		res, err := newPipeline(t, config(f, rec)).Run(ctx, source)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, why)
		require.ErrorIs(t, err, stages.ErrRolledBack)
		assert.Equal(t, "before", f.state())
		assert.Equal(t, pipeline.OutcomeRolledBack, res.Outcome)

		waiting := rec.of(pipeline.KindWaiting)
		require.Len(t, waiting, 2)
		assert.Equal(t, "deploy has not stopped 20s after it was cancelled", waiting[1].Message)
		events := rec.all()
		assert.Equal(t, pipeline.KindRunFailed, events[len(events)-1].Kind)
		assert.Equal(t, pipeline.OutcomeRolledBack, events[len(events)-1].Outcome)
	})
}

// Wherever the cancel comes, the run stops, says so, and leaves what was before.
func TestCancelAtEachStage(t *testing.T) {
	for _, call := range []string{"build", "scan", "scan-gate", "plan", "plan-gate", "sign", "verify-signature", "checkpoint", "deploy", "verify", "release-gate"} {
		for _, stage := range []struct {
			name string
			end  error
		}{{"obeys", context.Canceled}, {"succeeds all the same", nil}} {
			t.Run(call+" "+stage.name, func(t *testing.T) {
				f, rec := newFake(t), &recorder{}
				ctx, cancel := context.WithCancel(t.Context())
				f.on[call] = func(context.Context, int) error { cancel(); return stage.end }
				_, err := newPipeline(t, config(f, rec)).Run(ctx, source)
				require.ErrorIs(t, err, context.Canceled)
				assert.Equal(t, "before", f.state())
				assert.Len(t, rec.of(pipeline.KindRunFailed), 1)
				assert.Len(t, rec.of(pipeline.KindStageStarted), len(rec.of(pipeline.KindStageDone))+len(rec.of(pipeline.KindStageCancelled)))
			})
		}
	}
}

func TestCancelledBeforeTheStart(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	res, err := newPipeline(t, config(f)).Run(ctx, source)
	require.ErrorIs(t, err, context.Canceled)
	assert.Empty(t, f.Calls())
	assert.Equal(t, pipeline.OutcomeUntouched, res.Outcome)
	assert.EqualError(t, err, "pipeline shop: build src not begun: cancelled; nothing was deployed; mend the cause and run again")
}

func TestCancelWhileWaitingToRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		f, cause := newFake(t), errors.New("registry away")
		f.fail("scan", cause)
		c := config(f)
		c.Retries.Scan = pipeline.Retry{Attempts: 9, Initial: time.Hour, Max: time.Hour}
		start := time.Now()
		_, err := newPipeline(t, c).Run(ctx, source)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, cause)
		assert.Equal(t, 90*time.Second, time.Since(start))
	})
}

func TestRestoreHasATimeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("verify", errors.New("crash loop"))
		f.on["restore"] = lasting(time.Hour)
		c := config(f)
		c.RollbackTimeout = time.Minute
		_, err := newPipeline(t, c).Run(t.Context(), source)
		require.ErrorIs(t, err, stages.ErrIndeterminate)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "restore failed (timed out after 1m0s)")
	})
}

func TestRunWaitsForADeafStage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.on["verify"] = deaf(time.Hour, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err := newPipeline(t, config(f)).Run(ctx, source)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Hour, time.Since(start))
		assert.Zero(t, f.running)
	})
}

func TestCloseWaitsForTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.on["scan"] = lasting(time.Minute)
		p := newPipeline(t, config(f))
		start := time.Now()
		go func() { _, _ = p.Run(t.Context(), source) }()
		synctest.Wait()
		require.NoError(t, p.Close())
		assert.Equal(t, time.Minute, time.Since(start))
	})
}
