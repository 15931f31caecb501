package traffic_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
)

var shared = map[string]string{"app": "shop"}

func (k *kube) service(t *testing.T) *corev1.Service {
	t.Helper()
	s, err := k.typed.CoreV1().Services(ns).Get(t.Context(), "shop", metav1.GetOptions{})
	require.NoError(t, err)
	return s
}

// follow does what controllers do, by the Service's selector as it is.
func (k *kube) follow(t *testing.T) {
	t.Helper()
	replicas, err := k.replicas(t.Context())
	require.NoError(t, err)
	require.NoError(t, k.run(t.Context(), replicas, k.service(t).Spec.Selector))
}

// TestReplicasIsolate checks that a canary's pods get no request before their first
// weight, and then are as many as that takes, whatever their chart says.
func TestReplicasIsolate(t *testing.T) {
	for _, tt := range []struct {
		of, chart             int32
		weight, nearest       int
		wantStable, wantCanry int64
	}{
		{of: 2, chart: 2, weight: 10, nearest: 33, wantStable: 2, wantCanry: 1},
		{of: 10, chart: 10, weight: 10, nearest: 9, wantStable: 10, wantCanry: 1},
		{of: 10, chart: 1, weight: 50, nearest: 50, wantStable: 10, wantCanry: 10},
		{of: 4, chart: 0, weight: 50, nearest: 50, wantStable: 4, wantCanry: 4},
		{of: 4, chart: 7, weight: 100, nearest: 100, wantStable: 0, wantCanry: 4},
		{of: 4, chart: 7, weight: 0, nearest: 0, wantStable: 4, wantCanry: 0},
	} {
		k, r := newReplicas(t, tt.of, 0)
		k.follow(t)
		require.NoError(t, r.Isolate(t.Context(), nil))
		require.NoError(t, r.Isolate(t.Context(), nil), "again")
		require.NoError(t, k.edit(t.Context(), deployments, "shop-canary", func(o *unstructured.Unstructured) error {
			return unstructured.SetNestedField(o.Object, int64(tt.chart), "spec", "replicas")
		}))
		k.follow(t)
		split, err := r.Observe(t.Context())
		require.NoError(t, err)
		assert.Zero(t, split.Canary)
		assert.True(t, split.Settled, split)
		require.Contains(t, split.Detail, "0 of")

		nearest, err := r.Nearest(t.Context(), tt.weight)
		require.NoError(t, err)
		require.Equal(t, tt.nearest, nearest)
		for range 10 {
			err = r.Shift(t.Context(), 0, nearest)
			k.follow(t)
			if split, seen := r.Observe(t.Context()); seen == nil && nearest < 100 {
				assert.LessOrEqual(t, split.Canary, nearest)
			}
		}
		require.NoError(t, err)
		split, err = r.Observe(t.Context())
		require.NoError(t, err)
		assert.Equal(t, nearest, split.Canary)
		assert.True(t, split.Settled, split)
		replicas, err := k.replicas(t.Context())
		require.NoError(t, err)
		assert.Equal(t, map[string]int64{"shop": tt.wantStable, "shop-canary": tt.wantCanry}, replicas)
		assert.Equal(t, shared, k.service(t).Spec.Selector)
		assert.Empty(t, k.service(t).Annotations)
	}
}

// TestIsolationEnds checks that an abort leaves the Service as it was, with a canary
// or without, and that it never leads to pods that were not verified.
func TestIsolationEnds(t *testing.T) {
	k, r := newReplicas(t, 2, 0)
	k.follow(t)
	require.NoError(t, r.Isolate(t.Context(), nil))
	require.NoError(t, k.edit(t.Context(), deployments, "shop-canary", func(o *unstructured.Unstructured) error {
		return unstructured.SetNestedField(o.Object, int64(3), "spec", "replicas")
	}))
	k.follow(t)
	require.ErrorContains(t, r.Shift(t.Context(), traffic.Any, 0), "3 pods of shop-canary are ready")
	require.NotEqual(t, shared, k.service(t).Spec.Selector, "they would get requests")
	k.follow(t)
	require.NoError(t, r.Shift(t.Context(), traffic.Any, 0))
	require.Equal(t, shared, k.service(t).Spec.Selector)

	require.NoError(t, r.Isolate(t.Context(), nil))
	require.NoError(t, k.dynamic.Resource(deployments).Namespace(ns).Delete(t.Context(), "shop-canary", metav1.DeleteOptions{}))
	k.follow(t)
	require.NoError(t, r.Shift(t.Context(), traffic.Any, 0))
	require.Equal(t, shared, k.service(t).Spec.Selector)
	require.Empty(t, k.service(t).Annotations)
}

// TestIsolationIsNotForeign checks that a Service that somebody has opened is told
// as such, and that one can still be isolated while its canary has traffic for long.
func TestIsolationIsNotForeign(t *testing.T) {
	k, r := newReplicas(t, 2, 2)
	require.NoError(t, r.Isolate(t.Context(), nil))
	_, err := k.typed.CoreV1().Services(ns).Update(t.Context(), service(shared), metav1.UpdateOptions{})
	require.NoError(t, err)
	k.follow(t)
	split, err := r.Observe(t.Context())
	require.NoError(t, err)
	require.Equal(t, 50, split.Canary)
	var changed *traffic.ChangedError
	require.ErrorAs(t, r.Shift(t.Context(), 0, 33), &changed)

}

// TestIsolationOfALoweredRelease checks that a canary is isolated where the stable
// release has few pods left: at once if those do all the work, and otherwise when it
// has them all again.
func TestIsolationOfALoweredRelease(t *testing.T) {
	k, r := newReplicas(t, 4, 0)
	for range 3 {
		_ = r.Shift(t.Context(), traffic.Any, 80)
		k.follow(t)
	}
	require.ErrorContains(t, r.Isolate(t.Context(), nil), "1 of 4 pods of shop are ready")
	require.Equal(t, shared, k.service(t).Spec.Selector, "what is left of the stable release can't do all the work")
	k.follow(t)
	require.NoError(t, r.Isolate(t.Context(), nil))
	k.follow(t)
	replicas, err := k.replicas(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"shop": 4, "shop-canary": 4}, replicas)
	split, err := r.Observe(t.Context())
	require.NoError(t, err)
	require.Zero(t, split.Canary)
	require.True(t, split.Settled, split)

	k, r = newReplicas(t, 4, 0)
	for range 3 {
		_ = r.Shift(t.Context(), traffic.Any, 80)
		k.follow(t)
	}
	require.NoError(t, k.dynamic.Resource(deployments).Namespace(ns).Delete(t.Context(), "shop-canary", metav1.DeleteOptions{}))
	k.follow(t)
	require.NoError(t, r.Isolate(t.Context(), nil))
	require.Equal(t, podLabels("shop"), k.service(t).Spec.Selector, "one that is deployed anew would get requests")
	_, err = k.dynamic.Resource(deployments).Namespace(ns).Create(t.Context(), generic(t, deployment("shop-canary", 1)), metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, k.run(t.Context(), map[string]int64{"shop": 1, "shop-canary": 1}, podLabels("shop")))
	require.ErrorContains(t, r.Shift(t.Context(), 0, 20), "1 of 4 pods of shop are ready")
	require.Equal(t, podLabels("shop"), k.service(t).Spec.Selector, "it would get half of all requests")
	k.follow(t)
	require.NoError(t, r.Shift(t.Context(), 0, 20))
	require.Equal(t, shared, k.service(t).Spec.Selector)
}

// TestOnlyReadyCanariesAreAdmitted has a canary that has the right number of replicas
// from an earlier run, and not as many pods that are ready.
func TestOnlyReadyCanariesAreAdmitted(t *testing.T) {
	k, r := newReplicas(t, 4, 4)
	require.NoError(t, k.run(t.Context(), map[string]int64{"shop": 4}, shared))
	require.NoError(t, r.Isolate(t.Context(), nil))
	require.NoError(t, k.run(t.Context(), map[string]int64{"shop": 4, "shop-canary": 3}, podLabels("shop")))
	require.ErrorContains(t, r.Shift(t.Context(), 0, 50), "3 pods of shop-canary are ready, and 4 are to get requests")
	require.Equal(t, podLabels("shop"), k.service(t).Spec.Selector)
	k.follow(t)
	require.NoError(t, r.Shift(t.Context(), 0, 50))
	require.Equal(t, shared, k.service(t).Spec.Selector)
	require.NoError(t, k.run(t.Context(), map[string]int64{"shop": 4, "shop-canary": 3}, shared))
	split, err := r.Observe(t.Context())
	require.NoError(t, err)
	require.False(t, split.Settled)
}

// TestIsolationOfOneThatLooksAlike plans a canary whose pods the narrowed Service would
// select as well.
func TestIsolationOfOneThatLooksAlike(t *testing.T) {
	k, r := newReplicas(t, 4, 0)
	require.NoError(t, k.dynamic.Resource(deployments).Namespace(ns).Delete(t.Context(), "shop-canary", metav1.DeleteOptions{}))
	k.follow(t)
	planned := func(canary map[string]string) []byte {
		d := deployment("shop-canary", 1)
		d.Namespace, d.Spec.Template.Labels = "", canary
		d.Spec.Selector.MatchLabels = map[string]string{"track": canary["track"]}
		other := deployment("unconcerned", 1)
		var out []byte
		for _, o := range []any{service(shared), other, d} {
			data, err := yaml.Marshal(o)
			require.NoError(t, err)
			out = append(append(out, "---\n"...), data...)
		}
		return out
	}
	alike := map[string]string{"app": "shop", "app.kubernetes.io/instance": "shop", "track": "canary"}
	requireOdd(t, r.Isolate(t.Context(), planned(alike)), "Deployment shop/shop-canary: its pods can't be told from those of shop")
	requireOdd(t, r.Isolate(t.Context(), planned(map[string]string{"app": "other"})), "which the pods of shop-canary are not")
	// A Service has no expressions to leave it out by.
	require.NoError(t, k.edit(t.Context(), deployments, "shop", func(o *unstructured.Unstructured) error {
		out := []any{map[string]any{"key": "track", "operator": "NotIn", "values": []any{"canary"}}}
		return unstructured.SetNestedSlice(o.Object, out, "spec", "selector", "matchExpressions")
	}))
	requireOdd(t, r.Isolate(t.Context(), planned(alike)), "Deployment shop/shop-canary: its pods can't be told from those of shop")
	require.Equal(t, shared, k.service(t).Spec.Selector)
	require.NoError(t, r.Isolate(t.Context(), planned(podLabels("shop-canary"))))
	require.Equal(t, podLabels("shop"), k.service(t).Spec.Selector)
}
