package traffic_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/rollout/traffic/traffictest"
	"github.com/fairlead-dev/fairlead/stages"
)

const ns = "shop"

var (
	deployments     = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	services        = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	httpRoutes      = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}
	virtualServices = schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"}
)

// kube is a cluster of two fakes: one has the objects that routers change as
// unstructured ones, the other one the rest.
type kube struct {
	dynamic *dynamicfake.FakeDynamicClient
	typed   *fake.Clientset
}

func newKube(objects ...runtime.Object) *kube {
	kinds := map[schema.GroupVersionResource]string{
		httpRoutes: "HTTPRouteList", virtualServices: "VirtualServiceList", deployments: "DeploymentList", services: "ServiceList",
	}
	return &kube{dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds, objects...), fake.NewClientset()}
}

// parse reads an object from YAML.
func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	require.NoError(t, yaml.Unmarshal([]byte(text), &o.Object))
	o.SetNamespace(ns)
	return o
}

func (k *kube) edit(ctx context.Context, resource schema.GroupVersionResource, name string, change func(o *unstructured.Unstructured) error) error {
	api := k.dynamic.Resource(resource).Namespace(ns)
	o, err := api.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := change(o); err != nil {
		return err
	}
	_, err = api.Update(ctx, o, metav1.UpdateOptions{})
	return err
}

func podLabels(release string) map[string]string {
	return map[string]string{"app": "shop", "app.kubernetes.io/instance": release}
}

func generic(t *testing.T, o any) *unstructured.Unstructured {
	t.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	require.NoError(t, err)
	return &unstructured.Unstructured{Object: content}
}

func deployment(name string, replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/instance": name}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: podLabels(name)}}},
	}
}

func service(selector map[string]string) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop"}, Spec: corev1.ServiceSpec{Selector: selector},
	}
}

// run does what controllers and the kubelet do: as many pods as replicas, and an
// endpoint for each that the selector of the service matches.
func (k *kube) run(ctx context.Context, replicas map[string]int64, selector map[string]string) error {
	old, err := k.typed.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, pod := range old.Items {
		if err := k.typed.CoreV1().Pods(ns).Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop-x", Labels: map[string]string{discoveryv1.LabelServiceName: "shop"}}}
	for release, n := range replicas {
		for i := range n {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("%s-%d", release, i), Labels: podLabels(release)},
				Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
			if _, err := k.typed.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
				return err
			}
			if labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels)) {
				slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod.Name}})
			}
		}
	}
	_ = k.typed.DiscoveryV1().EndpointSlices(ns).Delete(ctx, slice.Name, metav1.DeleteOptions{})
	_, err = k.typed.DiscoveryV1().EndpointSlices(ns).Create(ctx, slice, metav1.CreateOptions{})
	return err
}

func (k *kube) replicas(ctx context.Context) (map[string]int64, error) {
	out := map[string]int64{}
	all, err := k.dynamic.Resource(deployments).Namespace(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, o := range all.Items {
		out[o.GetName()], _, err = unstructured.NestedInt64(o.Object, "spec", "replicas")
	}
	return out, err
}

func newReplicas(t *testing.T, stable, canary int32) (*kube, *traffic.Replicas) {
	k := newKube(generic(t, deployment("shop", stable)), generic(t, deployment("shop-canary", canary)))
	_, err := k.typed.CoreV1().Services(ns).Create(t.Context(), service(map[string]string{"app": "shop"}), metav1.CreateOptions{})
	require.NoError(t, err)
	r, err := traffic.ReplicasOn(k.typed, k.dynamic, traffic.ReplicasConfig{Namespace: ns, Service: "shop", Stable: "shop", Canary: "shop-canary"})
	require.NoError(t, err)
	return k, r
}

func (k *kube) settleReplicas(ctx context.Context) error {
	replicas, err := k.replicas(ctx)
	if err != nil {
		return err
	}
	return k.run(ctx, replicas, map[string]string{"app": "shop"})
}

func TestReplicasConform(t *testing.T) {
	for _, full := range []int32{1, 2, 10, 40} {
		t.Run(fmt.Sprint(full), func(t *testing.T) {
			traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
				k, r := newReplicas(t, full, 0)
				scale := func(ctx context.Context, name string, n int64) error {
					return k.edit(ctx, deployments, name, func(o *unstructured.Unstructured) error {
						return unstructured.SetNestedField(o.Object, n, "spec", "replicas")
					})
				}
				return traffictest.RouterHarness{Router: r, Settle: k.settleReplicas, Foreign: func(ctx context.Context, weight int) error {
					if weight != 100 {
						return fmt.Errorf("not foreseen: %d", weight)
					}
					if err := k.edit(ctx, deployments, "shop", func(o *unstructured.Unstructured) error {
						o.SetAnnotations(map[string]string{"traffic.fairlead.dev/replicas": fmt.Sprintf("%d/0", full)})
						return nil
					}); err != nil {
						return err
					}
					if err := scale(ctx, "shop", 0); err != nil {
						return err
					}
					return scale(ctx, "shop-canary", int64(full))
				}}
			})
		})
	}
}

// TestReplicasKeepCapacity checks that there are never fewer pods than before.
func TestReplicasKeepCapacity(t *testing.T) {
	k, r := newReplicas(t, 4, 0)
	at := 0
	for _, weight := range []int{20, 50, 80, 100, 0, 80, 20, 0} {
		to, err := r.Nearest(t.Context(), weight)
		require.NoError(t, err)
		for range 10 {
			_ = r.Shift(t.Context(), at, to) // What it waits for is told by the error.
			before, err := k.replicas(t.Context())
			require.NoError(t, err)
			assert.GreaterOrEqual(t, before["shop"]+before["shop-canary"], int64(4), "%v", before)
			require.NoError(t, k.settleReplicas(t.Context()))
		}
		split, err := r.Observe(t.Context())
		require.NoError(t, err)
		assert.Equal(t, to, split.Canary)
		assert.True(t, split.Settled, split)
		at = to
	}
	o, err := k.dynamic.Resource(deployments).Namespace(ns).Get(t.Context(), "shop", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Empty(t, o.GetAnnotations(), "nothing is left")
}

// TestReplicasAfterAnUpgrade checks that a number of replicas that an upgrade has
// set is kept.
func TestReplicasAfterAnUpgrade(t *testing.T) {
	k, r := newReplicas(t, 2, 2)
	require.NoError(t, k.settleReplicas(t.Context()))
	require.NoError(t, r.Shift(t.Context(), traffic.Any, 67))
	replicas, err := k.replicas(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"shop": 1, "shop-canary": 2}, replicas)
	require.NoError(t, k.edit(t.Context(), deployments, "shop", func(o *unstructured.Unstructured) error {
		return unstructured.SetNestedField(o.Object, int64(3), "spec", "replicas")
	}))
	require.NoError(t, k.settleReplicas(t.Context()))
	require.NoError(t, r.Shift(t.Context(), traffic.Any, 0))
	replicas, err = k.replicas(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"shop": 3, "shop-canary": 0}, replicas)
}

func TestOddReplicas(t *testing.T) {
	for problem, upset := range map[string]func(t *testing.T, k *kube){
		"Service shop/shop: selects app.kubernetes.io/instance=shop": func(t *testing.T, k *kube) {
			_, err := k.typed.CoreV1().Services(ns).Update(t.Context(), service(map[string]string{"app.kubernetes.io/instance": "shop"}), metav1.UpdateOptions{})
			require.NoError(t, err)
		},
		"Service shop/shop: has no selector": func(t *testing.T, k *kube) {
			_, err := k.typed.CoreV1().Services(ns).Update(t.Context(), service(nil), metav1.UpdateOptions{})
			require.NoError(t, err)
		},
		"Service shop/shop: doesn't exist": func(t *testing.T, k *kube) {
			require.NoError(t, k.typed.CoreV1().Services(ns).Delete(t.Context(), "shop", metav1.DeleteOptions{}))
		},
		"can't be told from": func(t *testing.T, k *kube) {
			require.NoError(t, k.edit(t.Context(), deployments, "shop", func(o *unstructured.Unstructured) error {
				return unstructured.SetNestedStringMap(o.Object, map[string]string{"app": "shop"}, "spec", "selector", "matchLabels")
			}))
		},
		"has no replicas": func(t *testing.T, k *kube) {
			require.NoError(t, k.edit(t.Context(), deployments, "shop", func(o *unstructured.Unstructured) error {
				return unstructured.SetNestedField(o.Object, int64(0), "spec", "replicas")
			}))
		},
		"Deployment shop/shop: doesn't exist": func(t *testing.T, k *kube) {
			require.NoError(t, k.dynamic.Resource(deployments).Namespace(ns).Delete(t.Context(), "shop", metav1.DeleteOptions{}))
		},
		"is scaled by HorizontalPodAutoscaler shop": func(t *testing.T, k *kube) {
			_, err := k.typed.AutoscalingV2().HorizontalPodAutoscalers(ns).Create(t.Context(), &autoscalingv2.HorizontalPodAutoscaler{
				ObjectMeta: metav1.ObjectMeta{Name: "shop"},
				Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "shop"}},
			}, metav1.CreateOptions{})
			require.NoError(t, err)
		},
	} {
		t.Run(problem, func(t *testing.T) {
			k, r := newReplicas(t, 2, 0)
			upset(t, k)
			_, err := r.Nearest(t.Context(), 10)
			requireOdd(t, err, problem)
		})
	}
}

func requireOdd(t *testing.T, err error, problem string) {
	t.Helper()
	var route *traffic.RouteError
	require.ErrorAs(t, err, &route)
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.Contains(t, err.Error(), problem)
}

func TestSelectorConforms(t *testing.T) {
	traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
		k := newKube(generic(t, service(podLabels("shop"))))
		r, err := traffic.SelectorOn(k.typed, k.dynamic, traffic.SelectorConfig{Namespace: ns, Service: "shop", Stable: "shop", Canary: "shop-canary"})
		require.NoError(t, err)
		settle := func(ctx context.Context) error {
			o, err := k.dynamic.Resource(services).Namespace(ns).Get(ctx, "shop", metav1.GetOptions{})
			if err != nil {
				return err
			}
			selector, _, err := unstructured.NestedStringMap(o.Object, "spec", "selector")
			if err != nil {
				return err
			}
			return k.run(ctx, map[string]int64{"shop": 2, "shop-canary": 1}, selector)
		}
		return traffictest.RouterHarness{Router: r, Settle: settle, Foreign: func(ctx context.Context, _ int) error {
			return k.edit(ctx, services, "shop", func(o *unstructured.Unstructured) error {
				return unstructured.SetNestedField(o.Object, "shop-canary", "spec", "selector", "app.kubernetes.io/instance")
			})
		}}
	})
}

func TestOddSelector(t *testing.T) {
	for problem, selector := range map[string]map[string]string{
		`selects app.kubernetes.io/instance="other", which is neither`: podLabels("other"),
		`selects app.kubernetes.io/instance="", which is neither`:      {"app": "shop"},
	} {
		k := newKube(generic(t, service(selector)))
		r, err := traffic.SelectorOn(k.typed, k.dynamic, traffic.SelectorConfig{Namespace: ns, Service: "shop", Stable: "shop", Canary: "shop-canary"})
		require.NoError(t, err)
		_, err = r.Nearest(t.Context(), 100)
		requireOdd(t, err, problem)
	}
	k := newKube(generic(t, service(podLabels("shop"))))
	r, err := traffic.SelectorOn(k.typed, k.dynamic, traffic.SelectorConfig{Namespace: ns, Service: "shop", Stable: "shop", Canary: "shop-canary"})
	require.NoError(t, err)
	require.ErrorContains(t, r.Shift(t.Context(), 0, 100), "no pod with app.kubernetes.io/instance=shop-canary is ready")
}

const route = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, resourceVersion: "1", generation: 3}
spec:
  rules:
    - backendRefs: [{name: assets, port: 80}]
    - backendRefs: [{name: shop, port: 80, weight: 100}, {name: shop-canary, port: 80, weight: 0}]
    - backendRefs: [{name: shop-canary, kind: Service, port: 80, weight: 0}, {name: shop, port: 80}]
`

func acceptRoute(o *unstructured.Unstructured) error {
	var conditions []any
	for _, c := range []string{"Accepted", "ResolvedRefs"} {
		conditions = append(conditions, map[string]any{"type": c, "status": "True", "reason": c, "observedGeneration": o.GetGeneration(), "lastTransitionTime": "2026-01-02T03:04:05Z", "message": ""})
	}
	return unstructured.SetNestedSlice(o.Object, []any{map[string]any{"parentRef": map[string]any{"name": "gateway"}, "controllerName": "e/x", "conditions": conditions}}, "status", "parents")
}

// reweigh sets weights at paths like "spec.rules.1.backendRefs.0".
func reweigh(o *unstructured.Unstructured, list, sub string, weights map[[2]int]int64) error {
	rules, _, err := unstructured.NestedSlice(o.Object, "spec", list)
	if err != nil {
		return err
	}
	for at, weight := range weights {
		rules[at[0]].(map[string]any)[sub].([]any)[at[1]].(map[string]any)["weight"] = weight
	}
	return unstructured.SetNestedSlice(o.Object, rules, "spec", list)
}

func newHTTPRoute(t *testing.T, texts ...string) (*kube, *traffic.HTTPRoute) {
	var objects []runtime.Object
	for _, text := range texts {
		objects = append(objects, parse(t, text))
	}
	k := newKube(objects...)
	r, err := traffic.HTTPRouteOn(k.dynamic, traffic.HTTPRouteConfig{Namespace: ns, Name: "shop", Stable: "shop", Canary: "shop-canary"})
	require.NoError(t, err)
	return k, r
}

func TestHTTPRouteConforms(t *testing.T) {
	traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
		k, r := newHTTPRoute(t, route)
		return traffictest.RouterHarness{Router: r,
			Settle: func(ctx context.Context) error { return k.edit(ctx, httpRoutes, "shop", acceptRoute) },
			Foreign: func(ctx context.Context, weight int) error {
				return k.edit(ctx, httpRoutes, "shop", func(o *unstructured.Unstructured) error {
					w := int64(weight)
					return reweigh(o, "rules", "backendRefs", map[[2]int]int64{{1, 0}: 100 - w, {1, 1}: w, {2, 0}: w, {2, 1}: 100 - w})
				})
			}}
	})
}

func TestHTTPRouteSettlesWhenAccepted(t *testing.T) {
	k, r := newHTTPRoute(t, route)
	observe := func() traffic.Split {
		split, err := r.Observe(t.Context())
		require.NoError(t, err)
		return split
	}
	assert.False(t, observe().Settled)
	assert.Contains(t, observe().Detail, "no gateway has accepted it yet")
	require.NoError(t, k.edit(t.Context(), httpRoutes, "shop", acceptRoute))
	assert.True(t, observe().Settled)
	require.NoError(t, k.edit(t.Context(), httpRoutes, "shop", func(o *unstructured.Unstructured) error { o.SetGeneration(4); return nil }))
	assert.Contains(t, observe().Detail, "gateway gateway: not Accepted (not observed yet)")
	require.NoError(t, k.edit(t.Context(), httpRoutes, "shop", acceptRoute))
	require.NoError(t, k.edit(t.Context(), httpRoutes, "shop", func(o *unstructured.Unstructured) error {
		return reweigh(o, "rules", "backendRefs", map[[2]int]int64{{1, 1}: 100})
	}))
	assert.Contains(t, observe().Detail, "the rules differ")
	assert.Equal(t, 50, observe().Canary)
}

func TestOddHTTPRoutes(t *testing.T) {
	base := strings.Split(route, "    - backendRefs: [{name: assets")[0]
	for problem, rules := range map[string]string{
		"rule 0 sends to the stable release, and not to the canary": `[{backendRefs: [{name: shop, port: 80}]}]`,
		"rule 0 sends to the canary, and not to the stable release": `[{backendRefs: [{name: shop-canary, port: 80}]}]`,
		"rule 1 sends to the stable release, and not": `[{backendRefs: [{name: shop, port: 80}, {name: shop-canary, weight: 0}]},
			{backendRefs: [{name: shop, port: 80}, {name: shop-canary, namespace: elsewhere}]}]`,
		"rule 0 names a backend twice":                `[{backendRefs: [{name: shop, port: 80}, {name: shop, port: 81}, {name: shop-canary}]}]`,
		"rule 0 sends to other backends, too":         `[{backendRefs: [{name: shop, port: 80}, {name: shop-canary}, {name: old, weight: 5}]}]`,
		"weights 0 and 0, of which nobody can tell":   `[{backendRefs: [{name: shop, weight: 0}, {name: shop-canary, weight: 0}]}]`,
		"no rule sends to Service shop":               `[{backendRefs: [{name: other}]}]`,
		"its spec can't be read":                      `[{backendRefs: [{name: shop, weight: much}]}]`,
		"no rule sends to Service shop (name the Ser": `[]`,
	} {
		k, r := newHTTPRoute(t, base+"    "+"\n")
		require.NoError(t, k.edit(t.Context(), httpRoutes, "shop", func(o *unstructured.Unstructured) error {
			var parsed []any
			if err := yaml.Unmarshal([]byte(rules), &parsed); err != nil {
				return err
			}
			o.Object["spec"] = map[string]any{"rules": parsed}
			return nil
		}))
		_, err := r.Nearest(t.Context(), 10)
		requireOdd(t, err, problem)
	}
	other := strings.Replace(route, "name: shop,", "name: other,", 1)
	k, r := newHTTPRoute(t, route, other)
	_, err := r.Nearest(t.Context(), 10)
	requireOdd(t, err, "HTTPRoute other sends to Service shop")
	require.NoError(t, k.dynamic.Resource(httpRoutes).Namespace(ns).Delete(t.Context(), "shop", metav1.DeleteOptions{}))
	_, err = r.Observe(t.Context())
	requireOdd(t, err, "HTTPRoute shop/shop: doesn't exist")
}

const virtual = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, resourceVersion: "1"}
spec:
  hosts: [shop.example]
  http:
    - match: [{uri: {prefix: /old}}]
      redirect: {uri: /new}
    - match: [{uri: {prefix: /a}}, {headers: {x: {exact: "y"}}}]
      route: [{destination: {host: shop, subset: stable}, weight: 100}, {destination: {host: shop, subset: canary}}]
    - route: [{destination: {host: shop.shop.svc.cluster.local, subset: canary}, weight: 0}, {destination: {host: shop.shop, subset: stable}, weight: 100}]
`

func newVirtualService(t *testing.T, texts ...string) (*kube, *traffic.VirtualService) {
	var objects []runtime.Object
	for _, text := range texts {
		objects = append(objects, parse(t, text))
	}
	k := newKube(objects...)
	r, err := traffic.VirtualServiceOn(k.dynamic, traffic.VirtualServiceConfig{Namespace: ns, Name: "shop",
		Stable: traffic.Destination{Host: "shop", Subset: "stable"}, Canary: traffic.Destination{Host: "shop", Subset: "canary"}})
	require.NoError(t, err)
	return k, r
}

func TestVirtualServiceConforms(t *testing.T) {
	traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
		k, r := newVirtualService(t, virtual)
		return traffictest.RouterHarness{Router: r, Foreign: func(ctx context.Context, weight int) error {
			return k.edit(ctx, virtualServices, "shop", func(o *unstructured.Unstructured) error {
				w := int64(weight)
				return reweigh(o, "http", "route", map[[2]int]int64{{1, 0}: 100 - w, {1, 1}: w, {2, 0}: w, {2, 1}: 100 - w})
			})
		}}
	})
}

func TestOddVirtualServices(t *testing.T) {
	stable, canary := `{destination: {host: shop, subset: stable}, weight: 100}`, `{destination: {host: shop, subset: canary}}`
	for problem, spec := range map[string]string{
		"http[0] sends to the stable release, and not":  `http: [{route: [` + stable + `]}]`,
		"http[0] sends to other backends, too":          `http: [{route: [` + stable + `, ` + canary + `, {destination: {host: old}, weight: 1}]}]`,
		"http[0] has the weights 0 and 0":               `http: [{route: [` + canary + `, {destination: {host: shop, subset: stable}}]}]`,
		"no HTTP route sends to shop, subset stable":    `http: [{route: [{destination: {host: shop}}]}]`,
		"a TCP or TLS route sends to shop":              `tcp: [{route: [` + stable + `]}]`,
		"its spec can't be read":                        `http: 7`,
		"http[1] sends to the stable release, and not ": `http: [{route: [` + stable + `, ` + canary + `]}, {route: [` + stable + `]}]`,
	} {
		_, r := newVirtualService(t, "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: shop}\nspec: {"+spec+"}")
		_, err := r.Nearest(t.Context(), 10)
		requireOdd(t, err, problem)
	}
	_, r := newVirtualService(t, virtual, strings.Replace(virtual, "name: shop,", "name: other,", 1))
	_, err := r.Nearest(t.Context(), 10)
	requireOdd(t, err, "VirtualService other sends to")
	k, r := newVirtualService(t, virtual)
	require.NoError(t, k.edit(t.Context(), virtualServices, "shop", func(o *unstructured.Unstructured) error {
		return unstructured.SetNestedSlice(o.Object, []any{map[string]any{"level": "ERROR", "type": map[string]any{"code": "IST0101"}}}, "status", "validationMessages")
	}))
	split, err := r.Observe(t.Context())
	require.NoError(t, err)
	assert.False(t, split.Settled)
	assert.Contains(t, split.Detail, "IST0101")
}

func TestConfigMapConforms(t *testing.T) {
	traffictest.TestState(t, func(t *testing.T) (one, other traffic.State) {
		client := versioned(t)
		one, err := traffic.ConfigMapOn(client, ns, "shop")
		require.NoError(t, err)
		other, err = traffic.ConfigMapOn(client, ns, "shop")
		require.NoError(t, err)
		return one, other
	})
	client := fake.NewClientset(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "fairlead.canary.shop"}})
	foreign, err := traffic.ConfigMapOn(client, ns, "shop")
	require.NoError(t, err)
	_, _, err = foreign.Load(t.Context())
	require.ErrorIs(t, err, stages.ErrInvalid, "somebody else's ConfigMap is not touched")
	_, err = traffic.ConfigMapOn(client, ns, "No Name")
	require.ErrorIs(t, err, stages.ErrInvalid)
}
