package traffic_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/rollout/traffic/traffictest"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// killIn leaves a canary that died in the first step.
func killIn(t *testing.T, c *cluster) {
	p := &process{cluster: c}
	p.fault = func(call string, _ int, _ bool) error {
		if call == "gate" {
			p.fault = func(string, int, bool) error { return errDead }
			return errDead
		}
		return nil
	}
	_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps(p.gate(stages.Pass))}), "run-1", newImage)
	require.ErrorIs(t, err, errDead)
	c.died()
}

func TestStatusAndPromote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		q := &process{cluster: c}
		canary := q.canaryOf(parts{steps: twoSteps(q.gate(stages.Fail))})
		status, err := canary.Status(t.Context())
		require.NoError(t, err)
		assert.Nil(t, status.Record)
		_, err = canary.Promote(t.Context(), request(t, newImage, "run-2"))
		require.ErrorIs(t, err, traffic.ErrNoCanary)
		require.ErrorIs(t, canary.Abort(t.Context(), ""), traffic.ErrNoCanary)

		killIn(t, c)
		status, err = canary.Status(t.Context())
		require.NoError(t, err)
		require.NotNil(t, status.Record)
		assert.Equal(t, traffic.Watching, status.Record.Phase)
		assert.Equal(t, 1, status.Record.Step)
		assert.Equal(t, "run-1", status.Record.Run)
		assert.Equal(t, newImage, status.Record.Image)
		assert.Equal(t, 10, status.Traffic.Canary)

		_, err = canary.Promote(t.Context(), request(t, otherImage, "run-2"))
		require.ErrorIs(t, err, stages.ErrSubjectMismatch)
		_, err = canary.Promote(t.Context(), stages.DeployRequest{Run: "run-2"})
		require.ErrorIs(t, err, stages.ErrNotCleared)
		rel, err := canary.Promote(t.Context(), request(t, newImage, "run-2"))
		require.NoError(t, err)
		assert.Equal(t, newImage, rel.Image)
		c.requireCalm(newImage)
	})
}

func TestPromoteThatFailsIsRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		killIn(t, c)
		c.doomed = true
		q := &process{cluster: c}
		_, err := q.canaryOf(parts{steps: twoSteps()}).Promote(t.Context(), request(t, newImage, "run-2"))
		var aborted *traffic.AbortError
		require.ErrorAs(t, err, &aborted)
		c.requireCalm(oldImage)
	})
}

// TestAbortOfOneThatLives has a canary aborted by another process, which only
// leaves word.
func TestAbortOfOneThatLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p, q := &process{cluster: c}, &process{cluster: c}
		time.AfterFunc(25*time.Second, func() {
			err := q.canaryOf(parts{steps: twoSteps()}).Abort(t.Context(), "the shop is on fire")
			assert.ErrorIs(t, err, stages.ErrLocked)
		})
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps(p.gate(stages.Pass))}), "run-1", newImage)
		require.ErrorIs(t, err, traffic.ErrAbortAsked)
		require.ErrorContains(t, err, "the shop is on fire")
		c.requireCalm(oldImage)
	})
}

// TestOneRunOneDelivery has two deliveries of the same run keep apart, and others of
// one process.
func TestOneRunOneDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		canary := p.canaryOf(parts{steps: twoSteps(p.gate(stages.Pass))})
		errs := make(chan error)
		req := request(t, newImage, "run-1")
		for range 2 {
			go func() {
				_, err := canary.Deploy(t.Context(), req)
				errs <- err
			}()
		}
		err := <-errs
		require.ErrorIs(t, err, stages.ErrLocked, "the second is refused at once")
		require.ErrorContains(t, err, "run run-1 is at work on the canary already")
		cp, err := canary.Checkpoint(t.Context(), stages.CheckpointRequest{Run: "run-1", Image: newImage})
		require.NoError(t, err)
		_, err = canary.Restore(t.Context(), "run-1", cp)
		require.ErrorIs(t, err, stages.ErrLocked)
		_, err = canary.Promote(t.Context(), request(t, newImage, "run-1"))
		require.ErrorIs(t, err, stages.ErrLocked)
		require.NoError(t, <-errs)
		c.requireCalm(newImage)
		require.NoError(t, canary.Close())
		_, err = canary.Deploy(t.Context(), request(t, otherImage, "run-1"))
		require.NoError(t, err, "one after the other they may")
		c.requireCalm(otherImage)
	})
}

// TestAbortFromTheSameProcess leaves word, as that of another one does.
func TestAbortFromTheSameProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		canary := p.canaryOf(parts{steps: twoSteps(p.gate(stages.Pass))})
		time.AfterFunc(25*time.Second, func() { assert.ErrorIs(t, canary.Abort(t.Context(), "the shop is on fire"), stages.ErrLocked) })
		_, err := p.deliver(t.Context(), canary, "run-1", newImage)
		require.ErrorIs(t, err, traffic.ErrAbortAsked)
		c.requireCalm(oldImage)
	})
}

// TestTakenOver has a process stop as soon as the canary is somebody else's.
func TestTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		time.AfterFunc(15*time.Second, func() {
			record, version, err := c.state.Load(t.Context())
			assert.NoError(t, err)
			record.Run, record.Holder = "run-2", "run-2 x"
			_, err = c.state.Save(t.Context(), *record, version)
			assert.NoError(t, err)
		})
		_, err := p.canaryOf(parts{steps: twoSteps(p.gate(stages.Pass))}).Deploy(t.Context(), request(t, newImage, "run-1"))
		require.ErrorIs(t, err, stages.ErrLockLost)
		require.ErrorContains(t, err, `run "run-2" has taken the canary over`)
		assert.Equal(t, 10, c.router.Weight(), "nothing was changed since")
		assert.NotContains(t, p.log, "uninstall canary")
	})
}

// TestRecordDeletedByHand has a canary aborted whose record nobody finds.
func TestRecordDeletedByHand(t *testing.T) {
	for _, died := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			p := &process{cluster: c}
			canary := p.canaryOf(parts{steps: twoSteps(p.gate(stages.Pass))})
			cp, err := canary.Checkpoint(t.Context(), stages.CheckpointRequest{Run: "run-1", Image: newImage})
			require.NoError(t, err)
			timer := time.AfterFunc(15*time.Second, func() {
				_, version, err := c.state.Load(t.Context())
				assert.NoError(t, err)
				assert.NoError(t, c.state.Delete(t.Context(), version))
				if died {
					p.die()
				}
			})
			defer timer.Stop()
			_, err = canary.Deploy(t.Context(), request(t, newImage, "run-1"))
			require.Error(t, err)
			if died {
				c.died()
				q := &process{cluster: c}
				got, err := q.canaryOf(parts{steps: twoSteps()}).Restore(t.Context(), "run-1", cp)
				require.NoError(t, err)
				require.Equal(t, stages.Restored, got.Outcome)
			}
			c.requireCalm(oldImage)
		})
	}
}

// TestUnreachableRouter keeps a canary that may still get traffic, and says so.
func TestUnreachableRouter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		p.fault = func(call string, _ int, _ bool) error {
			if call == "shift to 0" {
				return errInjected
			}
			return nil
		}
		_, err := p.canaryOf(parts{steps: twoSteps(p.gate(stages.Fail))}).Deploy(t.Context(), request(t, newImage, "run-1"))
		var aborted *traffic.AbortError
		require.ErrorAs(t, err, &aborted)
		require.ErrorIs(t, err, stages.ErrGateRefused)
		require.ErrorIs(t, err, errInjected)
		require.ErrorContains(t, err, "the canary was kept, as it may still get traffic")
		assert.Equal(t, newImage, c.canary)
		p.fault = nil
		require.NoError(t, p.canaryOf(parts{steps: twoSteps()}).Abort(t.Context(), "again"))
		c.requireCalm(oldImage)
	})
}

// both is one deployer in two roles.
type both struct {
	p *process
	stableDeployer
}

func (b *both) Uninstall(ctx context.Context, run string) (stages.Removal, error) {
	return canaryDeployer{b.p}.Uninstall(ctx, run)
}

// namesake is a canary's deployer that was given the name of the stable release.
type namesake struct {
	canaryDeployer
	stable stableDeployer
}

func (d namesake) Plan(ctx context.Context, req stages.PlanRequest) (stages.Plan, error) {
	return d.stable.Plan(ctx, req)
}

func TestCanaryNeedsANameOfItsOwn(t *testing.T) {
	c := newCluster(t)
	p := &process{cluster: c}
	canary, err := traffic.NewCanary(traffic.CanaryConfig{
		Stable: stableDeployer{p}, Canary: namesake{canaryDeployer{p}, stableDeployer{p}}, Verifiers: []stages.Verifier{verifier{p}},
		Router: processRouter{p}, State: processState{p}, Steps: twoSteps(),
	})
	require.NoError(t, err)
	_, err = canary.Deploy(t.Context(), request(t, newImage, "run-1"))
	require.ErrorIs(t, err, stages.ErrInvalid)
	require.ErrorContains(t, err, "give the canary's another name")
	c.requireCalm(oldImage)
}

func TestConfig(t *testing.T) {
	c := newCluster(t)
	p := &process{cluster: c}
	good := traffic.CanaryConfig{
		Stable: stableDeployer{p}, Canary: canaryDeployer{p}, Verifiers: []stages.Verifier{verifier{p}},
		Router: processRouter{p}, State: processState{p}, Steps: twoSteps(),
	}
	_, err := traffic.NewCanary(good)
	require.NoError(t, err)
	for problem, spoil := range map[string]func(c *traffic.CanaryConfig){
		"Stable must be a deployer":                    func(c *traffic.CanaryConfig) { c.Stable = canaryDeployer{p} },
		"Stable must be a deployer that can be locked": func(c *traffic.CanaryConfig) { c.Stable = &stagestest.Deployer{} },
		"are the same deployer": func(c *traffic.CanaryConfig) {
			both := &both{p: p}
			c.Stable, c.Canary = both, both
		},
		"Canary must be a deployer":        func(c *traffic.CanaryConfig) { c.Canary = stableDeployer{p} },
		"Router is required":               func(c *traffic.CanaryConfig) { c.Router = nil },
		"State is required":                func(c *traffic.CanaryConfig) { c.State = nil },
		"Steps are required":               func(c *traffic.CanaryConfig) { c.Steps = nil },
		"Verifiers are required":           func(c *traffic.CanaryConfig) { c.Verifiers = nil },
		"Steps[0]: Weight 0 is not from 1": func(c *traffic.CanaryConfig) { c.Steps = []traffic.Step{{}} },
		"Steps[0]: Weight 101":             func(c *traffic.CanaryConfig) { c.Steps = []traffic.Step{{Weight: 101}} },
		"Steps[1]: Weight 5 is below":      func(c *traffic.CanaryConfig) { c.Steps = []traffic.Step{{Weight: 10}, {Weight: 5}} },
		"Steps[0]: For and Extend":         func(c *traffic.CanaryConfig) { c.Steps = []traffic.Step{{Weight: 1, For: -1}} },
		"Steps[0]: a gate is nil":          func(c *traffic.CanaryConfig) { c.Steps = twoSteps(nil) },
		"Interval can't be negative":       func(c *traffic.CanaryConfig) { c.Interval = -1 },
	} {
		bad := good
		spoil(&bad)
		_, err := traffic.NewCanary(bad)
		require.ErrorIs(t, err, stages.ErrInvalid, problem)
		assert.Contains(t, err.Error(), problem)
	}
	for _, construct := range []func() error{
		func() error { _, err := traffic.NewReplicas(traffic.ReplicasConfig{}); return err },
		func() error { _, err := traffic.NewSelector(traffic.SelectorConfig{}); return err },
		func() error { _, err := traffic.NewHTTPRoute(traffic.HTTPRouteConfig{}); return err },
		func() error { _, err := traffic.NewVirtualService(traffic.VirtualServiceConfig{}); return err },
		func() error { _, err := traffic.NewNGINX(traffic.NGINXConfig{}); return err },
		func() error { _, err := traffic.NewConfigMap(traffic.ConfigMapConfig{}); return err },
	} {
		require.ErrorIs(t, construct(), stages.ErrInvalid)
	}
}

func TestRouterFuncs(t *testing.T) {
	fakeRouter := &traffictest.Router{}
	r := traffic.RouterFuncs{
		Set:     func(_ context.Context, weight int) error { fakeRouter.Set(weight); return nil },
		Get:     fakeRouter.Observe,
		Weights: []int{25, 50},
	}
	for weight, want := range map[int]int{0: 0, 1: 25, 30: 25, 60: 50, 99: 50, 100: 100} {
		got, err := r.Nearest(t.Context(), weight)
		require.NoError(t, err)
		assert.Equal(t, want, got, weight)
	}
	traffictest.TestRouter(t, func(*testing.T) traffictest.RouterHarness {
		fakeRouter.Set(0)
		return traffictest.RouterHarness{Router: r, Foreign: func(_ context.Context, weight int) error { fakeRouter.Set(weight); return nil }}
	})
	r.Weights = []int{}
	got, err := r.Nearest(t.Context(), 30)
	require.NoError(t, err)
	assert.Equal(t, 100, got, "all or nothing")
}

func FuzzDecodeRecord(f *testing.F) {
	good, err := json.Marshal(traffic.Record{Format: 1, Run: "run-1", Holder: "run-1 x", Image: stagestest.Image("a"), Phase: traffic.Watching, Step: 1, Weight: 10})
	require.NoError(f, err)
	f.Add(good)
	for _, bad := range []string{``, `{}`, `{"format":2}`, `{"format":1,"run":"a","holder":"b","image":"x","phase":"watching"}`, `[]`, `{"format":1,"weight":-1}`} {
		f.Add([]byte(bad))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		record, err := traffic.DecodeRecord(data)
		if err != nil {
			require.ErrorIs(t, err, stages.ErrInvalid)
			return
		}
		again, err := json.Marshal(record)
		require.NoError(t, err)
		same, err := traffic.DecodeRecord(again)
		require.NoError(t, err)
		require.Equal(t, record.Phase, same.Phase)
		require.LessOrEqual(t, record.Weight, 100)
	})
}

func TestAbortErrorText(t *testing.T) {
	e := &traffic.AbortError{Phase: traffic.Promoting, Cause: errors.New("why"), Left: []error{errors.New("what")}, Traffic: traffic.Split{Canary: 10}}
	assert.Equal(t, "canary aborted while promoting: why; the abort is not complete (10% to the canary, not settled): what; abort again, or deliver again, to finish it", e.Error())
}
