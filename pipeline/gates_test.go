package pipeline_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestOnlyPassPasses(t *testing.T) {
	broken := errors.New("no data")
	for name, tc := range map[string]struct {
		decision stages.Decision
		err      error
		class    error
		verdict  stages.Verdict
	}{
		"fail":           {stages.Decision{Verdict: stages.Fail}, nil, stages.ErrGateRefused, stages.Fail},
		"inconclusive":   {stages.Decision{Verdict: stages.Inconclusive}, nil, stages.ErrInconclusive, stages.Inconclusive},
		"zero":           {stages.Decision{}, nil, stages.ErrInconclusive, stages.Inconclusive},
		"no verdict":     {stages.Decision{Verdict: 9}, nil, stages.ErrInconclusive, stages.Inconclusive},
		"error":          {stages.Decision{}, broken, stages.ErrInconclusive, stages.Inconclusive},
		"pass and error": {stages.Decision{Verdict: stages.Pass}, broken, stages.ErrInconclusive, stages.Inconclusive},
		"fail and error": {stages.Decision{Verdict: stages.Fail}, broken, stages.ErrInconclusive, stages.Inconclusive},
	} {
		for _, policy := range []pipeline.InconclusivePolicy{pipeline.InconclusiveStops, pipeline.InconclusiveKeeps} {
			t.Run(name, func(t *testing.T) {
				f := newFake(t)
				c := config(f)
				c.OnInconclusive = policy
				c.ScanGates = append(c.ScanGates, stages.GateFunc[stages.Report](func(context.Context, stages.Report) (stages.Decision, error) {
					return tc.decision, tc.err
				}))
				c.PlanGates = nil
				res, err := newPipeline(t, c).Run(t.Context(), source)
				require.ErrorIs(t, err, tc.class)
				if tc.err != nil {
					require.ErrorIs(t, err, tc.err)
				}
				var refused *pipeline.GateError
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, "scan-gate-2", refused.Decision.Gate, "a gate without a name gets its stage's")
				assert.Equal(t, tc.verdict, refused.Decision.Verdict)
				assert.Equal(t, refused.Decision, res.Decisions[1])
				assert.NotContains(t, f.Calls(), "sign")
			})
		}
	}
}

func TestInconclusiveReleaseGate(t *testing.T) {
	for name, tc := range map[string]struct {
		policy pipeline.InconclusivePolicy
		script error
		kept   bool
	}{
		"stops by default":           {pipeline.InconclusiveStops, verdict(stages.Inconclusive), false},
		"keeps if told so":           {pipeline.InconclusiveKeeps, verdict(stages.Inconclusive), true},
		"keeps after a gate's error": {pipeline.InconclusiveKeeps, errors.New("no metrics"), true},
		"never keeps a refusal":      {pipeline.InconclusiveKeeps, verdict(stages.Fail), false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.fail("release-gate", tc.script)
			c := config(f)
			c.OnInconclusive = tc.policy
			res, err := newPipeline(t, c).Run(t.Context(), source)
			assert.Equal(t, tc.kept, err == nil)
			assert.Equal(t, tc.kept, res.Outcome == pipeline.OutcomeReleased)
			assert.Equal(t, tc.kept, f.state() != "before")
			assert.NotEqual(t, stages.Pass, res.Decisions[2].Verdict)
		})
	}
}
