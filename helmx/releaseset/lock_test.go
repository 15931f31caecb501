package releaseset_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestMemberIsLockedUntilTheSetEnds(t *testing.T) {
	c := newCluster()
	a, b := c.member(t, "a"), c.member(t, "b", "a")
	a.Verify = stages.VerifierFunc(func(context.Context, stages.Release) (stages.Verification, error) {
		c.note("verify ns/a")
		return stages.Verification{}, nil
	})
	c.fakes["b"].Err = errDown
	_, err := apply(t, newSet(t, 1, a, b))
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.Equal(t, []string{
		"lock ns/a", "checkpoint ns/a", "deploy ns/a", "done ns/a", "verify ns/a",
		"lock ns/b", "checkpoint ns/b", "deploy ns/b", "done ns/b",
		"restore ns/b", "unlock ns/b", "restore ns/a", "unlock ns/a",
	}, c.log)
}

func TestLocksAreGivenBackWhenTheSetHasSucceeded(t *testing.T) {
	c := newCluster()
	_, err := apply(t, newSet(t, 1, c.member(t, "a"), c.member(t, "b", "a")))
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"ns/a", "ns/b"}, c.did("unlock"))
	assert.Equal(t, []string{"unlock ns/a", "unlock ns/b"}, slices.Sorted(slices.Values(c.log[len(c.log)-2:])))
}

// TestRestoreUnderALockThatTheDeployerDoesNotKnowOf is for deployers that don't share
// what they connect with.
func TestRestoreUnderALockThatTheDeployerDoesNotKnowOf(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "a"))
	c.fakes["a"].Err = errDown
	refused := false
	c.fakes["a"].onRestore = func(context.Context) (stages.Restoration, error) {
		if !refused {
			refused = true
			return stages.Restoration{}, fmt.Errorf("%w by another", stages.ErrLocked)
		}
		return stages.Restoration{Outcome: stages.Restored, Message: "back"}, nil
	}
	_, err := apply(t, set)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	require.NotErrorIs(t, err, stages.ErrRollbackFailed)
	assert.Equal(t, []string{
		"lock ns/a", "checkpoint ns/a", "deploy ns/a", "done ns/a", "restore ns/a", "unlock ns/a",
		"lock ns/a", "restore ns/a", "unlock ns/a",
	}, c.log)
}

func TestMemberWhoseLockIsRefusedIsNotTouched(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "a"), c.member(t, "b", "a"))
	c.fakes["b"].onLock = func() error { return fmt.Errorf("%w by run-1", stages.ErrLocked) }
	result, err := apply(t, set)
	require.ErrorIs(t, err, stages.ErrLocked)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	failure, ok := errors.AsType[*releaseset.MemberError](err)
	require.True(t, ok)
	assert.Equal(t, "ns/b", failure.Member)
	assert.Equal(t, "lock", failure.Doing)
	assert.Equal(t, map[string]releaseset.Outcome{"ns/a": releaseset.Restored, "ns/b": releaseset.NotStarted}, outcomes(result))
	assert.Equal(t, []string{"ns/a"}, c.did("checkpoint"))
}

func TestLockIsGivenBackAfterACancel(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "a"))
	ctx, cancel := context.WithCancel(t.Context())
	c.fakes["a"].onDeploy = func(ctx context.Context) error {
		cancel()
		return context.Cause(ctx)
	}
	var said []string
	ctx = stages.WithProgress(ctx, func(p stages.Progress) { said = append(said, p.Message) })
	_, err := set.Apply(ctx, releaseset.ApplyRequest{Run: "run"})
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, []string{"ns/a"}, c.did("unlock"))
	assert.Equal(t, []string{"deploying ns/a", "restoring ns/a"}, said, "a lock that can't be given back would be told")
}
