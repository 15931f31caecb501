package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestCanaryGetsNoRequestsBeforeItIsVerified has canaries whose chart gives them pods
// at once: they are behind the Service like those of the stable release, and must not
// be seen before the verifiers are done with them.
func TestCanaryGetsNoRequestsBeforeItIsVerified(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := stages.WithProgress(labtest.Context(t), func(p stages.Progress) { t.Logf("%s %s", p.ID, p.Message) })
	images := map[string]stages.Image{}
	for _, version := range []string{"1.0.0", "1.1.0", "1.2.0"} {
		images[version] = w.image(t, ns, version)
	}
	first, err := w.newCanary(t, ns).Deploy(ctx, bypassed(t, images["1.0.0"], "run-1"))
	require.NoError(t, err)
	_, err = w.verifiers(t, w.rest)[0].Verify(ctx, first)
	require.NoError(t, err)
	service := func() (map[string]string, map[string]string) {
		s, err := w.kube.CoreV1().Services(ns).Get(ctx, release, metav1.GetOptions{})
		require.NoError(t, err)
		return s.Spec.Selector, s.Annotations
	}
	selector, annotations := service()
	c := w.census(t, ns)
	canary := func(version string, refuse error, gates ...stages.Gate[stages.Release]) *traffic.Canary {
		parts, err := canaryParts(w.rest, ns, helmx.LockConfig{})
		require.NoError(t, err)
		parts.Canary, err = helmx.New(helmx.Config{
			Chart: chartDir, Release: canaryRelease, Namespace: ns,
			Values:     helmx.Values{Map: map[string]any{"replicaCount": 2, "service": map[string]any{"canary": true}}},
			Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
			Kubernetes: helmx.Kubernetes{REST: w.rest},
		})
		require.NoError(t, err)
		parts.Verifiers = append(parts.Verifiers, stages.VerifierFunc(func(ctx context.Context, rel stages.Release) (stages.Verification, error) {
			verification := stages.Verification{Image: rel.Image, Checks: []stages.Check{{Name: "guests"}}}
			if rel.Name != canaryRelease || c.now()["shop "+version] > 0 {
				return verification, nil // Of a later look.
			}
			before := total(c.now())
			require.Eventually(t, func() bool { return total(c.now()) >= before+100 }, time.Minute, 50*time.Millisecond)
			assert.Zero(t, c.now()["shop "+version], "its pods are ready, and nobody has seen them")
			return verification, refuse
		}))
		parts.Steps[1].Gates = gates
		out, err := traffic.NewCanary(parts)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, out.Close()) })
		return out
	}
	requireAsBefore := func() {
		t.Helper()
		nowSelects, noted := service()
		assert.Equal(t, selector, nowSelects, "the Service selects as the chart says")
		assert.Equal(t, annotations, noted)
	}

	_, err = canary("1.1.0", nil, c.gate(stages.Pass, "shop 1.0.0", "shop 1.1.0")).Deploy(ctx, bypassed(t, images["1.1.0"], "run-2"))
	require.NoError(t, err)
	assert.Positive(t, c.now()["shop 1.1.0"])
	requireAsBefore()

	_, err = canary("1.2.0", stages.ErrNotReady).Deploy(ctx, bypassed(t, images["1.2.0"], "run-3"))
	require.ErrorIs(t, err, stages.ErrNotReady)
	w.requirePage(t, ns, "1.1.0")
	assert.Zero(t, c.now()["shop 1.2.0"], "it never was")
	requireAsBefore()
	c.requireUnharmed(t)
}

func total(served map[string]int) (n int) {
	for _, count := range served {
		n += count
	}
	return n
}
