package preview_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/helmx/preview"
)

func number(n int) preview.PullRequest {
	return preview.PullRequest{Repository: "acme/shop", Number: n}
}

// outcomes returns the outcome by pull request, or by namespace if that isn't known.
func outcomes(swept []preview.Swept) map[any]preview.Outcome {
	out := map[any]preview.Outcome{}
	for _, s := range swept {
		if s.PullRequest.Number > 0 {
			out[s.PullRequest.Number] = s.Outcome
		} else {
			out[s.Namespace] = s.Outcome
		}
	}
	return out
}

func TestSweep(t *testing.T) {
	c := newCluster(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}},
		// As helmx labels a namespace that it makes.
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{preview.LabelManagedBy: "fairlead", "fairlead.dev/run": "1"}}},
	)
	p := c.previews(t)
	create(t, p, number(1))
	unclear := create(t, p, number(2)).Namespace
	c.edit(t, unclear, func(ns *corev1.Namespace) { ns.Annotations[preview.AnnotationExpires] = "soon" })
	other := create(t, c.previews(t, func(cfg *preview.Config) { cfg.Prefix = "other" }), number(3)).Namespace
	// Somebody copied a preview's labels and annotations.
	original, err := c.find(create(t, p, number(4)).Namespace)
	require.NoError(t, err)
	_, err = c.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "precious", Labels: original.Labels, Annotations: original.Annotations,
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	c.now = noon.Add(preview.DefaultTTL)
	create(t, p, number(5))

	want := map[any]preview.Outcome{1: preview.Expired, 2: preview.Unclear, other: preview.Foreign, 4: preview.Expired, "precious": preview.Foreign, 5: preview.Alive}
	before := c.writes()
	swept, err := p.Sweep(t.Context(), preview.SweepOptions{DryRun: true})
	require.NoError(t, err)
	assert.Equal(t, want, outcomes(swept))
	assert.Equal(t, before, c.writes(), "a dry run changed something")

	want[1], want[4] = preview.Removed, preview.Removed
	swept, err = p.Sweep(t.Context(), preview.SweepOptions{})
	require.NoError(t, err)
	assert.Equal(t, want, outcomes(swept))
	for _, name := range []string{"kube-system", "shop", "precious", unclear, other} {
		_, err := c.find(name)
		assert.NoError(t, err, "%s is not ours to remove", name)
	}
	left, err := p.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, left, 2)
}

func TestSweepLeavesWhatIsRenewed(t *testing.T) {
	c := newCluster()
	p := c.previews(t)
	name := create(t, p, number(1)).Namespace
	c.now = noon.Add(preview.DefaultTTL)
	c.PrependReactor("delete", "namespaces", func(clienttesting.Action) (bool, runtime.Object, error) {
		c.edit(t, name, func(ns *corev1.Namespace) { ns.Annotations[preview.AnnotationExpires] = "2030-01-01T00:00:00Z" })
		return false, nil, nil
	})
	swept, err := p.Sweep(t.Context(), preview.SweepOptions{})
	require.NoError(t, err)
	assert.Equal(t, map[any]preview.Outcome{1: preview.Renewed}, outcomes(swept))
	left, err := p.List(t.Context())
	require.NoError(t, err)
	assert.Len(t, left, 1)
}

// TestSweepWaitsForAllAtATime: those that hang don't add up.
func TestSweepWaitsForAllAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		p := c.previews(t)
		for n := range 3 {
			c.holds[create(t, p, number(n+1)).Namespace] = true
		}
		c.now = noon.Add(preview.DefaultTTL)
		start := time.Now()
		swept, err := p.Sweep(t.Context(), preview.SweepOptions{})
		require.Error(t, err)
		assert.Equal(t, map[any]preview.Outcome{1: preview.Failed, 2: preview.Failed, 3: preview.Failed}, outcomes(swept))
		assert.LessOrEqual(t, time.Since(start), preview.DefaultTimeout+time.Minute)
	})
}

func TestSweepGoesOnPastFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		p := c.previews(t)
		refused, hanging := create(t, p, number(1)).Namespace, create(t, p, number(2)).Namespace
		create(t, p, number(3))
		c.now = noon.Add(preview.DefaultTTL)
		c.holds[hanging] = true
		problem := errors.New("the API server is tired")
		c.PrependReactor("delete", "namespaces", func(action clienttesting.Action) (bool, runtime.Object, error) {
			return action.(clienttesting.DeleteAction).GetName() == refused, nil, problem
		})
		start := time.Now()
		swept, err := p.Sweep(t.Context(), preview.SweepOptions{})
		require.ErrorIs(t, err, problem)
		var stuck *preview.StuckError
		require.ErrorAs(t, err, &stuck)
		assert.Equal(t, map[any]preview.Outcome{1: preview.Failed, 2: preview.Failed, 3: preview.Removed}, outcomes(swept))
		assert.LessOrEqual(t, time.Since(start), preview.DefaultTimeout+time.Minute)

		c.Clientset.PrependReactor("list", "namespaces", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, problem })
		_, err = p.Sweep(t.Context(), preview.SweepOptions{})
		require.ErrorIs(t, err, problem)
		_, err = p.List(t.Context())
		require.ErrorIs(t, err, problem)
	})
}
