package releaseset_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// shareNamespace makes the restore of a member diverge as long as there is the
// other one, as it does if both are in a namespace that was not there before.
func shareNamespace(t *testing.T, f, other *fake) {
	t.Helper()
	f.onRestore = func(context.Context) (stages.Restoration, error) {
		if other.state(t) != "" {
			return stages.Restoration{Outcome: stages.Diverged, Message: "the namespace has other objects"}, nil
		}
		return stages.Restoration{Outcome: stages.Unchanged}, nil
	}
}

func TestMembersOfOneNewNamespaceAreRestored(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "a"), c.member(t, "b"), c.member(t, "bad"))
	shareNamespace(t, c.fakes["b"], c.fakes["a"])
	c.fakes["bad"].Err = errDown
	result, err := apply(t, set)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	require.NotErrorIs(t, err, stages.ErrRollbackFailed)
	assert.Equal(t, []string{"ns/bad", "ns/b", "ns/a", "ns/b"}, c.did("restore"))
	assert.Equal(t, map[string]releaseset.Outcome{
		"ns/a": releaseset.Restored, "ns/b": releaseset.Restored, "ns/bad": releaseset.Restored,
	}, outcomes(result))
}

// deployed applies the set and returns what was recorded.
func deployed(t *testing.T, set *releaseset.Set) []releaseset.MemberCheckpoint {
	t.Helper()
	var journal []releaseset.MemberCheckpoint
	_, err := set.Apply(t.Context(), releaseset.ApplyRequest{
		Run: "run", Checkpointed: func(_ context.Context, cp releaseset.MemberCheckpoint) error {
			journal = append(journal, cp)
			return nil
		},
	})
	require.NoError(t, err)
	return journal
}

func TestRestoreOfOneNewNamespaceAfterAKill(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "a"), c.member(t, "b"))
	journal := deployed(t, set)
	shareNamespace(t, c.fakes["b"], c.fakes["a"])
	result, err := set.Restore(t.Context(), "run", journal)
	require.NoError(t, err)
	assert.Equal(t, map[string]releaseset.Outcome{"ns/a": releaseset.Restored, "ns/b": releaseset.Restored}, outcomes(result))
}

func TestRestoreThatIsStoppedTellsWhatItKnows(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "a"), c.member(t, "b"), c.member(t, "c"))
	journal := deployed(t, set)
	ctx, cancel := context.WithCancelCause(t.Context())
	why, lost := errors.New("the job was stopped"), errors.New("connection lost")
	c.fakes["c"].onRestore = func(context.Context) (stages.Restoration, error) { return stages.Restoration{}, lost }
	c.fakes["b"].onRestore = func(context.Context) (stages.Restoration, error) {
		cancel(why)
		return stages.Restoration{Outcome: stages.Diverged, Message: "replicas differ"}, nil
	}
	result, err := set.Restore(ctx, "run", journal)
	for _, class := range []error{why, lost, stages.ErrRollbackFailed, stages.ErrIndeterminate} {
		require.ErrorIs(t, err, class)
	}
	assert.ErrorContains(t, err, "replicas differ")
	assert.Equal(t, []string{"ns/c", "ns/b"}, c.did("restore"))
	assert.Equal(t, map[string]releaseset.Outcome{
		"ns/a": releaseset.Unknown, "ns/b": releaseset.Diverged, "ns/c": releaseset.Unknown,
	}, outcomes(result))
}

// A member that is as before, and doesn't run, is not called restored.
func TestWhatIsRestoredIsSeenToRun(t *testing.T) {
	v1 := stagestest.Image("v1")
	for name, tc := range map[string]struct {
		verifier stages.Verifier
		want     releaseset.Outcome
		class    error
	}{
		"runs":           {&stagestest.Verifier{}, releaseset.Restored, stages.ErrRolledBack},
		"doesn't run":    {&stagestest.Verifier{Bad: v1}, releaseset.NotReady, stages.ErrNotReady},
		"nobody can say": {stages.VerifierFunc((&stagestest.Verifier{Bad: v1}).Verify), releaseset.Restored, stages.ErrRolledBack},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster()
			a := c.member(t, "a")
			a.Verify = tc.verifier
			set := newSet(t, 1, a, c.member(t, "bad", "a"))
			before, err := stages.BypassGates(v1, "test")
			require.NoError(t, err)
			_, err = c.fakes["a"].Deployer.Deploy(t.Context(), stages.DeployRequest{Clearance: before, Run: "run-1"})
			require.NoError(t, err)

			c.fakes["bad"].Err = errDown
			result, err := apply(t, set)
			require.ErrorIs(t, err, errDown)
			require.ErrorIs(t, err, tc.class)
			assert.Equal(t, v1.String(), c.fakes["a"].state(t))
			assert.Equal(t, map[string]releaseset.Outcome{"ns/a": tc.want, "ns/bad": releaseset.Restored}, outcomes(result))
			notReady := tc.want == releaseset.NotReady
			assert.Equal(t, notReady, errors.Is(err, stages.ErrRollbackFailed))
			if notReady {
				require.ErrorContains(t, err, "ns/a restored, not ready (verify the restored ns/a: release default/fake does not start)")
				assert.NotEmpty(t, stages.EvidenceOf(result.Members[0].RestoreErr))
			}
		})
	}
}
