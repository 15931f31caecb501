package e2e_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestCanary promotes a good release and takes a bad one back, with real pods
// behind a Service.
func TestCanary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := stages.WithProgress(labtest.Context(t), func(p stages.Progress) { t.Logf("%s %s", p.ID, p.Message) })
	images := map[string]stages.Image{}
	for _, version := range []string{"1.0.0", "1.1.0", "1.2.0"} {
		img, err := w.builder(t, ns).Build(ctx, source(version))
		require.NoError(t, err)
		images[version] = img
	}
	first, err := w.newCanary(t, ns).Deploy(ctx, bypassed(t, images["1.0.0"], "run-1"))
	require.NoError(t, err, "the first install needs no canary")
	_, err = w.verifiers(t, w.rest)[0].Verify(ctx, first)
	require.NoError(t, err)
	c := w.census(t, ns)

	t.Run("is promoted", func(t *testing.T) {
		gate := c.gate(stages.Pass, "shop 1.0.0", "shop 1.1.0")
		began := time.Now()
		rel, err := w.newCanary(t, ns, gate).Deploy(ctx, bypassed(t, images["1.1.0"], "run-2"))
		require.NoError(t, err)
		assert.Equal(t, images["1.1.0"], rel.Image)
		assert.Equal(t, release, rel.Name)
		t.Logf("promoted within %s; in the step of 50%%: %v", time.Since(began).Round(100*time.Millisecond), gate.seen)
		share := float64(gate.seen["shop 1.1.0"]) / float64(gate.seen["shop 1.0.0"]+gate.seen["shop 1.1.0"])
		assert.InDelta(t, 0.5, share, 0.15, "the share of requests that the canary served")
		w.requireNoCanary(t, w.newCanary(t, ns), ns, "1.1.0", images["1.1.0"])
	})
	t.Run("is aborted by a breach", func(t *testing.T) {
		gate := c.gate(stages.Fail, "shop 1.1.0", "shop 1.2.0")
		_, err := w.newCanary(t, ns, gate).Deploy(ctx, bypassed(t, images["1.2.0"], "run-3"))
		aborted := requireAborted(t, err)
		assert.Equal(t, 2, aborted.Step)
		assert.Equal(t, 50, aborted.Weight)
		w.requireNoCanary(t, w.newCanary(t, ns), ns, "1.1.0", images["1.1.0"])
		before := c.now()["shop 1.2.0"]
		assert.Positive(t, before, "the canary had traffic")
		w.requirePage(t, ns, "1.1.0")
		assert.Equal(t, before, c.now()["shop 1.2.0"], "nobody sees it any more")
	})
	t.Run("is aborted as its pods fail", func(t *testing.T) {
		img, err := w.builder(t, ns).Build(ctx, source("1.3.0", crashing))
		require.NoError(t, err)
		_, err = w.newCanary(t, ns).Deploy(ctx, bypassed(t, img, "run-4"))
		var aborted *traffic.AbortError
		require.ErrorAs(t, err, &aborted)
		t.Log(err)
		assert.Empty(t, aborted.Left)
		assert.Zero(t, c.now()["shop 1.3.0"])
		w.requireNoCanary(t, w.newCanary(t, ns), ns, "1.1.0", images["1.1.0"])
	})
	c.requireUnharmed(t)
}

// TestBlueGreen switches a Service over, and back at once when the new colour is
// bad.
func TestBlueGreen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	parts, err := twoReleases(w.rest, ns, helmx.LockConfig{}, map[string]any{"replicaCount": stableReplicas},
		map[string]any{"replicaCount": stableReplicas, "service": map[string]any{"canary": true}})
	require.NoError(t, err)
	parts.Router, err = traffic.NewSelector(traffic.SelectorConfig{REST: w.rest, Namespace: ns, Service: release, Stable: release, Canary: canaryRelease})
	require.NoError(t, err)
	deliver := func(version string, gates ...stages.Gate[stages.Release]) error {
		img, err := w.builder(t, ns).Build(ctx, source(version))
		require.NoError(t, err)
		parts.Steps = []traffic.Step{{Weight: 100, For: 2 * time.Second, Extend: 30 * time.Second, Gates: gates}}
		c, err := traffic.NewCanary(parts)
		require.NoError(t, err)
		rel, err := c.Deploy(ctx, bypassed(t, img, version))
		if err == nil {
			_, err = w.verifiers(t, w.rest)[0].Verify(ctx, rel)
		}
		return err
	}
	require.NoError(t, deliver("1.0.0"))
	c := w.census(t, ns)
	promoted := c.gate(stages.Pass, "shop 1.0.0", "shop 1.1.0")
	require.NoError(t, deliver("1.1.0", promoted))
	t.Logf("in the step of 100%%: %v", promoted.seen)
	w.requirePage(t, ns, "1.1.0")
	require.ErrorIs(t, deliver("1.2.0", c.gate(stages.Fail, "shop 1.1.0", "shop 1.2.0")), stages.ErrGateRefused)
	w.requirePage(t, ns, "1.1.0")
	c.requireUnharmed(t)
	assert.Positive(t, c.served["shop 1.2.0"], "the new colour had all the traffic")
}
