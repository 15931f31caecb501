package pipeline_test

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
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
			pipeline.OutcomeNotReady, pipeline.OutcomeRollbackFailed, pipeline.OutcomeLeft, pipeline.OutcomeUnknown} {
			assert.Positive(t, seen[o], o)
		}
	}
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

	if rng.IntN(3) == 0 {
		f.on["verify-restored"] = behaviour(rng, "verify-restored")
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
		c.Verifiers = append(c.Verifiers, trackedReadiness{c.Verifiers[0], tr})
	}
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
	require.NotContains(t, bubbleStacks(), "created by github.com/fairlead-dev/fairlead/pipeline.", "a goroutine outlives Run")
	require.Zero(t, f.running)

	checkRun(t, tr, rec.all(), res, err, compensates)
	outcome := res.Outcome
	checkRecovery(t, tr, p, journal, undoes, outcome, compensates)
	return outcome
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
			if e.Stage != "verify-restored-2" { // which comes after the end
				failures = append(failures, e)
			}
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

	calls := tr.Calls()
	if i := slices.Index(calls, "verify-restored"); i >= 0 {
		require.Equal(t, []string{"verify-restored"}, calls[i:], "everything is restored before anybody waits")
	}

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
		return r.Err != nil || r.NotReady != nil || r.Outcome == stages.Diverged || r.Outcome == stages.Impossible
	})
	require.Equal(t, bad, errors.Is(err, stages.ErrRollbackFailed))
	require.Equal(t, res.Outcome == pipeline.OutcomeRolledBack, errors.Is(err, stages.ErrRolledBack))
	require.Equal(t, res.Outcome == pipeline.OutcomeNotReady, errors.Is(err, stages.ErrNotReady))
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

// bubbleStacks are the stacks of the goroutines in the caller's bubble: those of tests
// before it may not have ended yet.
func bubbleStacks() string {
	stacks := make([]byte, 1<<18)
	all := strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n")
	_, bubble, _ := strings.Cut(all[0], "synctest bubble ")
	bubble, _, _ = strings.Cut(bubble, "]")
	return strings.Join(slices.DeleteFunc(all, func(stack string) bool {
		header, _, _ := strings.Cut(stack, "\n")
		return !strings.Contains(header, "synctest bubble "+bubble+"]")
	}), "\n\n")
}
