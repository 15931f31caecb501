package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// telling is a deployer that tells what a restore has brought back.
type telling struct {
	*fake
	release *stages.Release
	outcome stages.RestoreOutcome
}

func (d telling) Restore(ctx context.Context, run string, cp stages.Checkpoint) (stages.Restoration, error) {
	restored, err := d.fake.Restore(ctx, run, cp)
	restored.Release, restored.Outcome = d.release, d.outcome
	return restored, err
}

// readiness verifies what was restored as "verify-restored" says.
type readiness struct {
	*fake
	seen *[]stages.Release
}

func (v readiness) VerifyRestored(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	*v.seen = append(*v.seen, rel)
	if err := v.call(ctx, "verify-restored"); err != nil {
		return stages.Verification{}, err
	}
	return stages.Verification{Image: rel.Image, Checks: []stages.Check{{Name: "runs"}}}, nil
}

// verifierOnly hides that the fake can restore, too.
type verifierOnly struct {
	stages.Verifier
	stages.RestoreVerifier
}

func newReadiness(f *fake) (v stages.Verifier, seen *[]stages.Release) {
	r := readiness{f, new([]stages.Release)}
	return verifierOnly{stages.VerifierFunc(f.Verify), r}, r.seen
}

// theReleaseBefore is what a restore brings back.
func theReleaseBefore(t *testing.T) *stages.Release {
	return &stages.Release{Image: image(t, "b"), Namespace: "shop", Name: "shop", Revision: 3}
}

// sick is why a restored release doesn't run.
type sick struct{}

func (sick) Error() string { return "its image is gone" }
func (sick) Evidence() []stages.Evidence {
	return []stages.Evidence{{Subject: "Pod shop/shop-1", Reason: "ErrImagePull", Remedy: "push the image again"}}
}

func TestRestoredReleaseIsVerified(t *testing.T) {
	f, rec := newFake(t), &recorder{}
	f.fail("release-gate", verdict(stages.Fail))
	c := config(f, rec)
	c.Deployer = telling{f, theReleaseBefore(t), stages.Restored}
	v, seen := newReadiness(f)
	c.Verifiers = []stages.Verifier{stages.VerifierFunc(f.Verify), v}
	res, err := newPipeline(t, c).Run(t.Context(), source)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	require.NotErrorIs(t, err, stages.ErrNotReady)
	assert.Equal(t, pipeline.OutcomeRolledBack, res.Outcome)
	assert.Equal(t, []stages.Release{*theReleaseBefore(t)}, *seen)
	restored := res.Restorations[0]
	assert.Equal(t, "now before; it runs", restored.Message)
	assert.Equal(t, image(t, "b"), restored.Verifications[0].Image)
	require.NoError(t, restored.NotReady)
	last := res.Timings[len(res.Timings)-1]
	assert.Equal(t, pipeline.Stage("verify-restored-2"), last.Stage, "named by its place among the verifiers")
	assert.Equal(t, pipeline.KindStageDone, last.Status)
	calls := f.Calls()
	assert.Equal(t, []string{"restore", "verify-restored"}, calls[len(calls)-2:], "smoke tests and gates are not asked again")
}

func TestRestoredReleaseIsNotReady(t *testing.T) {
	f, rec := newFake(t), &recorder{}
	f.fail("verify", errors.New("it crashes"))
	f.fail("verify-restored", sick{})
	c := config(f, rec)
	c.Deployer = telling{f, theReleaseBefore(t), stages.Restored}
	v, _ := newReadiness(f)
	other, unasked := newReadiness(f)
	c.Verifiers = []stages.Verifier{v, other}
	p := newPipeline(t, c)
	res, err := p.Run(t.Context(), source)

	assert.Equal(t, pipeline.OutcomeNotReady, res.Outcome)
	for _, class := range []error{stages.ErrNotReady, stages.ErrRollbackFailed, sick{}} {
		require.ErrorIs(t, err, class)
	}
	require.NotErrorIs(t, err, stages.ErrRolledBack)
	require.NotErrorIs(t, err, stages.ErrIndeterminate)
	assert.Empty(t, *unasked)
	var failed *pipeline.Error
	require.ErrorAs(t, err, &failed)
	assert.Equal(t, pipeline.StageVerify, failed.Stage, "the first failure is what the run failed by")
	require.EqualError(t, failed.Cause, "it crashes")
	require.ErrorContains(t, err, "verify shop/shop: it crashes; restored but not ready: release shop/shop restored "+
		"(now before; not seen to run: its image is gone); bring the restored release up first: push the image again")
	assert.Contains(t, failed.Detail(), "      evidence: Pod shop/shop-1: ErrImagePull\n")
	assert.Equal(t, "before", f.state())

	text, err := json.Marshal(res)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"outcome":"restored-not-ready"`)
	assert.Contains(t, string(text), "not seen to run: its image is gone")
	assert.Contains(t, string(text), "push the image again")
	failures := rec.of(pipeline.KindStageFailed)
	assert.Equal(t, pipeline.StageVerifyRestored, failures[len(failures)-1].Stage)
	assert.Equal(t, sick{}.Evidence(), failures[len(failures)-1].Evidence)
	ends := rec.of(pipeline.KindRunFailed)
	require.Len(t, ends, 1)
	assert.Equal(t, pipeline.OutcomeNotReady, ends[0].Outcome)

	clear(f.on)
	_, err = p.Run(t.Context(), source)
	require.NoError(t, err, "its outcome is known, so the run is over")
}

// Nobody waits where nothing was brought back, or nobody can look.
func TestNothingRestoredIsNotVerified(t *testing.T) {
	for name, tc := range map[string]struct {
		release bool
		outcome stages.RestoreOutcome
		wrapped bool
		want    pipeline.Outcome
	}{
		"nothing brought back":       {false, stages.Restored, false, pipeline.OutcomeRolledBack},
		"nothing changed":            {false, stages.Unchanged, false, pipeline.OutcomeRolledBack},
		"differences":                {true, stages.Diverged, false, pipeline.OutcomeRollbackFailed},
		"unknown":                    {true, "", false, pipeline.OutcomeUnknown},
		"a verifier that is wrapped": {true, stages.Restored, true, pipeline.OutcomeRolledBack},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.fail("verify", errors.New("it crashes"))
			f.fail("verify-restored", sick{})
			c := config(f)
			d := telling{f, nil, tc.outcome}
			if tc.release {
				d.release = theReleaseBefore(t)
			}
			c.Deployer = d
			v, seen := newReadiness(f)
			if c.Verifiers = []stages.Verifier{v}; tc.wrapped {
				c.Verifiers[0] = stages.VerifierFunc(v.Verify)
			}
			res, err := newPipeline(t, c).Run(t.Context(), source)
			require.Error(t, err)
			assert.Equal(t, tc.want, res.Outcome)
			assert.Empty(t, *seen)
		})
	}
}

func TestNoProofIsNotReady(t *testing.T) {
	other := image(t, "c")
	for name, tc := range map[string]struct {
		verify stages.VerifierFunc
		class  error
	}{
		"panic": {func(context.Context, stages.Release) (stages.Verification, error) { panic("boom") }, stages.ErrPanicked},
		"nothing checked": {func(_ context.Context, rel stages.Release) (stages.Verification, error) {
			return stages.Verification{Image: rel.Image}, nil
		}, stages.ErrInconclusive},
		"another image": {func(context.Context, stages.Release) (stages.Verification, error) {
			return stages.Verification{Image: other, Checks: []stages.Check{{Name: "runs"}}}, nil
		}, stages.ErrSubjectMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.fail("verify", errors.New("it crashes"))
			c := config(f)
			c.Deployer = telling{f, theReleaseBefore(t), stages.Restored}
			c.Verifiers = []stages.Verifier{verifierOnly{stages.VerifierFunc(f.Verify), restoreFunc(tc.verify)}}
			_, err := newPipeline(t, c).Run(t.Context(), source)
			require.ErrorIs(t, err, stages.ErrNotReady)
			require.ErrorIs(t, err, tc.class)
		})
	}
}

type restoreFunc stages.VerifierFunc

func (f restoreFunc) VerifyRestored(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	return f(ctx, rel)
}

// The restore and the wait for what it has restored share one budget.
func TestVerifyingTheRestoredIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.fail("verify", errors.New("it crashes"))
		f.on["restore"] = lasting(20 * time.Second)
		f.on["verify-restored"] = func(ctx context.Context, _ int) error { <-ctx.Done(); return context.Cause(ctx) }
		c := config(f)
		c.RollbackTimeout = time.Minute
		c.Deployer = telling{f, theReleaseBefore(t), stages.Restored}
		v, _ := newReadiness(f)
		c.Verifiers = []stages.Verifier{v}
		ctx, cancel := context.WithCancel(t.Context())
		f.on["verify"] = func(context.Context, int) error { cancel(); return context.Canceled }
		began := time.Now()
		res, err := newPipeline(t, c).Run(ctx, source)
		assert.Equal(t, time.Minute, time.Since(began), "cancelling the run doesn't cut it short, and it ends in time")
		require.ErrorIs(t, err, stages.ErrNotReady)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "not seen to run: timed out after 40s")
		assert.Equal(t, pipeline.OutcomeNotReady, res.Outcome)
	})
}

// A recovery verifies what it restores, and what another one has restored before it
// was killed or cancelled.
func TestRecoverVerifiesTheRestored(t *testing.T) {
	release, err := json.Marshal(theReleaseBefore(t))
	require.NoError(t, err)
	restored := entry("restored", "deploy", `,"restoration":{"subject":"release shop/shop","outcome":"restored","message":"m","release":`+string(release)+`}`)
	for name, journal := range map[string]string{
		"deployed": started + checkpointed + entry("done", "deploy", ""),
		"restored": started + checkpointed + restored,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c := config(f)
			c.Deployer = telling{f, theReleaseBefore(t), stages.Restored}
			v, seen := newReadiness(f)
			c.Verifiers = []stages.Verifier{v}
			c.Journal, _ = journalOf(t, journal)
			p := newPipeline(t, c)

			ctx, cancel := context.WithCancel(t.Context())
			f.on["verify-restored"] = func(ctx context.Context, _ int) error { cancel(); return context.Cause(ctx) }
			_, err := p.Recover(ctx)
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, stages.ErrNotReady)
			_, err = p.Run(t.Context(), source)
			require.ErrorIs(t, err, pipeline.ErrUnfinished, "whether it runs has still to be seen")

			f.fail("verify-restored", sick{})
			recovered, err := p.Recover(t.Context())
			require.ErrorIs(t, err, stages.ErrNotReady)
			require.ErrorIs(t, err, sick{})
			require.ErrorContains(t, err, "its image is gone); bring the restored release up first: push the image again")
			assert.Equal(t, pipeline.OutcomeNotReady, recovered[0].Outcome)
			assert.Equal(t, []stages.Release{*theReleaseBefore(t), *theReleaseBefore(t)}, *seen)

			recovered, err = p.Recover(t.Context())
			require.NoError(t, err)
			assert.Empty(t, recovered)
		})
	}
}
