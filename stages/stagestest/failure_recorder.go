package stagestest

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// FailureRecorderHarness is a deployer with an eye on its records.
type FailureRecorderHarness struct {
	DeployerHarness
	// Recorded returns what the history says of the revisions, whatever it looks
	// like.
	Recorded func(ctx context.Context) (string, error)
}

// TestFailureRecorder checks that a deployer keeps the contract of
// [stages.FailureRecorder].
func TestFailureRecorder(t *testing.T, newHarness func(*testing.T) FailureRecorderHarness) {
	runChecks(t, newHarness, failureRecorderChecks)
}

// errStarved is a cause to recognise.
var errStarved = errors.New("the pods have starved to death")

var failureRecorderChecks = []check[FailureRecorderHarness]{
	{"changes nothing but the record", recording(func(t T, h FailureRecorderHarness, f stages.FailureRecorder) {
		h.deploy(t, h.First, "run-1")
		before := h.state(t)
		require.NoError(t, f.RecordFailure(t.Context(), "run-1", errStarved))
		h.requireState(t, before)
		assert.Contains(t, h.recorded(t), errStarved.Error())
	})},
	{"the record outlives the restore", recording(func(t T, h FailureRecorderHarness, f stages.FailureRecorder) {
		c, ok := h.Deployer.(stages.Compensator)
		if !ok {
			return
		}
		h.deploy(t, h.First, "run-1")
		before := h.state(t)
		cp := checkpoint(t, c, h.Second, "run-2")
		h.deploy(t, h.Second, "run-2")
		require.NoError(t, f.RecordFailure(t.Context(), "run-2", errStarved))
		restore(t, c, "run-2", cp, stages.Restored)
		h.requireState(t, before)
		assert.Contains(t, h.recorded(t), errStarved.Error())
	})},
	{"a run that has released nothing is no error", recording(func(t T, h FailureRecorderHarness, f stages.FailureRecorder) {
		require.NoError(t, f.RecordFailure(t.Context(), "run-1", errStarved))
		h.requireState(t, "")
		h.deploy(t, h.First, "run-2")
		before := h.recorded(t)
		require.NoError(t, f.RecordFailure(t.Context(), "run-3", errStarved))
		assert.Equal(t, before, h.recorded(t), "the release is another run's")
	})},
	{"recording stops when cancelled", recording(func(t T, h FailureRecorderHarness, f stages.FailureRecorder) {
		h.deploy(t, h.First, "run-1")
		before := h.recorded(t)
		requireCancelled(t, func(ctx context.Context) error { return f.RecordFailure(ctx, "run-1", errStarved) })
		assert.Equal(t, before, h.recorded(t))
	})},
}

func recording(run func(t T, h FailureRecorderHarness, f stages.FailureRecorder)) func(T, FailureRecorderHarness) {
	return func(t T, h FailureRecorderHarness) {
		f, ok := h.Deployer.(stages.FailureRecorder)
		require.True(t, ok, "%T is no stages.FailureRecorder", h.Deployer)
		run(t, h, f)
	}
}

func (h FailureRecorderHarness) recorded(t T) string {
	text, err := h.Recorded(t.Context())
	require.NoError(t, err)
	return text
}
