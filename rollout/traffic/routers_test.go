package traffic_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
	grpcRoutes      = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "grpcroutes"}
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
		httpRoutes: "HTTPRouteList", grpcRoutes: "GRPCRouteList", virtualServices: "VirtualServiceList", deployments: "DeploymentList", services: "ServiceList",
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

func requireOdd(t *testing.T, err error, problem string) {
	t.Helper()
	var route *traffic.RouteError
	require.ErrorAs(t, err, &route)
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.Contains(t, err.Error(), problem)
}

var route = gatewayRoute("HTTPRoute")

// gatewayRoute is a route with two rules that are divided.
func gatewayRoute(kind string) string {
	return `
apiVersion: gateway.networking.k8s.io/v1
kind: ` + kind + `
metadata: {name: shop, resourceVersion: "1", generation: 3}
spec:
  parentRefs: [{name: gateway}]
  rules:
    - backendRefs: [{name: assets, port: 80}]
    - backendRefs: [{name: shop, port: 80, weight: 100}, {name: shop-canary, port: 80, weight: 0}]
    - backendRefs: [{name: shop-canary, kind: Service, port: 80, weight: 0}, {name: shop, port: 80}]
`
}

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

func TestGRPCRouteConforms(t *testing.T) {
	traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
		k := newKube(parse(t, gatewayRoute("GRPCRoute")))
		r, err := traffic.GRPCRouteOn(k.dynamic, traffic.GRPCRouteConfig{Namespace: ns, Name: "shop", Stable: "shop", Canary: "shop-canary"})
		require.NoError(t, err)
		return traffictest.RouterHarness{Router: r,
			Settle: func(ctx context.Context) error { return k.edit(ctx, grpcRoutes, "shop", acceptRoute) },
			Foreign: func(ctx context.Context, weight int) error {
				return k.edit(ctx, grpcRoutes, "shop", func(o *unstructured.Unstructured) error {
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

func TestHTTPRouteWithoutWeightNeedsNoCanary(t *testing.T) {
	k, r := newHTTPRoute(t, route)
	missing := func(o *unstructured.Unstructured) error {
		if err := acceptRoute(o); err != nil {
			return err
		}
		parents, _, err := unstructured.NestedSlice(o.Object, "status", "parents")
		if err != nil {
			return err
		}
		resolved := parents[0].(map[string]any)["conditions"].([]any)[1].(map[string]any)
		resolved["status"], resolved["reason"] = "False", "BackendNotFound"
		return unstructured.SetNestedSlice(o.Object, parents, "status", "parents")
	}
	require.NoError(t, k.edit(t.Context(), httpRoutes, "shop", missing))
	split, err := r.Observe(t.Context())
	require.NoError(t, err)
	assert.True(t, split.Settled, split)

	require.NoError(t, r.Shift(t.Context(), 0, 20))
	require.NoError(t, k.edit(t.Context(), httpRoutes, "shop", missing))
	split, err = r.Observe(t.Context())
	require.NoError(t, err)
	assert.False(t, split.Settled)
	assert.Contains(t, split.Detail, "not ResolvedRefs (BackendNotFound)")
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
		"no rule sends to Service shop (name what th": `[]`,
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

func TestValuesConform(t *testing.T) {
	traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
		k, route := newVirtualService(t, virtual)
		set := func(ctx context.Context, weight int) error {
			return k.edit(ctx, virtualServices, "shop", func(o *unstructured.Unstructured) error {
				w := int64(weight)
				return reweigh(o, "http", "route", map[[2]int]int64{{1, 0}: 100 - w, {1, 1}: w, {2, 0}: w, {2, 1}: 100 - w})
			})
		}
		return traffictest.RouterHarness{Router: traffic.Values{Route: route, Deploy: set}, Foreign: set}
	})
}

func TestOddVirtualServices(t *testing.T) {
	stable, canary := `{destination: {host: shop, subset: stable}, weight: 100}`, `{destination: {host: shop, subset: canary}}`
	for problem, spec := range map[string]string{
		"http[0] sends to the stable release, and not":  `http: [{route: [` + stable + `]}]`,
		"http[0] sends to other backends, too":          `http: [{route: [` + stable + `, ` + canary + `, {destination: {host: old}, weight: 1}]}]`,
		"http[0] has the weights 0 and 0":               `http: [{route: [` + canary + `, {destination: {host: shop, subset: stable}}]}]`,
		"no rule sends to shop, subset stable":          `http: [{route: [{destination: {host: shop}}]}]`,
		"a TCP or TLS route sends to shop":              `http: [{route: [` + stable + `, ` + canary + `]}], tcp: [{route: [` + stable + `]}]`,
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
