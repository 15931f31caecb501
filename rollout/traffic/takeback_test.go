package traffic_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// editBackends changes the backends of one rule of a route.
func editBackends(o *unstructured.Unstructured, list, sub string, rule int, change func(backends []any) []any) error {
	rules, _, err := unstructured.NestedSlice(o.Object, "spec", list)
	if err != nil {
		return err
	}
	r := rules[rule].(map[string]any)
	r[sub] = change(r[sub].([]any))
	return unstructured.SetNestedSlice(o.Object, rules, "spec", list)
}

// requireTakenBack checks that all traffic can be taken from a canary, and that
// none can be given to it.
func requireTakenBack(t *testing.T, r traffic.Router, problem string) {
	t.Helper()
	_, err := r.Observe(t.Context())
	requireOdd(t, err, problem)
	require.NoError(t, r.Shift(t.Context(), traffic.Any, 0))
	split, err := r.Observe(t.Context())
	require.NoError(t, err)
	assert.Zero(t, split.Canary)
	assert.False(t, split.Uneven)
}

// TestOddRoutesGiveTrafficBack has somebody change a route during a canary.
func TestOddRoutesGiveTrafficBack(t *testing.T) {
	for problem, change := range map[string]func(other any, backends []any) []any{
		"sends to the stable release, and not to the canary": func(_ any, backends []any) []any { return backends[:1] },
		"sends to the canary, and not to the stable release": func(_ any, backends []any) []any { return backends[1:] },
		"names a backend twice":                              func(_ any, backends []any) []any { return append(backends, backends[1]) },
		"has the weights 0 and 0": func(_ any, backends []any) []any {
			for _, b := range backends {
				b.(map[string]any)["weight"] = int64(0)
			}
			return backends
		},
		"sends to other backends, too": func(other any, backends []any) []any { return append(backends, other) },
	} {
		k, r := newHTTPRoute(t, route)
		require.NoError(t, r.Shift(t.Context(), 0, 10))
		require.NoError(t, k.edit(t.Context(), httpRoutes, "shop", func(o *unstructured.Unstructured) error {
			return editBackends(o, "rules", "backendRefs", 1, func(b []any) []any {
				return change(map[string]any{"name": "old", "weight": int64(5)}, b)
			})
		}))
		requireTakenBack(t, r, problem)

		k, v := newVirtualService(t, virtual)
		require.NoError(t, v.Shift(t.Context(), 0, 10))
		require.NoError(t, k.edit(t.Context(), virtualServices, "shop", func(o *unstructured.Unstructured) error {
			return editBackends(o, "http", "route", 1, func(b []any) []any {
				return change(map[string]any{"destination": map[string]any{"host": "old"}, "weight": int64(5)}, b)
			})
		}))
		requireTakenBack(t, v, problem)
	}
}

func TestOneRuleWithLessIsUneven(t *testing.T) {
	k, r := newHTTPRoute(t, route)
	require.NoError(t, r.Shift(t.Context(), 0, 10))
	require.NoError(t, k.edit(t.Context(), httpRoutes, "shop", func(o *unstructured.Unstructured) error {
		return reweigh(o, "rules", "backendRefs", map[[2]int]int64{{1, 1}: 0})
	}))
	split, err := r.Observe(t.Context())
	require.NoError(t, err)
	assert.True(t, split.Uneven)

	k, v := newVirtualService(t, virtual)
	require.NoError(t, v.Shift(t.Context(), 0, 10))
	require.NoError(t, k.edit(t.Context(), virtualServices, "shop", func(o *unstructured.Unstructured) error {
		return reweigh(o, "http", "route", map[[2]int]int64{{1, 1}: 0})
	}))
	split, err = v.Observe(t.Context())
	require.NoError(t, err)
	assert.True(t, split.Uneven)
}

// TestSelectorMindsOtherComponents doesn't take a ready database for a release
// that can serve.
func TestSelectorMindsOtherComponents(t *testing.T) {
	k := newKube(generic(t, service(podLabels("shop"))))
	r, err := traffic.SelectorOn(k.typed, k.dynamic, traffic.SelectorConfig{Namespace: ns, Service: "shop", Stable: "shop", Canary: "shop-canary"})
	require.NoError(t, err)
	_, err = k.typed.CoreV1().Pods(ns).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "redis", Labels: map[string]string{"app": "redis", "app.kubernetes.io/instance": "shop-canary"}},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.ErrorContains(t, r.Shift(t.Context(), 0, 100), "is ready to take the traffic yet")
}

// TestSelectorGivesTrafficBack has somebody change the Service, which the canary has.
func TestSelectorGivesTrafficBack(t *testing.T) {
	for _, selector := range []map[string]string{{"app": "shop", traffic.DefaultSelectorKey: "other"}, {"app": "shop"}, nil} {
		k := newKube(generic(t, service(selector)))
		require.NoError(t, k.run(t.Context(), map[string]int64{"shop": 1, "shop-canary": 1}, nil))
		r, err := traffic.SelectorOn(k.typed, k.dynamic, traffic.SelectorConfig{Namespace: ns, Service: "shop", Stable: "shop", Canary: "shop-canary"})
		require.NoError(t, err)
		_, err = r.Observe(t.Context())
		requireOdd(t, err, "which is neither release")
		requireOdd(t, r.Shift(t.Context(), traffic.Any, 100), "which is neither release")
		require.NoError(t, r.Shift(t.Context(), traffic.Any, 0))
		require.NoError(t, k.run(t.Context(), map[string]int64{"shop": 1, "shop-canary": 1}, podLabels("shop")))
		split, err := r.Observe(t.Context())
		require.NoError(t, err)
		assert.Zero(t, split.Canary)
		assert.True(t, split.Settled)
	}
}

// TestReplicasGiveTrafficBack has somebody scale the stable release to nothing, with
// a note of what it had and without, or take the canary out of the Service.
func TestReplicasGiveTrafficBack(t *testing.T) {
	for _, tt := range []struct {
		weight   int
		zero     bool
		selector map[string]string
		want     int64
	}{
		{weight: 80, zero: true, selector: map[string]string{"app": "shop"}, want: 4},
		{weight: 50, zero: true, selector: map[string]string{"app": "shop"}, want: 4},
		{weight: 20, zero: true, selector: map[string]string{"app": "shop"}, want: 1},
		{weight: 50, selector: podLabels("shop"), want: 4},
	} {
		k, r := newReplicas(t, 4, 0)
		settle := func() {
			replicas, err := k.replicas(t.Context())
			require.NoError(t, err)
			require.NoError(t, k.run(t.Context(), replicas, tt.selector))
		}
		for range 10 {
			_ = r.Shift(t.Context(), 0, tt.weight)
			require.NoError(t, k.settleReplicas(t.Context()))
		}
		if tt.zero {
			require.NoError(t, k.edit(t.Context(), deployments, "shop", func(o *unstructured.Unstructured) error {
				return unstructured.SetNestedField(o.Object, int64(0), "spec", "replicas")
			}))
		}
		_, err := k.typed.CoreV1().Services(ns).Update(t.Context(), service(tt.selector), metav1.UpdateOptions{})
		require.NoError(t, err)
		for range 10 {
			settle()
			_ = r.Shift(t.Context(), traffic.Any, 0)
		}
		now, err := k.replicas(t.Context())
		require.NoError(t, err)
		assert.Equal(t, map[string]int64{"shop": tt.want, "shop-canary": 0}, now)
	}
}

// TestReplicasShrinkTheCanaryLast checks that the pods of the stable release are
// there before the canary's go, and that one that never comes holds up nothing.
func TestReplicasShrinkTheCanaryLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, r := newReplicas(t, 4, 0)
		to := func(from, weight int) {
			for range 10 {
				_ = r.Shift(t.Context(), from, weight)
				require.NoError(t, k.settleReplicas(t.Context()))
			}
		}
		to(0, 80)
		require.NoError(t, k.run(t.Context(), map[string]int64{"shop": 1, "shop-canary": 4}, map[string]string{"app": "shop"}))
		for range 20 {
			require.ErrorContains(t, r.Shift(t.Context(), traffic.Any, 0), "1 of 4 pods of shop are ready")
			time.Sleep(time.Second)
		}
		now, err := k.replicas(t.Context())
		require.NoError(t, err)
		assert.Equal(t, map[string]int64{"shop": 4, "shop-canary": 4}, now)
		time.Sleep(10 * time.Second)
		require.NoError(t, r.Shift(t.Context(), traffic.Any, 0))
		now, err = k.replicas(t.Context())
		require.NoError(t, err)
		assert.Equal(t, map[string]int64{"shop": 4, "shop-canary": 0}, now)
	})
}

// TestNGINXGivesTrafficBack has Ingresses change while the canary has traffic.
func TestNGINXGivesTrafficBack(t *testing.T) {
	for name, change := range map[string]func(ctx context.Context, client *fake.Clientset) error{
		"the upgrade has another path": func(ctx context.Context, client *fake.Clientset) error {
			_, err := client.NetworkingV1().Ingresses(ns).Update(ctx, ingress("shop", "shop", nil, "/", "/new"), metav1.UpdateOptions{})
			return err
		},
		"there is another canary": func(ctx context.Context, client *fake.Clientset) error {
			_, err := client.NetworkingV1().Ingresses(ns).Create(ctx, ingress("rival", "rival", map[string]string{annotation + "canary": "true"}, "/"), metav1.CreateOptions{})
			return err
		},
		"the first Ingress is gone": func(ctx context.Context, client *fake.Clientset) error {
			return client.NetworkingV1().Ingresses(ns).Delete(ctx, "shop", metav1.DeleteOptions{})
		},
		"a header picks requests": func(ctx context.Context, client *fake.Clientset) error {
			return annotateCanary(ctx, client, "canary-by-header", "x-canary")
		},
		"the second Ingress is no canary": func(ctx context.Context, client *fake.Clientset) error {
			return annotateCanary(ctx, client, "canary", "false")
		},
		"the weight is nonsense": func(ctx context.Context, client *fake.Clientset) error {
			return annotateCanary(ctx, client, "canary-weight", "much")
		},
	} {
		t.Run(name, func(t *testing.T) {
			charts := ingress("shop-canary", "shop-canary", map[string]string{annotation + "canary": "true", annotation + "canary-weight": "0"}, "/")
			for _, objects := range [][]runtime.Object{{}, {charts}} {
				client, r := newNGINX(t, append(objects, ingress("shop", "shop", nil, "/"))...)
				require.NoError(t, r.Shift(t.Context(), 0, 10))
				require.NoError(t, change(t.Context(), client))
				_, err := r.Observe(t.Context())
				require.ErrorIs(t, err, stages.ErrInvalid)
				require.NoError(t, r.Shift(t.Context(), traffic.Any, 0))
				split, err := r.Observe(t.Context())
				require.NoError(t, err)
				assert.Zero(t, split.Canary)
			}
		})
	}
}

func annotateCanary(ctx context.Context, client *fake.Clientset, key, value string) error {
	api := client.NetworkingV1().Ingresses(ns)
	o, err := api.Get(ctx, "shop-canary", metav1.GetOptions{})
	if err != nil {
		return err
	}
	o.Annotations[annotation+key] = value
	_, err = api.Update(ctx, o, metav1.UpdateOptions{})
	return err
}

// TestNGINXMakesACanary checks that nothing of the stable Ingress turns the second
// one into something else.
func TestNGINXMakesACanary(t *testing.T) {
	client, r := newNGINX(t, ingress("shop", "shop", map[string]string{annotation + "canary": "false", annotation + "canary-weight": "0"}, "/"))
	require.NoError(t, r.Shift(t.Context(), 0, 10))
	made, err := client.NetworkingV1().Ingresses(ns).Get(t.Context(), "shop-canary", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{annotation + "canary": "true", annotation + "canary-weight": "10"}, made.Annotations)
}

// TestMissingRightsAreToldAtOnce checks that nothing that is forbidden is tried
// until the time is up.
func TestMissingRightsAreToldAtOnce(t *testing.T) {
	denied := func(resource string) func(clienttesting.Action) (bool, runtime.Object, error) {
		return func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", nil)
		}
	}
	client := fake.NewClientset()
	client.PrependReactor("*", "configmaps", denied("configmaps"))
	state, err := traffic.ConfigMapOn(client, ns, "shop")
	require.NoError(t, err)
	_, _, err = state.Load(t.Context())
	require.True(t, stages.IsPermanent(err), "%v", err)
	require.ErrorContains(t, err, "ConfigMap shop/fairlead.canary.shop")
	_, err = state.Save(t.Context(), traffic.Record{}, "")
	require.True(t, stages.IsPermanent(err), "%v", err)
	require.True(t, stages.IsPermanent(state.Delete(t.Context(), "1")))

	for _, resource := range []string{"services", "pods", "endpointslices"} {
		k, r := newReplicas(t, 2, 0)
		k.typed.PrependReactor("*", resource, denied(resource))
		_, err := r.Observe(t.Context())
		require.True(t, stages.IsPermanent(err), "%v", err)
	}
}
