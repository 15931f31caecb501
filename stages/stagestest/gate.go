package stagestest

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// GateHarness is a gate with subjects to try it on.
type GateHarness[S any] struct {
	// Gate is the implementation.
	Gate stages.Gate[S]
	// Good passes.
	Good S
	// Bad is refused.
	Bad S
	// Empty holds no data to decide from.
	Empty S
}

// TestGate checks that an implementation keeps the contract of [stages.Gate].
func TestGate[S any](t *testing.T, newHarness func(*testing.T) GateHarness[S]) {
	runChecks(t, newHarness, gateChecks[S]())
}

func gateChecks[S any]() []check[GateHarness[S]] {
	return []check[GateHarness[S]]{
		{"passes what is good", func(t T, h GateHarness[S]) {
			d, err := h.Gate.Decide(t.Context(), h.Good)
			require.NoError(t, err)
			assert.Equal(t, stages.Pass, d.Verdict, "%+v", d)
			assert.NotEmpty(t, d.Gate, "a decision must name its gate")
		}},
		{"refuses what is bad, with reasons", func(t T, h GateHarness[S]) {
			d, err := h.Gate.Decide(t.Context(), h.Bad)
			require.NoError(t, err, "a refusal is a decision, not an error")
			assert.Equal(t, stages.Fail, d.Verdict)
			require.NotEmpty(t, d.Reasons)
			for _, r := range d.Reasons {
				assert.NotEmpty(t, r.Rule, "a reason must name its rule")
				assert.NotEmpty(t, r.Message, "a reason must say what is wrong")
			}
		}},
		{"no data is never a pass", func(t T, h GateHarness[S]) {
			d, err := h.Gate.Decide(t.Context(), h.Empty)
			if err == nil {
				assert.NotEqual(t, stages.Pass, d.Verdict)
			}
		}},
		{"decides the same twice", func(t T, h GateHarness[S]) {
			first, err := h.Gate.Decide(t.Context(), h.Bad)
			require.NoError(t, err)
			second, err := h.Gate.Decide(t.Context(), h.Bad)
			require.NoError(t, err)
			assert.Equal(t, first, second)
		}},
		{"stops when cancelled", func(t T, h GateHarness[S]) {
			requireCancelled(t, func(ctx context.Context) error {
				d, err := h.Gate.Decide(ctx, h.Good)
				if err == nil && d.Verdict == stages.Pass {
					return fmt.Errorf("passed under a cancelled context")
				}
				return err
			})
		}},
		{"decides alike in a series", func(t T, h GateHarness[S]) {
			gate, ok := h.Gate.(stages.SeriesGate[S])
			if !ok {
				return
			}
			good, bad, empty := gate.Series(parallel), gate.Series(parallel), gate.Series(parallel)
			require.NotNil(t, good)
			d, err := good.Decide(t.Context(), h.Good)
			require.NoError(t, err)
			assert.Equal(t, stages.Pass, d.Verdict, "%+v", d)
			d, err = good.Decide(t.Context(), h.Good)
			require.NoError(t, err)
			assert.Equal(t, stages.Pass, d.Verdict, "%+v", d)
			d, err = bad.Decide(t.Context(), h.Bad)
			require.NoError(t, err)
			assert.Equal(t, stages.Fail, d.Verdict, "%+v", d)
			if d, err = empty.Decide(t.Context(), h.Empty); err == nil {
				assert.NotEqual(t, stages.Pass, d.Verdict)
			}
			requireCancelled(t, func(ctx context.Context) error {
				_, err := good.Decide(ctx, h.Good)
				return err
			})
		}},
		{"is safe for concurrent use", func(t T, h GateHarness[S]) {
			require.NoError(t, inParallel(func() error {
				d, err := h.Gate.Decide(t.Context(), h.Good)
				if err == nil && d.Verdict != stages.Pass {
					return fmt.Errorf("decided %s", d.Verdict)
				}
				return err
			}))
		}},
	}
}
