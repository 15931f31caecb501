package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// crash is an error with evidence.
type crash struct{}

func (crash) Error() string { return "pod shop-1 can't start" }
func (crash) Evidence() []stages.Evidence {
	code := int32(137)
	return []stages.Evidence{{Subject: "pod shop/shop-1", Container: "app", Owners: []string{"ReplicaSet shop/shop"}, Reason: "CrashLoopBackOff",
		Message: "back-off 10s", ExitCode: &code, Logs: []string{"panic: no database"}, Events: []string{"Killing"}, Remedy: "set DATABASE_URL",
		Field: "spec.template.spec.containers[name=app].env", Command: "kubectl logs shop-1"}}
}

func TestEventsTellTheWholeStory(t *testing.T) {
	f, rec := newFake(t), &recorder{}
	f.on["verify"] = func(ctx context.Context, _ int) error {
		stages.ReportProgress(ctx, stages.Progress{ID: "pod-1", Message: "1 of 2 ready"})
		return fmt.Errorf("verify: %w", crash{})
	}
	_, err := newPipeline(t, config(f, rec)).Run(t.Context(), source)
	require.ErrorAs(t, err, &crash{})

	var after []string
	for _, e := range rec.all() {
		if len(after) > 0 || e.Stage == pipeline.StageDeploy {
			after = append(after, fmt.Sprint(e.Kind, " ", e.Stage))
		}
	}
	assert.Equal(t, []string{"stage-started deploy", "checkpointed deploy", "stage-done deploy", "stage-started verify", "progress verify",
		"stage-failed verify", "restoring deploy", "restored deploy", "run-failed verify"}, after)
	progress := rec.of(pipeline.KindProgress)[0]
	assert.Equal(t, "pod-1", progress.ID)
	assert.Equal(t, "1 of 2 ready", progress.Message)
	assert.Equal(t, 1, progress.Attempt)
	assert.Equal(t, crash{}.Evidence(), rec.of(pipeline.KindStageFailed)[0].Evidence)
	assert.Equal(t, crash{}.Evidence(), rec.of(pipeline.KindRunFailed)[0].Evidence)
	assert.Equal(t, stages.Restored, rec.of(pipeline.KindRestored)[0].Restoration.Outcome)

	for _, e := range rec.all() {
		data, err := json.Marshal(e)
		require.NoError(t, err)
		var back pipeline.Event
		require.NoError(t, json.Unmarshal(data, &back))
		again, err := json.Marshal(back)
		require.NoError(t, err)
		assert.JSONEq(t, string(data), string(again))
	}

	assert.Equal(t, `pipeline shop: verify shop/shop: verify: pod shop-1 can't start; rolled back: release shop/shop restored (now before); set DATABASE_URL`, err.Error())
	detail := fmt.Sprintf("%+v", err)
	for _, want := range []string{"pod shop/shop-1, container app: CrashLoopBackOff (exit code 137): back-off 10s", "of ReplicaSet shop/shop",
		"log: panic: no database", "event: Killing", "remedy: set DATABASE_URL",
		"field: spec.template.spec.containers[name=app].env", "look closer: kubectl logs shop-1", "next: set DATABASE_URL"} {
		assert.Contains(t, detail, want)
	}
	assert.Equal(t, fmt.Sprintf("%q", err.Error()), fmt.Sprintf("%q", err))
}

// hostile carries evidence that can't be had.
type hostile struct{ error }

func (hostile) Evidence() []stages.Evidence { panic("no evidence") }

func TestHostileEvidence(t *testing.T) {
	f := newFake(t)
	f.fail("verify", hostile{errors.New("crash loop")})
	_, err := newPipeline(t, config(f)).Run(t.Context(), source)
	require.ErrorContains(t, err, "crash loop")
	require.ErrorIs(t, err, stages.ErrRolledBack)
}

func TestObserversCannotCrashARun(t *testing.T) {
	var calls atomic.Int64
	rec := &recorder{}
	crashing := pipeline.ObserverFunc(func(pipeline.Event) { calls.Add(1); panic("observer") })
	leaving := pipeline.ObserverFunc(func(pipeline.Event) { runtime.Goexit() })
	res, err := newPipeline(t, config(newFake(t), crashing, leaving, rec)).Run(t.Context(), source)
	require.NoError(t, err)
	assert.EqualValues(t, calls.Load(), res.ObserverPanics)
	assert.Len(t, rec.all(), res.ObserverPanics)
	assert.Equal(t, len(rec.all())-1, res.DroppedEvents, "all but the first for the one that left")
}

func TestObserversCannotStallARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, rec := newFake(t), &recorder{}
		release := make(chan struct{})
		blocked := pipeline.ObserverFunc(func(pipeline.Event) { <-release })
		f.on["scan"] = lasting(time.Minute)
		start := time.Now()
		res, err := newPipeline(t, config(f, blocked, rec)).Run(t.Context(), source)
		require.NoError(t, err)
		assert.Equal(t, time.Minute+pipeline.DefaultDrainTimeout, time.Since(start))
		assert.Equal(t, pipeline.KindRunSucceeded, rec.all()[len(rec.all())-1].Kind, "others are told everything")
		assert.Equal(t, len(rec.all())-1, res.DroppedEvents)
		close(release) // the one thing that may outlive a run
	})
}

func TestSlowObserverGetsEverythingInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		slow := pipeline.ObserverFunc(func(e pipeline.Event) {
			<-time.After(100 * time.Millisecond)
			rec.Observe(e)
		})
		res, err := newPipeline(t, config(newFake(t), slow)).Run(t.Context(), source)
		require.NoError(t, err)
		assert.Zero(t, res.DroppedEvents)
		assert.Equal(t, pipeline.KindRunSucceeded, rec.all()[len(rec.all())-1].Kind)
	})
}

// Under pressure the oldest progress goes, and nothing else.
func TestOnlyProgressIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const reported, kept = 5000, 1024
		f, rec := newFake(t), &recorder{}
		release := make(chan struct{})
		gated := pipeline.ObserverFunc(func(e pipeline.Event) { <-release; rec.Observe(e) })
		f.on["build"] = func(ctx context.Context, _ int) error {
			for i := range reported {
				stages.ReportProgress(ctx, stages.Progress{Message: fmt.Sprint(i)})
			}
			return nil
		}
		f.on["release-gate"] = func(context.Context, int) error { close(release); return nil }
		witness := &recorder{}
		res, err := newPipeline(t, config(f, gated, witness)).Run(t.Context(), source)
		require.NoError(t, err)

		progress := rec.of(pipeline.KindProgress)
		require.Len(t, progress, kept)
		assert.Equal(t, fmt.Sprint(reported-1), progress[kept-1].Message, "the newest are kept")
		assert.GreaterOrEqual(t, res.DroppedEvents, reported-kept)
		assert.True(t, slices.IsSortedFunc(rec.all(), func(a, b pipeline.Event) int { return int(a.Seq - b.Seq) }))
		for _, kind := range []pipeline.Kind{pipeline.KindRunStarted, pipeline.KindStageStarted, pipeline.KindStageDone, pipeline.KindDecided, pipeline.KindRunSucceeded} {
			assert.Len(t, rec.of(kind), len(witness.of(kind)), kind)
		}
	})
}

// Progress of a stage that returned while something of it goes on is ignored.
func TestLateProgressIsHarmless(t *testing.T) {
	f, rec := newFake(t), &recorder{}
	var late func()
	f.on["build"] = func(ctx context.Context, _ int) error {
		late = func() { stages.ReportProgress(ctx, stages.Progress{Message: "too late"}) }
		return nil
	}
	_, err := newPipeline(t, config(f, rec)).Run(t.Context(), source)
	require.NoError(t, err)
	late()
	assert.Empty(t, rec.of(pipeline.KindProgress))
}
