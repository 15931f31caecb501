package releaseset_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

var errDown = errors.New("the pod does not start")

func apply(t *testing.T, set *releaseset.Set) (releaseset.Result, error) {
	t.Helper()
	return set.Apply(t.Context(), releaseset.ApplyRequest{Run: "run-2"})
}

func outcomes(r releaseset.Result) map[string]releaseset.Outcome {
	out := map[string]releaseset.Outcome{}
	for _, m := range r.Members {
		out[m.Member] = m.Outcome
	}
	return out
}

func TestApplyFollowsTheNeeds(t *testing.T) {
	c := newCluster()
	web, api, db := c.member(t, "web", "api"), c.member(t, "api", "db"), c.member(t, "db")
	var verified atomic.Bool
	db.Verify = stages.VerifierFunc(func(_ context.Context, rel stages.Release) (stages.Verification, error) {
		c.note("verify db")
		verified.Store(true)
		return stages.Verification{Image: rel.Image}, nil
	})
	c.fakes["api"].onDeploy = func(context.Context) error {
		if !verified.Load() {
			return errors.New("db was not verified yet")
		}
		return nil
	}
	var mu sync.Mutex
	var journal []string
	result, err := newSet(t, 4, web, api, db).Apply(t.Context(), releaseset.ApplyRequest{
		Run: "run-1",
		Checkpointed: func(_ context.Context, cp releaseset.MemberCheckpoint) error {
			mu.Lock()
			defer mu.Unlock()
			journal = append(journal, cp.Member)
			return nil
		},
	})
	require.NoError(t, err)
	assert.Equal(t, []string{"ns/db", "ns/api", "ns/web"}, c.did("deploy"))
	assert.Equal(t, []string{"ns/db", "ns/api", "ns/web"}, journal)
	for _, m := range result.Members {
		assert.Equal(t, releaseset.Deployed, m.Outcome)
		assert.Equal(t, 1, m.Release.Revision)
	}
	got, ok := result.Member("ns/db")
	require.True(t, ok)
	assert.Equal(t, stagestest.Image("v2"), got.Verification.Image)
	_, ok = result.Member("ns/nobody")
	assert.False(t, ok)
	assert.Zero(t, c.open, "deployers left open")
}

func TestVendorChartIsDeployedAndRestored(t *testing.T) {
	c := newCluster()
	db := c.member(t, "db")
	db.Unscanned, db.Clearance = true, stages.Clearance{}
	bad := c.member(t, "web", "db")
	c.fakes["web"].Err = errDown
	_, err := apply(t, newSet(t, 1, db, bad))
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.Empty(t, c.fakes["db"].state(t))
}

func TestConcurrencyIsBounded(t *testing.T) {
	c := newCluster()
	const limit = 3
	var members []releaseset.Member
	var running, most atomic.Int32
	full := make(chan struct{})
	for i := range 12 {
		name := fmt.Sprintf("m%02d", i)
		members = append(members, c.member(t, name))
		c.fakes[name].onDeploy = func(ctx context.Context) error {
			n := running.Add(1)
			defer running.Add(-1)
			if n == limit {
				most.Store(n)
				select {
				case <-full:
				default:
					close(full)
				}
			} else if n > limit {
				most.Store(n)
			}
			select { // All of the first ones wait until the limit is reached.
			case <-full:
			case <-ctx.Done():
			}
			return nil
		}
	}
	_, err := apply(t, newSet(t, limit, members...))
	require.NoError(t, err)
	assert.EqualValues(t, limit, most.Load())
	assert.LessOrEqual(t, c.maxOpen, limit)
}

func TestFailureRestoresInReverse(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "a"), c.member(t, "b"), c.member(t, "c", "a", "b"), c.member(t, "d", "c"))
	_, err := set.Apply(t.Context(), releaseset.ApplyRequest{Run: "run-1"})
	require.NoError(t, err)
	c.log = nil
	c.fakes["c"].Err = errDown

	result, err := apply(t, set)
	require.ErrorIs(t, err, errDown)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	require.NotErrorIs(t, err, stages.ErrRollbackFailed)
	assert.Equal(t, []string{"ns/c", "ns/b", "ns/a"}, c.did("restore"))
	assert.Equal(t, map[string]releaseset.Outcome{
		"ns/a": releaseset.Restored, "ns/b": releaseset.Restored, "ns/c": releaseset.Restored, "ns/d": releaseset.NotStarted,
	}, outcomes(result))
	assert.ErrorContains(t, err, "deploy ns/c: the pod does not start; rolled back: all 3 touched releases are as before")

	failure, ok := errors.AsType[*releaseset.Error](err)
	require.True(t, ok)
	assert.Equal(t, result, failure.Result)
	cause, ok := errors.AsType[*releaseset.MemberError](err)
	require.True(t, ok)
	assert.Equal(t, "ns/c", cause.Member)
	assert.Equal(t, "deploy", cause.Doing)
}

// The member that is being deployed when the set is known to have failed is waited
// for before anything is restored. That it is known is seen by a member whose
// verification is given up for it.
func TestRunningMembersAreJoined(t *testing.T) {
	c := newCluster()
	sees, slow, bad, never := c.member(t, "sees"), c.member(t, "slow"), c.member(t, "bad"), c.member(t, "never")
	deploying, verifying, failed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	sees.Verify = stages.VerifierFunc(func(ctx context.Context, _ stages.Release) (stages.Verification, error) {
		close(verifying)
		<-ctx.Done()
		close(failed)
		return stages.Verification{}, ctx.Err()
	})
	c.fakes["slow"].onDeploy = func(context.Context) error {
		close(deploying)
		<-failed
		return nil
	}
	c.fakes["bad"].onDeploy = func(context.Context) error {
		<-deploying
		<-verifying
		return errDown
	}
	result, err := apply(t, newSet(t, 3, sees, slow, bad, never))
	require.ErrorIs(t, err, errDown)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.Equal(t, releaseset.NotStarted, outcomes(result)["ns/never"])
	assert.ElementsMatch(t, []string{"ns/sees", "ns/slow", "ns/bad"}, c.did("restore"))
	for _, name := range []string{"sees", "slow", "bad", "never"} {
		assert.Empty(t, c.fakes[name].state(t), name)
	}
	log := append([]string(nil), c.log...)
	assert.True(t, before(log, "done ns/slow", "restore ns/slow"))
	assert.True(t, before(log, "done ns/slow", "restore ns/bad"), "nothing may be restored while a member is being deployed")
}

func TestVerificationIsGivenUpWhenAnotherFails(t *testing.T) {
	c := newCluster()
	waits, bad := c.member(t, "waits"), c.member(t, "bad")
	verifying := make(chan struct{})
	waits.Verify = stages.VerifierFunc(func(ctx context.Context, _ stages.Release) (stages.Verification, error) {
		close(verifying)
		<-ctx.Done()
		return stages.Verification{}, ctx.Err()
	})
	c.fakes["bad"].onDeploy = func(context.Context) error {
		<-verifying
		return errDown
	}
	result, err := apply(t, newSet(t, 2, waits, bad))
	failure, ok := errors.AsType[*releaseset.Error](err)
	require.True(t, ok)
	assert.Len(t, failure.Causes, 1, "the one that was given up is no cause")
	assert.Equal(t, releaseset.Restored, outcomes(result)["ns/waits"])
	m, _ := result.Member("ns/waits")
	assert.ErrorContains(t, m.Err, "another member failed")
}

type sick struct{ error }

func (sick) Evidence() []stages.Evidence { return []stages.Evidence{{Reason: "CrashLoopBackOff"}} }

func TestFailedVerificationIsUndoneWithItsEvidence(t *testing.T) {
	c := newCluster()
	m := c.member(t, "a")
	m.Verify = stages.VerifierFunc(func(context.Context, stages.Release) (stages.Verification, error) {
		return stages.Verification{}, sick{errDown}
	})
	result, err := apply(t, newSet(t, 1, m, c.member(t, "b", "a")))
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.Equal(t, "CrashLoopBackOff", stages.EvidenceOf(err)[0].Reason)
	assert.Equal(t, map[string]releaseset.Outcome{"ns/a": releaseset.Restored, "ns/b": releaseset.NotStarted}, outcomes(result))
	assert.Empty(t, c.fakes["a"].state(t))
}

func TestRollbackGoesOnPastErrors(t *testing.T) {
	c := newCluster()
	var members []releaseset.Member
	for _, name := range []string{"fine", "diverges", "impossible", "errs", "panics", "lies", "hangs"} {
		members = append(members, c.member(t, name))
	}
	members = append(members, c.member(t, "bad"))
	c.fakes["bad"].Err = errDown
	errLost := errors.New("connection lost")
	c.fakes["diverges"].onRestore = func(context.Context) (stages.Restoration, error) {
		return stages.Restoration{Outcome: stages.Diverged, Message: "replicas differ"}, nil
	}
	c.fakes["impossible"].onRestore = func(context.Context) (stages.Restoration, error) {
		return stages.Restoration{Outcome: stages.Impossible, Message: "somebody else has deployed"}, nil
	}
	c.fakes["errs"].onRestore = func(context.Context) (stages.Restoration, error) { return stages.Restoration{}, errLost }
	c.fakes["panics"].onRestore = func(context.Context) (stages.Restoration, error) { panic("oops") }
	c.fakes["lies"].onRestore = func(context.Context) (stages.Restoration, error) { return stages.Restoration{}, nil }
	c.fakes["hangs"].onRestore = func(ctx context.Context) (stages.Restoration, error) {
		<-ctx.Done()
		return stages.Restoration{}, context.Cause(ctx)
	}
	set, err := releaseset.New(releaseset.Config{Members: members, Concurrency: 1, RollbackTimeout: 10 * time.Millisecond})
	require.NoError(t, err)
	result, err := apply(t, set)
	for _, class := range []error{errDown, errLost, stages.ErrRollbackFailed, stages.ErrIndeterminate, stages.ErrPanicked} {
		require.ErrorIs(t, err, class)
	}
	require.NotErrorIs(t, err, stages.ErrRolledBack)
	assert.Equal(t, map[string]releaseset.Outcome{
		"ns/fine": releaseset.Restored, "ns/diverges": releaseset.Diverged, "ns/impossible": releaseset.Impossible,
		"ns/errs": releaseset.Unknown, "ns/panics": releaseset.Unknown, "ns/lies": releaseset.Unknown,
		"ns/hangs": releaseset.Unknown, "ns/bad": releaseset.Restored,
	}, outcomes(result))
	assert.ErrorContains(t, err, "rollback failed for 6 of 8")
	assert.ErrorContains(t, err, "replicas differ")
	assert.ErrorContains(t, err, "took longer than 10ms")
	assert.Zero(t, c.open)
}

func TestCancelRestoresUnderAFreshContext(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "a"), c.member(t, "b"), c.member(t, "c"))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the job was stopped")
	c.fakes["b"].onDeploy = func(ctx context.Context) error {
		cancel(why)
		return context.Cause(ctx)
	}
	result, err := set.Apply(ctx, releaseset.ApplyRequest{Run: "run-2"})
	require.ErrorIs(t, err, why)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.Equal(t, []string{"ns/b", "ns/a"}, c.did("restore"))
	assert.Equal(t, releaseset.NotStarted, outcomes(result)["ns/c"])
}

func TestCancelBetweenMembers(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "a"), c.member(t, "b"))
	ctx, cancel := context.WithCancel(t.Context())
	c.fakes["a"].onDeploy = func(context.Context) error {
		cancel()
		return nil
	}
	_, err := set.Apply(ctx, releaseset.ApplyRequest{Run: "run-2"})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.ErrorContains(t, err, "stopped before 1 members were begun")
	assert.Empty(t, c.fakes["a"].state(t))
}

func TestApplyRefusesBeforeAnythingIsChanged(t *testing.T) {
	other, err := stages.BypassGates(stagestest.Image("v9"), "test")
	require.NoError(t, err)
	for name, test := range map[string]struct {
		change func(c *cluster, m *releaseset.Member, req *releaseset.ApplyRequest)
		class  error
	}{
		"no run": {func(_ *cluster, _ *releaseset.Member, req *releaseset.ApplyRequest) { req.Run = "" }, stages.ErrInvalid},
		"no clearance": {func(_ *cluster, m *releaseset.Member, _ *releaseset.ApplyRequest) {
			m.Image, m.Clearance = m.Clearance.Image(), stages.Clearance{}
		}, stages.ErrNotCleared},
		"clearance of another image": {func(_ *cluster, _ *releaseset.Member, req *releaseset.ApplyRequest) {
			req.Clearances = map[string]stages.Clearance{"ns/last": other}
		}, stages.ErrSubjectMismatch},
		"clearance of nobody": {func(_ *cluster, _ *releaseset.Member, req *releaseset.ApplyRequest) {
			req.Clearances = map[string]stages.Clearance{"ns/nobody": other}
		}, stages.ErrInvalid},
		"a chart that can't be read": {func(c *cluster, _ *releaseset.Member, _ *releaseset.ApplyRequest) {
			c.fakes["last"].onOpen = func() error { return fmt.Errorf("%w: no such chart", stages.ErrInvalid) }
		}, stages.ErrInvalid},
		"a deployer that panics": {func(c *cluster, _ *releaseset.Member, _ *releaseset.ApplyRequest) {
			c.fakes["last"].onOpen = func() error { panic(errDown) }
		}, errDown},
		"a deployer for images only": {func(_ *cluster, m *releaseset.Member, _ *releaseset.ApplyRequest) {
			m.Open, m.Deployer, m.Clearance, m.Unscanned = nil, &stagestest.Deployer{}, stages.Clearance{}, true
		}, stages.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster()
			first, last := c.member(t, "first"), c.member(t, "last")
			req := releaseset.ApplyRequest{Run: "run"}
			test.change(c, &last, &req)
			_, err := newSet(t, 2, first, last).Apply(t.Context(), req)
			require.ErrorIs(t, err, test.class)
			assert.ErrorContains(t, err, "nothing was begun")
			assert.Empty(t, c.did("checkpoint"))
			assert.Zero(t, c.open)
		})
	}
	c := newCluster()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = newSet(t, 1, c.member(t, "a")).Apply(ctx, releaseset.ApplyRequest{Run: "run"})
	require.ErrorIs(t, err, context.Canceled)
}

func TestFailureBeforeTheMemberIsTouched(t *testing.T) {
	c := newCluster()
	full := errors.New("disk full")
	result, err := newSet(t, 1, c.member(t, "a")).Apply(t.Context(), releaseset.ApplyRequest{
		Run: "run", Checkpointed: func(context.Context, releaseset.MemberCheckpoint) error { return full },
	})
	require.ErrorIs(t, err, full)
	require.NotErrorIs(t, err, stages.ErrRolledBack)
	assert.ErrorContains(t, err, "no release was touched")
	assert.Equal(t, releaseset.NotStarted, outcomes(result)["ns/a"])
	assert.Empty(t, c.did("deploy"))
}

func TestRestoreAfterTheProcessWasKilled(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "a"), c.member(t, "b"), c.member(t, "c"))
	var journal []releaseset.MemberCheckpoint
	_, err := set.Apply(t.Context(), releaseset.ApplyRequest{
		Run: "run-1", Checkpointed: func(_ context.Context, cp releaseset.MemberCheckpoint) error {
			journal = append(journal, cp)
			return nil
		},
	})
	require.NoError(t, err)
	result, err := set.Restore(t.Context(), "run-1", journal[:2])
	require.NoError(t, err)
	assert.Equal(t, []string{"ns/b", "ns/a"}, c.did("restore"))
	assert.Equal(t, map[string]releaseset.Outcome{"ns/a": releaseset.Restored, "ns/b": releaseset.Restored, "ns/c": releaseset.NotStarted}, outcomes(result))
	result, err = set.Restore(t.Context(), "run-1", journal[:2])
	require.NoError(t, err)
	assert.Equal(t, releaseset.Unchanged, outcomes(result)["ns/a"], "it can be repeated")

	_, err = set.Restore(t.Context(), "somebody-else", journal)
	require.ErrorIs(t, err, stages.ErrRollbackFailed)
	for name, cps := range map[string][]releaseset.MemberCheckpoint{
		"foreign": {{Member: "ns/nobody"}}, "twice": {journal[0], journal[0]},
	} {
		_, err = set.Restore(t.Context(), "run-1", cps)
		require.ErrorIs(t, err, stages.ErrInvalid, name)
	}
	_, err = set.Restore(t.Context(), "", journal)
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func TestProgressNamesTheMember(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "a"))
	c.fakes["a"].onDeploy = func(ctx context.Context) error {
		stages.ReportProgress(ctx, stages.Progress{ID: "hook", Message: "running"})
		return nil
	}
	var mu sync.Mutex
	var seen []stages.Progress
	ctx := stages.WithProgress(t.Context(), func(p stages.Progress) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, p)
	})
	_, err := set.Apply(ctx, releaseset.ApplyRequest{Run: "run"})
	require.NoError(t, err)
	assert.Equal(t, []stages.Progress{
		{ID: "ns/a", Message: "deploying ns/a"}, {ID: "ns/a/hook", Message: "running"}, {ID: "ns/a", Message: "deployed ns/a"},
	}, seen)
	assert.True(t, slices.IsSorted(c.did("deploy")))
}
