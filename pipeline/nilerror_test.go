package pipeline_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// nilError is one that a nil pointer is not.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

// badCompensator fails with a nil pointer for an error.
type badCompensator struct{ stages.Deployer }

func (badCompensator) Checkpoint(context.Context, stages.CheckpointRequest) (stages.Checkpoint, error) {
	return stages.Checkpoint{Subject: "s"}, nil
}

func (badCompensator) Restore(context.Context, string, stages.Checkpoint) (stages.Restoration, error) {
	var err *nilError
	return stages.Restoration{}, err
}

// TestErrorsThatPanic have a run end as any other failure does.
func TestErrorsThatPanic(t *testing.T) {
	f := newFake(t)
	c := config(f)
	c.Deployer, c.PlanGates = badCompensator{c.Deployer}, nil
	c.Verifiers = []stages.Verifier{stages.VerifierFunc(func(context.Context, stages.Release) (stages.Verification, error) {
		var err *nilError
		return stages.Verification{}, err
	})}
	_, err := newPipeline(t, c).Run(t.Context(), source)
	var failed *pipeline.Error
	require.ErrorAs(t, err, &failed)
	require.ErrorIs(t, err, stages.ErrPanicked)
	assert.Equal(t, pipeline.StageVerify, failed.Stage)
	assert.Equal(t, pipeline.OutcomeUnknown, failed.Outcome)
	require.Len(t, failed.Restorations, 1)
}
