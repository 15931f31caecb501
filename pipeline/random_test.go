package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

var (
	seedFlag = flag.Uint64("seed", 0, "run TestRandomRuns with this seed only")
	runsFlag = flag.Int("runs", 2000, "how many runs TestRandomRuns makes")
)

// TestRandomRuns lets stages, gates, restores, the journal and the caller behave
// in random ways, and checks what must hold whatever they do.
func TestRandomRuns(t *testing.T) {
	first, n := rand.Uint64(), *runsFlag
	if *seedFlag != 0 {
		first, n = *seedFlag, 1
	}
	seen := map[pipeline.Outcome]int{}
	for i := range n {
		seed := first + uint64(i)
		ok := t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				defer func() {
					if t.Failed() {
						t.Logf("repeat with: go test ./pipeline -run TestRandomRuns -seed %d", seed)
					}
				}()
				seen[randomRun(t, rand.New(rand.NewPCG(seed, 0)))]++
			})
		})
		if !ok {
			return
		}
	}
	t.Logf("seeds from %d: %v", first, seen)
	if n >= 1000 {
		for _, o := range []pipeline.Outcome{pipeline.OutcomeReleased, pipeline.OutcomeUntouched, pipeline.OutcomeRolledBack,
			pipeline.OutcomeRollbackFailed, pipeline.OutcomeLeft, pipeline.OutcomeUnknown} {
			assert.Positive(t, seen[o], o)
		}
	}
}

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
	return stages.Restoration{Outcome: u.outcome}, nil
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

func randomRun(t *testing.T, rng *rand.Rand) pipeline.Outcome {
	f, rec := newFake(t), &recorder{}
	tr := &tracker{fake: f, t: t, journal: pipeline.NewMemoryJournal()}
	journal := &flaky{MemoryJournal: tr.journal, left: -1}
	if rng.IntN(6) == 0 {
		journal.left, journal.broken = 1+rng.IntN(9), rng.IntN(2) == 0
	}
	outcomes := []stages.RestoreOutcome{stages.Restored, stages.Restored, stages.Restored, stages.Unchanged, stages.Diverged, stages.Impossible, ""}
	undoes := map[string]undo{}
	for _, name := range []string{"build", "sign", "deploy", "verify"} {
		undoes[name] = undo{name, tr, stages.Restored}
		if rng.IntN(4) == 0 {
			undoes[name] = undo{name, tr, outcomes[rng.IntN(len(outcomes))]}
		}
	}
	gateNames := []string{"scan-gate", "scan-gate-2", "plan-gate", "release-gate"}
	for _, call := range append([]string{"build", "scan", "plan", "sign", "verify-signature", "deploy", "verify",
		"checkpoint build", "checkpoint sign", "checkpoint deploy", "checkpoint verify",
		"restore build", "restore sign", "restore deploy", "restore verify"}, gateNames...) {
		if rng.IntN(12) == 0 {
			f.on[call] = behaviour(rng, call)
		}
	}

	need := []string{"scan", "scan-gate", "scan-gate-2", "sign", "verify-signature"}
	c := pipeline.Config{
		Name: "shop", Journal: journal, Observers: []pipeline.Observer{rec}, RollbackTimeout: time.Hour,
		Scanner: stages.ScannerFunc(func(ctx context.Context, img stages.Image) (stages.Report, error) {
			return stages.Report{Image: img}, tr.succeeded(ctx, "scan")
		}),
		SignatureVerifier: stages.SignatureVerifierFunc(func(ctx context.Context, img stages.Image) (stages.Signature, error) {
			return stages.Signature{Image: img}, tr.succeeded(ctx, "verify-signature")
		}),
		ScanGates:    []stages.Gate[stages.Report]{trackedGate[stages.Report](tr, "scan-gate"), trackedGate[stages.Report](tr, "scan-gate-2")},
		ReleaseGates: []stages.Gate[stages.Release]{trackedGate[stages.Release](tr, "release-gate")},
		Builder:      trackedBuilder{tr}, Signer: trackedSigner{tr},
		Retries: pipeline.Retries{Build: randomPolicy(rng, 3), Scan: randomPolicy(rng, 3), ScanGate: randomPolicy(rng, 2),
			Plan: randomPolicy(rng, 3), Sign: randomPolicy(rng, 3), VerifySignature: randomPolicy(rng, 2), Deploy: randomPolicy(rng, 3),
			Verify: randomPolicy(rng, 1)},
	}
	if rng.IntN(2) == 0 {
		c.Builder = struct {
			trackedBuilder
			undo
		}{trackedBuilder{tr}, undoes["build"]}
	}
	if rng.IntN(2) == 0 {
		c.Signer = struct {
			trackedSigner
			undo
		}{trackedSigner{tr}, undoes["sign"]}
	}
	c.Verifiers = []stages.Verifier{stages.VerifierFunc(f.Verify)}
	if rng.IntN(2) == 0 {
		c.Verifiers[0] = struct {
			stages.Verifier
			undo
		}{c.Verifiers[0], undoes["verify"]}
	}
	compensates := rng.IntN(4) > 0
	switch plans := rng.IntN(2) == 0; {
	case plans && compensates:
		need = append(need, "plan", "plan-gate")
		c.Deployer = struct {
			trackedPlanner
			undo
		}{trackedPlanner{trackedDeployer{tr, need}}, undoes["deploy"]}
		c.PlanGates = []stages.Gate[stages.Plan]{trackedGate[stages.Plan](tr, "plan-gate")}
	case compensates:
		c.Deployer = struct {
			trackedDeployer
			undo
		}{trackedDeployer{tr, need}, undoes["deploy"]}
	default:
		c.Deployer = trackedDeployer{tr, need}
	}
	if rng.IntN(4) == 0 {
		c.Observers = append(c.Observers, pipeline.ObserverFunc(func(pipeline.Event) { panic("observer") }))
	}

	// Something always ends a stage that hangs.
	ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Hour, errors.New("end of shift"))
	defer cancel()
	if rng.IntN(3) == 0 {
		timer := time.AfterFunc(time.Duration(rng.IntN(400))*time.Second, cancel)
		defer timer.Stop()
	}

	p := newPipeline(t, c)
	res, err := p.Run(ctx, source)
	synctest.Wait()
	stacks := make([]byte, 1<<18)
	stacks = stacks[:runtime.Stack(stacks, true)]
	require.NotContains(t, string(stacks), "created by github.com/fairlead-dev/fairlead/pipeline.", "a goroutine outlives Run")
	require.Zero(t, f.running)

	checkRun(t, tr, rec.all(), res, err, compensates)
	outcome := res.Outcome
	checkRecovery(t, tr, p, journal, undoes, outcome, compensates)
	return outcome
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

// checkpoints returns the stages with a journalled checkpoint, latest first.
func checkpoints(t *testing.T, tr *tracker) (names []string) {
	entries, err := tr.journal.Entries()
	require.NoError(t, err)
	for _, e := range slices.Backward(entries) {
		if e.Kind == pipeline.EntryCheckpointed {
			names = append(names, string(e.Stage))
		}
	}
	return names
}

func checkRun(t *testing.T, tr *tracker, events []pipeline.Event, res *pipeline.Result, err error, compensates bool) {
	// Exactly one beginning and one end, and an end for every stage.
	last := events[len(events)-1]
	require.Equal(t, pipeline.KindRunStarted, events[0].Kind)
	open := map[pipeline.Stage]int{}
	var failures []pipeline.Event
	for i, e := range events {
		require.EqualValues(t, i+1, e.Seq)
		switch e.Kind {
		case pipeline.KindStageStarted:
			open[e.Stage]++
		case pipeline.KindStageFailed:
			failures = append(failures, e)
			open[e.Stage]--
		case pipeline.KindStageDone, pipeline.KindStageCancelled:
			open[e.Stage]--
		}
	}
	for stage, n := range open {
		require.Zero(t, n, stage)
	}

	if err == nil {
		require.Equal(t, pipeline.KindRunSucceeded, last.Kind)
		require.Equal(t, pipeline.OutcomeReleased, res.Outcome)
		require.Empty(t, tr.restored)
		require.Equal(t, tr.img.Digest().Short(), tr.state())
		return
	}
	require.Equal(t, pipeline.KindRunFailed, last.Kind)
	require.NotEqual(t, pipeline.OutcomeReleased, res.Outcome)

	// Whatever was checkpointed is restored exactly once, in reverse.
	require.Equal(t, checkpoints(t, tr), tr.restored)
	require.Len(t, res.Restorations, len(tr.restored))

	// The error names the first cause.
	var failed *pipeline.Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, res.Outcome, failed.Outcome)
	if len(failures) > 0 {
		first := slices.ContainsFunc(failures, func(e pipeline.Event) bool {
			return e.Stage == failed.Stage && e.Time.Equal(failures[0].Time)
		})
		require.True(t, first, "%s isn't the first failure", failed.Stage)
	}
	var cause *injected
	if errors.As(failed.Cause, &cause) {
		require.Contains(t, []string{string(failed.Stage), "checkpoint " + string(failed.Stage)}, cause.call)
	}

	// The classes say what became of the cluster.
	bad := slices.ContainsFunc(res.Restorations, func(r pipeline.Restoration) bool {
		return r.Err != nil || r.Outcome == stages.Diverged || r.Outcome == stages.Impossible
	})
	require.Equal(t, bad, errors.Is(err, stages.ErrRollbackFailed))
	require.Equal(t, res.Outcome == pipeline.OutcomeRolledBack, errors.Is(err, stages.ErrRolledBack))
	require.Equal(t, res.Outcome == pipeline.OutcomeUnknown, errors.Is(err, stages.ErrIndeterminate))
	if res.Outcome == pipeline.OutcomeUntouched {
		require.Equal(t, "before", tr.state())
	}
	if tr.counts["deploy"] == 0 {
		require.Equal(t, "before", tr.state())
	}
	require.NotEmpty(t, failed.Detail())
}

// checkRecovery mends everything and recovers: afterwards there is nothing left
// to do, and a deployment that failed is gone if anything could take it back.
func checkRecovery(t *testing.T, tr *tracker, p *pipeline.Pipeline, journal *flaky, undoes map[string]undo, outcome pipeline.Outcome, compensates bool) {
	journal.left = -1
	journal.broken = false
	clear(tr.on)
	tr.restored = nil
	recovered, err := p.Recover(t.Context())
	if outcome == pipeline.OutcomeReleased {
		require.NoError(t, err)
		require.Empty(t, recovered)
		require.Empty(t, tr.restored)
		return
	}
	if compensates && undoes["deploy"].outcome == stages.Restored {
		require.Equal(t, "before", tr.state())
	}
	if !slices.ContainsFunc(recovered, func(r pipeline.Recovery) bool {
		return slices.ContainsFunc(r.Restorations, func(r pipeline.Restoration) bool { return r.Err != nil })
	}) {
		again, err := p.Recover(t.Context())
		require.NoError(t, err)
		require.Empty(t, again)
	}
}
