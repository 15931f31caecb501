package traffic_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// TestFrozenProcess has one process stand still until another has taken the lock
// over from it, put its canary out of the way and begun one of its own.
func TestFrozenProcess(t *testing.T) {
	for _, at := range []string{"gate", "checkpoint stable", "plan stable"} {
		for _, resume := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, resume %t", at, resume), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCluster(t)
					p, q := &process{cluster: c}, &process{cluster: c}
					done := make(chan error, 1)
					takeOver := sync.OnceFunc(func() {
						c.mu.Lock()
						c.holder = nil // It has expired.
						c.mu.Unlock()
						go func() {
							_, err := q.deliver(t.Context(), q.canaryOf(parts{steps: twoSteps(q.gate(stages.Pass))}), "run-2", otherImage)
							done <- err
						}()
						time.Sleep(15 * time.Second)
					})
					p.fault = func(call string, _ int, _ bool) error {
						if call == at && call != "gate" {
							takeOver()
						}
						return nil
					}
					gate := stages.GateFunc[stages.Release](func(context.Context, stages.Release) (stages.Decision, error) {
						takeOver()
						return stages.Decision{Gate: "errors", Verdict: stages.Pass}, nil
					})
					_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps(gate), resume: resume}), "run-1", newImage)
					require.ErrorIs(t, err, stages.ErrLockLost)
					require.NoError(t, <-done, "the other goes on")
					c.requireCalm(otherImage)
				})
			})
		}
	}
}

// TestRestoreGoesOnPastAHiccup of the cluster.
func TestRestoreGoesOnPastAHiccup(t *testing.T) {
	for _, at := range []string{"load", "observe"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				p := &process{cluster: c}
				canary := p.canaryOf(parts{steps: twoSteps()})
				unlock, err := canary.Lock(t.Context(), "run-1")
				require.NoError(t, err)
				cp, err := canary.Checkpoint(t.Context(), stages.CheckpointRequest{Run: "run-1", Image: newImage})
				require.NoError(t, err)
				_, err = canary.Deploy(t.Context(), request(t, newImage, "run-1"))
				require.NoError(t, err)
				once := false
				p.fault = func(call string, _ int, _ bool) error {
					if call == at && !once {
						once = true
						return errInjected
					}
					return nil
				}
				got, err := canary.Restore(t.Context(), "run-1", cp)
				require.NoError(t, err)
				require.Equal(t, stages.Restored, got.Outcome)
				c.requireCalm(oldImage)
				require.NoError(t, unlock(t.Context()))
			})
		})
	}
}
