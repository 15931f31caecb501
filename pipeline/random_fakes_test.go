package pipeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// injected is an error that says which call made it.
type injected struct {
	call    string
	attempt int
}

func (e *injected) Error() string { return fmt.Sprintf("%s, attempt %d", e.call, e.attempt) }

// behaviour returns something that a call may do.
func behaviour(rng *rand.Rand, call string) func(context.Context, int) error {
	delay := time.Duration(1+rng.IntN(120)) * time.Second
	fails := 1 + rng.IntN(3)
	fail := func(attempt int) error { return &injected{call, attempt} }
	switch rng.IntN(14) {
	case 0:
		return func(_ context.Context, n int) error { return fail(n) }
	case 1:
		return func(_ context.Context, n int) error { return stages.Permanent(fail(n)) }
	case 2: // transient
		return func(_ context.Context, n int) error {
			if n <= fails {
				return fail(n)
			}
			return nil
		}
	case 3:
		return func(_ context.Context, n int) error { panic(fail(n)) }
	case 4:
		return func(context.Context, int) error { runtime.Goexit(); return nil }
	case 5: // hang until cancelled, and hide why
		return func(ctx context.Context, n int) error { <-ctx.Done(); return fail(n) }
	case 6: // hang until cancelled
		return func(ctx context.Context, _ int) error { <-ctx.Done(); return context.Cause(ctx) }
	case 7:
		return deaf(delay, nil)
	case 8:
		return func(_ context.Context, n int) error { <-time.After(delay); return fail(n) }
	case 9:
		return func(_ context.Context, n int) error { return verdict(rng.IntN(4)) }
	default:
		return lasting(delay)
	}
}

func randomPolicy(rng *rand.Rand, attempts int) pipeline.Retry {
	p := pipeline.Retry{Attempts: rng.IntN(attempts + 1), Jitter: rng.Float64()}
	if rng.IntN(3) == 0 {
		p.Timeout = time.Duration(1+rng.IntN(200)) * time.Second
	}
	if rng.IntN(3) == 0 {
		p.Elapsed = time.Duration(1+rng.IntN(60)) * time.Second
	}
	return p
}

// undo is a compensator that keeps what happened to its checkpoints.
type undo struct {
	name    string
	tracker *tracker
	outcome stages.RestoreOutcome
}

func (u undo) Checkpoint(ctx context.Context, _ stages.CheckpointRequest) (stages.Checkpoint, error) {
	err := u.tracker.call(ctx, "checkpoint "+u.name)
	return stages.Checkpoint{Subject: u.name, State: json.RawMessage("{}")}, err
}

func (u undo) Restore(ctx context.Context, _ string, cp stages.Checkpoint) (stages.Restoration, error) {
	u.tracker.mu.Lock()
	u.tracker.restored = append(u.tracker.restored, u.name)
	u.tracker.mu.Unlock()
	if err := u.tracker.call(ctx, "restore "+u.name); err != nil {
		return stages.Restoration{}, err
	}
	if u.name == "deploy" && u.outcome == stages.Restored {
		u.tracker.set("before")
	}
	restored := stages.Restoration{Outcome: u.outcome}
	if u.name == "deploy" {
		restored.Release = &stages.Release{Image: u.tracker.img, Namespace: "shop", Name: "shop", Revision: 1}
	}
	return restored, nil
}

// trackedReadiness is a verifier that is asked again after a restore.
type trackedReadiness struct {
	stages.Verifier
	tr *tracker
}

func (v trackedReadiness) VerifyRestored(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	return stages.Verification{Image: rel.Image, Checks: []stages.Check{{Name: "runs"}}}, v.tr.call(ctx, "verify-restored")
}

// tracker is a fake that checks, when a stage is called, what had to come before.
type tracker struct {
	*fake
	t        *testing.T
	journal  *pipeline.MemoryJournal
	passes   []string // calls that must have succeeded before a deploy
	restored []string
}

func (tr *tracker) succeeded(ctx context.Context, name string) error {
	err := tr.call(ctx, name)
	if err == nil {
		tr.mu.Lock()
		tr.passes = append(tr.passes, name)
		tr.mu.Unlock()
	}
	return err
}

// announced requires that the journal knew of the side effect of stage.
func (tr *tracker) announced(stage pipeline.Stage) {
	entries, err := tr.journal.Entries()
	assert.NoError(tr.t, err)
	assert.True(tr.t, slices.ContainsFunc(entries, func(e pipeline.Entry) bool {
		return e.Stage == stage && (e.Kind == pipeline.EntryStarting || e.Kind == pipeline.EntryCheckpointed)
	}), "%s began without a word in the journal", stage)
}

// The stages hold their tracker in a field, so as not to inherit its abilities.
type trackedBuilder struct{ tr *tracker }

func (b trackedBuilder) Build(ctx context.Context, src stages.Source) (stages.Image, error) {
	b.tr.announced(pipeline.StageBuild)
	return b.tr.Build(ctx, src)
}

type trackedSigner struct{ tr *tracker }

func (s trackedSigner) Sign(ctx context.Context, img stages.Image) (stages.Signature, error) {
	s.tr.announced(pipeline.StageSign)
	return stages.Signature{Image: img}, s.tr.succeeded(ctx, "sign")
}

type trackedDeployer struct {
	tr   *tracker
	need []string
}

func (d trackedDeployer) Idempotent() bool { return true }

func (d trackedDeployer) Deploy(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	d.tr.announced(pipeline.StageDeploy)
	assert.Subset(d.tr.t, d.tr.passes, d.need, "deployed without passing")
	return d.tr.Deploy(ctx, req)
}

type trackedPlanner struct{ trackedDeployer }

func (d trackedPlanner) Plan(ctx context.Context, req stages.PlanRequest) (stages.Plan, error) {
	return stages.Plan{Image: req.Image, Release: "shop/shop"}, d.tr.succeeded(ctx, "plan")
}

// flaky is a journal that fails at its nth append, and from then on if broken.
type flaky struct {
	*pipeline.MemoryJournal
	mu     sync.Mutex
	left   int
	broken bool
}

func (j *flaky) Open(ctx context.Context) (pipeline.Log, []pipeline.Entry, error) {
	log, entries, err := j.MemoryJournal.Open(ctx)
	return flakyLog{log, j}, entries, err
}

type flakyLog struct {
	pipeline.Log
	journal *flaky
}

func (l flakyLog) Append(ctx context.Context, e pipeline.Entry) error {
	l.journal.mu.Lock()
	l.journal.left--
	fails := l.journal.left == 0 || l.journal.left < 0 && l.journal.broken
	l.journal.mu.Unlock()
	if fails {
		return errDisk
	}
	return l.Log.Append(ctx, e)
}

func trackedGate[T any](tr *tracker, name string) stages.Gate[T] {
	inner := gate[T](tr.fake, name)
	return stages.GateFunc[T](func(ctx context.Context, subject T) (stages.Decision, error) {
		d, err := inner.Decide(ctx, subject)
		if err == nil && d.Verdict == stages.Pass {
			tr.mu.Lock()
			tr.passes = append(tr.passes, name)
			tr.mu.Unlock()
		}
		return d, err
	})
}
