package traffic_test

import (
	"context"
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

func TestCanaryConforms(t *testing.T) {
	stagestest.TestDeployer(t, func(t *testing.T) stagestest.DeployerHarness {
		c := &cluster{t: t}
		p := &process{cluster: c}
		canary, err := traffic.NewCanary(traffic.CanaryConfig{
			Stable: stableDeployer{p}, Canary: canaryDeployer{p}, Verifiers: []stages.Verifier{verifier{p}},
			Router: processRouter{p}, State: processState{p}, Steps: []traffic.Step{{Weight: 50}}, Drain: -1,
		})
		require.NoError(t, err)
		return stagestest.DeployerHarness{Deployer: canary, First: oldImage, Second: newImage, State: c.stable.State}
	})
}

func TestFakesConform(t *testing.T) {
	traffictest.TestRouter(t, func(*testing.T) traffictest.RouterHarness {
		r := &traffictest.Router{Lag: 3}
		return traffictest.RouterHarness{Router: r, Foreign: func(_ context.Context, weight int) error { r.Set(weight); return nil }}
	})
	traffictest.TestState(t, func(*testing.T) (one, other traffic.State) {
		s := &traffictest.State{}
		return s, s
	})
}

func TestPromotion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		began := time.Now()
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps(p.gate(stages.Inconclusive, stages.Inconclusive, stages.Pass))}), "run-1", newImage)
		require.NoError(t, err)
		c.requireCalm(newImage)
		inOrder(t, p.log, "save deploying", "deploy canary", "verify canary", "save shifting", "shift to 10", "save watching", "gate",
			"save shifting", "shift to 50", "save watching", "gate", "save promoting", "deploy stable", "verify fake", "save returning",
			"shift to 0", "save removing", "uninstall canary", "delete")
		assert.GreaterOrEqual(t, time.Since(began), 40*time.Second, "each step takes its time")
	})
}

func TestAborts(t *testing.T) {
	for name, tt := range map[string]struct {
		gate    []stages.Verdict
		extend  time.Duration
		upset   func(c *cluster)
		after   time.Duration
		class   error
		step    int
		touched bool
		within  time.Duration
	}{
		"a breach at the first look": {gate: []stages.Verdict{stages.Fail}, class: stages.ErrGateRefused, step: 1, within: 10 * time.Second},
		"a breach in the second step": {gate: []stages.Verdict{stages.Pass, stages.Pass, stages.Pass, stages.Pass, stages.Fail, stages.Pass},
			class: stages.ErrGateRefused, step: 2, within: 40 * time.Second},
		"a gate that never decides": {gate: []stages.Verdict{stages.Inconclusive}, class: stages.ErrInconclusive, step: 1, within: 30 * time.Second},
		"a gate that never decides, with patience": {gate: []stages.Verdict{stages.Inconclusive}, extend: time.Minute,
			class: stages.ErrInconclusive, step: 1, within: 100 * time.Second},
		"a canary that never runs":      {upset: func(c *cluster) { c.sick = true }, step: 0, within: 10 * time.Second},
		"a canary that fails in a step": {upset: func(c *cluster) { c.sick = true }, after: 5 * time.Second, step: 1, within: 20 * time.Second},
		"weights that somebody changes": {upset: func(c *cluster) { c.router.Set(77) }, after: 5 * time.Second, step: 1, within: 20 * time.Second},
		"a promotion that does not run": {upset: func(c *cluster) { c.doomed = true }, step: 2, touched: true, within: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				p := &process{cluster: c}
				if tt.gate == nil {
					tt.gate = []stages.Verdict{stages.Pass}
				}
				if tt.upset != nil {
					timer := time.AfterFunc(tt.after, func() { c.mu.Lock(); defer c.mu.Unlock(); tt.upset(c) })
					defer timer.Stop()
					synctest.Wait()
				}
				steps := twoSteps(p.gate(tt.gate...))
				steps[0].Extend = tt.extend
				began := time.Now()
				_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: steps}), "run-1", newImage)
				c.requireCalm(oldImage)
				var aborted *traffic.AbortError
				require.ErrorAs(t, err, &aborted)
				assert.Equal(t, tt.step, aborted.Step)
				assert.Equal(t, "run-1", aborted.Run)
				assert.Empty(t, aborted.Left)
				assert.Zero(t, aborted.Traffic.Canary)
				assert.Contains(t, err.Error(), "all traffic is on the stable release, the canary is removed")
				assert.LessOrEqual(t, time.Since(began), tt.within)
				if tt.class != nil {
					require.ErrorIs(t, err, tt.class)
					assert.Contains(t, err.Error(), "5% of the requests fail")
				}
				if tt.touched {
					require.NotNil(t, aborted.Stable)
					inOrder(t, p.log, "save aborting", "restore stable", "shift to 0", "uninstall canary")
				} else {
					assert.NotContains(t, p.log, "deploy stable")
					inOrder(t, p.log, "save aborting", "shift to 0", "uninstall canary", "delete")
				}
				if c.sick || tt.class != nil || c.doomed {
					assert.NotEmpty(t, stages.EvidenceOf(err))
				}
			})
		})
	}
}

func TestCancelAborts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		time.AfterFunc(30*time.Second, func() { cancel(enough) })
		_, err := p.deliver(ctx, p.canaryOf(parts{steps: twoSteps(p.gate(stages.Pass))}), "run-1", newImage)
		require.ErrorIs(t, err, enough)
		c.requireCalm(oldImage)
	})
}

func TestNoCanaryIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t}
		p := &process{cluster: c}
		canary := p.canaryOf(parts{steps: twoSteps(p.gate(stages.Fail))})
		_, err := p.deliver(t.Context(), canary, "run-1", newImage)
		require.NoError(t, err, "a first install")
		_, err = p.deliver(t.Context(), canary, "run-2", newImage)
		require.NoError(t, err, "the same image again")
		assert.NotContains(t, p.log, "deploy canary")
		c.requireCalm(newImage)
	})
}

func TestForeignWeightIsRefusedAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.router.Set(20)
		p := &process{cluster: c}
		_, err := p.canaryOf(parts{steps: twoSteps()}).Deploy(t.Context(), request(t, newImage, "run-1"))
		var changed *traffic.ChangedError
		require.ErrorAs(t, err, &changed)
		assert.Equal(t, 20, c.router.Weight(), "nothing was changed")
		assert.NotContains(t, p.log, "deploy canary")
	})
}
