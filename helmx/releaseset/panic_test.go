package releaseset_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestDeployerOrSinkThatPanicsOrExitsStopsNothing(t *testing.T) {
	for name, die := range map[string]func(){"panic": func() { panic(errDown) }, "exit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			c := newCluster()
			set := newSet(t, 2, c.member(t, "a"), c.member(t, "b"), c.member(t, "bad", "a", "b"))
			c.fakes["bad"].onDeploy = func(context.Context) error { die(); return nil }
			c.fakes["b"].onRestore = func(context.Context) (stages.Restoration, error) {
				die()
				return stages.Restoration{}, nil
			}
			ctx := stages.WithProgress(t.Context(), func(stages.Progress) { die() })
			result, err := set.Apply(ctx, releaseset.ApplyRequest{Run: "run"})
			require.ErrorIs(t, err, stages.ErrPanicked)
			require.ErrorIs(t, err, stages.ErrRollbackFailed)
			assert.Equal(t, map[string]releaseset.Outcome{
				"ns/a": releaseset.Restored, "ns/b": releaseset.Unknown, "ns/bad": releaseset.Restored,
			}, outcomes(result))
			assert.Zero(t, c.open)
		})
	}
}
