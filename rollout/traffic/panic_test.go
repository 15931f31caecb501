package traffic_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// boobyTrapped is an error whose evidence can't be had.
type boobyTrapped struct{}

func (boobyTrapped) Error() string { return "it fails" }

func (boobyTrapped) Evidence() []stages.Evidence { panic("no evidence") }

func TestEvidenceThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		p.fault = func(call string, _ int, _ bool) error {
			if call == "verify canary" {
				return boobyTrapped{}
			}
			return nil
		}
		_, err := p.canaryOf(parts{steps: twoSteps()}).Deploy(t.Context(), request(t, newImage, "run-1"))
		var aborted *traffic.AbortError
		require.ErrorAs(t, err, &aborted)
		c.requireCalm(oldImage)
	})
}

// TestPartsThatPanicInAnAbort have the rest of it be done.
func TestPartsThatPanicInAnAbort(t *testing.T) {
	for _, at := range []string{"shift to 0", "uninstall canary", "restore stable", "delete", "save aborting", "observe", "record failure", "deployed"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				p := &process{cluster: c}
				armed := true
				aborting := false
				p.fault = func(call string, _ int, _ bool) error {
					aborting = aborting || call == "save aborting"
					if call == at && aborting && armed {
						panic("oh")
					}
					return nil
				}
				c.doomed = true
				_, err := p.canaryOf(parts{steps: twoSteps()}).Deploy(t.Context(), request(t, newImage, "run-1"))
				var aborted *traffic.AbortError
				require.ErrorAs(t, err, &aborted)
				armed = false
				q := &process{cluster: c}
				if record, _, err := c.state.Load(t.Context()); err == nil && record != nil {
					require.NoError(t, q.canaryOf(parts{steps: twoSteps()}).Abort(t.Context(), "again"))
				}
				c.requireCalm(oldImage)
			})
		})
	}
}

func TestSinkThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		ctx := stages.WithProgress(t.Context(), func(stages.Progress) { panic("sink") })
		_, err := p.canaryOf(parts{steps: twoSteps(p.gate(stages.Fail))}).Deploy(ctx, request(t, newImage, "run-1"))
		require.ErrorIs(t, err, stages.ErrGateRefused)
		c.requireCalm(oldImage)
	})
}
