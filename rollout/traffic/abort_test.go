package traffic_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// slowStable takes almost all the time there is to restore.
type slowStable struct{ stableDeployer }

func (d slowStable) Restore(ctx context.Context, run string, cp stages.Checkpoint) (stages.Restoration, error) {
	time.Sleep(traffic.DefaultAbortTimeout - time.Second)
	return d.stableDeployer.Restore(ctx, run, cp)
}

func TestRestoredReleaseRunsBeforeItGetsTheTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.doomed = true
		p := &process{cluster: c}
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps()}), "run-1", newImage)
		var aborted *traffic.AbortError
		require.ErrorAs(t, err, &aborted)
		inOrder(t, p.log, "verify fake", "save aborting", "restore stable", "verify restored fake", "shift to 0", "uninstall canary")
		c.requireCalm(oldImage)
	})
}

func TestCanaryKeepsItsTrafficFromAReleaseThatDoesNotRun(t *testing.T) {
	for _, broken := range []string{"verify restored fake", "restore stable"} {
		t.Run(broken, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				p := &process{cluster: c}
				p.fault = func(call string, _ int, _ bool) error {
					if call == broken || call == "verify fake" && c.router.Weight() == 50 {
						return errInjected
					}
					return nil
				}
				_, err := p.canaryOf(parts{steps: twoSteps()}).Deploy(t.Context(), request(t, newImage, "run-1"))
				require.ErrorContains(t, err, "the stable release is not known to run, so that no traffic was sent to it")
				require.ErrorContains(t, err, "50% to the canary")
				assert.Equal(t, 50, c.router.Weight())
				assert.NotContains(t, p.log, "uninstall canary")
				p.fault = nil
				require.NoError(t, p.canaryOf(parts{steps: twoSteps()}).Abort(t.Context(), "again"))
				c.requireCalm(oldImage)
			})
		})
	}
}

func TestSlowRestoreLeavesTimeForTheTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.doomed, c.router.Lag = true, 10
		p := &process{cluster: c}
		_, err := p.canaryOf(parts{steps: twoSteps(), stable: slowStable{stableDeployer{p}}}).Deploy(t.Context(), request(t, newImage, "run-1"))
		require.Error(t, err)
		c.requireCalm(oldImage)
	})
}

// TestLockOfTheCanaryIsLost has the canary's own release taken by somebody else,
// before it has any traffic.
func TestLockOfTheCanaryIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		p.fault = func(call string, _ int, after bool) error {
			if call == "deploy canary" && after {
				return stages.ErrLockLost
			}
			return nil
		}
		_, err := p.canaryOf(parts{steps: twoSteps()}).Deploy(t.Context(), request(t, newImage, "run-1"))
		require.ErrorIs(t, err, stages.ErrLockLost)
		c.requireCalm(oldImage)
	})
}

// TestAbortThatIsAskedForLate is heard until the promotion is verified.
func TestAbortThatIsAskedForLate(t *testing.T) {
	for at, late := range map[string]bool{"save promoting": false, "deploy stable": false, "save returning": false, "shift to 0": true, "uninstall canary": true} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				p, q := &process{cluster: c}, &process{cluster: c}
				asked := false
				p.fault = func(call string, _ int, after bool) error {
					if call == at && !after && !asked {
						asked = true
						err := q.canaryOf(parts{steps: twoSteps()}).Abort(t.Context(), "the shop is on fire")
						assert.ErrorIs(t, err, stages.ErrLocked)
						assert.Equal(t, late, errors.Is(err, traffic.ErrPromoted))
					}
					return nil
				}
				_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps()}), "run-1", newImage)
				if late {
					require.NoError(t, err)
					c.requireCalm(newImage)
					return
				}
				require.ErrorIs(t, err, traffic.ErrAbortAsked)
				c.requireCalm(oldImage)
			})
		})
	}
}

// TestTrafficComesBackToAPromotedCanary has somebody, such as a tool that applies
// what is in Git, set the weight while nobody is left to remove the canary.
func TestTrafficComesBackToAPromotedCanary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		p.fault = func(call string, _ int, _ bool) error {
			if call == "uninstall canary" {
				return stages.Permanent(errInjected)
			}
			return nil
		}
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps()}), "run-1", newImage)
		require.NoError(t, err, "the promotion is done")
		c.router.Set(20)
		q := &process{cluster: c}
		_, err = q.deliver(t.Context(), q.canaryOf(parts{steps: twoSteps()}), "run-2", newImage)
		require.NoError(t, err)
		c.requireCalm(newImage)
	})
}

// TestUnevenWeights aborts where one of several rules was changed to less.
func TestUnevenWeights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		var uneven atomic.Bool
		timer := time.AfterFunc(5*time.Second, func() { uneven.Store(true) })
		defer timer.Stop()
		router := traffic.RouterFuncs{
			Set: func(ctx context.Context, weight int) error { return c.router.Shift(ctx, traffic.Any, weight) },
			Get: func(ctx context.Context) (traffic.Split, error) {
				split, err := c.router.Observe(ctx)
				split.Uneven = uneven.Load() && split.Canary > 0
				split.Settled = split.Settled && !split.Uneven
				return split, err
			},
		}
		began := time.Now()
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps(), router: router}), "run-1", newImage)
		var changed *traffic.ChangedError
		require.ErrorAs(t, err, &changed)
		require.ErrorContains(t, err, "the canary's weight is 10 in one place and another elsewhere")
		assert.Less(t, time.Since(began), 20*time.Second, "not only at the end of the step")
		c.requireCalm(oldImage)
	})
}
