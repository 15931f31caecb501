package e2e_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/rollout/traffic/traffictest"
)

// crdSource is a file of definitions in a Go module, which is fetched and held to
// its checksum without anything depending on it.
type crdSource struct {
	module, sum, file string
}

var (
	istioCRDs = crdSource{"istio.io/api@v1.32.0", "h1:37mJvg9I0biYZAEQF+MATs4FNeCpXEIVO3LFpVb6iNM=", "kubernetes/customresourcedefinitions.gen.yaml"}

	crds            = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	httpRoutes      = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}
	grpcRoutes      = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "grpcroutes"}
	virtualServices = schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"}
)

// gatewayCRD has the definition of a kind of the Gateway API, by its plural.
func gatewayCRD(kind string) crdSource {
	return crdSource{"sigs.k8s.io/gateway-api@v1.6.3", "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=",
		"config/crd/standard/gateway.networking.k8s.io_" + kind + ".yaml"}
}

// read returns the definition of this name.
func (s crdSource) read(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	cmd := exec.CommandContext(labtest.Context(t), "go", "mod", "download", "-json", s.module)
	cmd.Dir = t.TempDir() // Outside of any module.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	var downloaded struct{ Dir, Sum string }
	require.NoError(t, json.Unmarshal(out, &downloaded))
	require.Equal(t, s.sum, downloaded.Sum)
	data, err := os.ReadFile(filepath.Join(downloaded.Dir, filepath.FromSlash(s.file)))
	require.NoError(t, err)
	for document := range strings.SplitSeq(string(data), "\n---\n") {
		o := &unstructured.Unstructured{}
		require.NoError(t, yaml.Unmarshal([]byte(document), &o.Object))
		if o.GetName() == name {
			return o
		}
	}
	require.Failf(t, "not found", "%s in %s", name, s.file)
	return nil
}

// define installs a custom resource of somebody else's.
func (w *world) define(t *testing.T, source crdSource, name string) dynamic.Interface {
	t.Helper()
	ctx := labtest.Context(t)
	client, err := dynamic.NewForConfig(w.rest)
	require.NoError(t, err)
	api := client.Resource(crds)
	events, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	require.NoError(t, err)
	_, err = api.Create(ctx, source.read(t, name), metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		require.NoError(t, err)
	}
	_, err = watchtools.UntilWithoutRetry(ctx, events, func(e watch.Event) (bool, error) {
		o, ok := e.Object.(*unstructured.Unstructured)
		if !ok {
			return false, nil
		}
		conditions, _, err := unstructured.NestedSlice(o.Object, "status", "conditions")
		if err != nil {
			return false, nil //nolint:nilerr // At first they are null.
		}
		for _, c := range conditions {
			if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
				return true, nil
			}
		}
		return false, nil
	})
	require.NoError(t, err)
	return client
}

// object creates one from YAML.
func create(t *testing.T, api dynamic.ResourceInterface, text string) {
	t.Helper()
	o := &unstructured.Unstructured{}
	require.NoError(t, yaml.Unmarshal([]byte(text), &o.Object))
	_, err := api.Create(labtest.Context(t), o, metav1.CreateOptions{})
	require.NoError(t, err)
}

// reweigh writes weights as somebody with kubectl would.
func reweigh(ctx context.Context, api dynamic.ResourceInterface, list, sub string, weight int) error {
	o, err := api.Get(ctx, release, metav1.GetOptions{})
	if err != nil {
		return err
	}
	rules, _, err := unstructured.NestedSlice(o.Object, "spec", list)
	if err != nil {
		return err
	}
	for _, rule := range rules {
		backends, _, err := unstructured.NestedSlice(rule.(map[string]any), sub)
		if err != nil {
			return err
		}
		for _, b := range backends {
			backend := b.(map[string]any)
			backend["weight"] = int64(100 - weight)
			if strings.Contains(string(mustJSON(backend)), "canary") {
				backend["weight"] = int64(weight)
			}
		}
		rule.(map[string]any)[sub] = backends
	}
	if err := unstructured.SetNestedSlice(o.Object, rules, "spec", list); err != nil {
		return err
	}
	_, err = api.Update(ctx, o, metav1.UpdateOptions{FieldManager: "somebody"})
	return err
}

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// TestRoutersOnTheRealAPIServer runs the routers' conformance suite against objects
// with their real schemas, whose controllers the test stands in for.
func TestRoutersOnTheRealAPIServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Run("HTTPRoute", func(t *testing.T) {
		client := w.define(t, gatewayCRD("httproutes"), "httproutes.gateway.networking.k8s.io")
		traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
			ns := w.namespace(t)
			api := client.Resource(httpRoutes).Namespace(ns)
			create(t, api, `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: shop}, spec: {parentRefs: [{name: gateway}], rules: [
				{matches: [{path: {type: PathPrefix, value: /api}}], backendRefs: [{name: shop, port: 80}, {name: shop-canary, port: 80, weight: 0}]},
				{backendRefs: [{name: shop-canary, port: 80, weight: 0}, {name: shop, port: 80, weight: 100}]}]}}`)
			r, err := traffic.NewHTTPRoute(traffic.HTTPRouteConfig{REST: w.rest, Namespace: ns, Name: release, Stable: release, Canary: canaryRelease})
			require.NoError(t, err)
			return traffictest.RouterHarness{Router: r,
				Foreign: func(ctx context.Context, weight int) error { return reweigh(ctx, api, "rules", "backendRefs", weight) },
				Settle:  func(ctx context.Context) error { return accept(ctx, api) }}
		})
	})
	t.Run("GRPCRoute", func(t *testing.T) {
		client := w.define(t, gatewayCRD("grpcroutes"), "grpcroutes.gateway.networking.k8s.io")
		traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
			ns := w.namespace(t)
			api := client.Resource(grpcRoutes).Namespace(ns)
			create(t, api, `{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: shop}, spec: {parentRefs: [{name: gateway}], rules: [
				{matches: [{method: {service: shop.Orders}}], backendRefs: [{name: shop, port: 80}, {name: shop-canary, port: 80, weight: 0}]},
				{backendRefs: [{name: shop-canary, port: 80, weight: 0}, {name: shop, port: 80, weight: 100}]}]}}`)
			r, err := traffic.NewGRPCRoute(traffic.GRPCRouteConfig{REST: w.rest, Namespace: ns, Name: release, Stable: release, Canary: canaryRelease})
			require.NoError(t, err)
			return traffictest.RouterHarness{Router: r,
				Foreign: func(ctx context.Context, weight int) error { return reweigh(ctx, api, "rules", "backendRefs", weight) },
				Settle:  func(ctx context.Context) error { return accept(ctx, api) }}
		})
	})
	t.Run("VirtualService", func(t *testing.T) {
		client := w.define(t, istioCRDs, "virtualservices.networking.istio.io")
		traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
			ns := w.namespace(t)
			api := client.Resource(virtualServices).Namespace(ns)
			create(t, api, `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: shop}, spec: {hosts: [shop.example], http: [
				{match: [{uri: {prefix: /a}}], route: [{destination: {host: shop}, weight: 100}, {destination: {host: shop-canary}}]},
				{route: [{destination: {host: shop-canary}}, {destination: {host: shop}, weight: 100}]}]}}`)
			r, err := traffic.NewVirtualService(traffic.VirtualServiceConfig{REST: w.rest, Namespace: ns, Name: release,
				Stable: traffic.Destination{Host: release}, Canary: traffic.Destination{Host: canaryRelease}})
			require.NoError(t, err)
			return traffictest.RouterHarness{Router: r,
				Foreign: func(ctx context.Context, weight int) error { return reweigh(ctx, api, "http", "route", weight) }}
		})
	})
	t.Run("NGINX", func(t *testing.T) {
		traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
			ns := w.namespace(t)
			api := w.kube.NetworkingV1().Ingresses(ns)
			_, err := api.Create(labtest.Context(t), ingressOf(release, release, nil), metav1.CreateOptions{})
			require.NoError(t, err)
			r, err := traffic.NewNGINX(traffic.NGINXConfig{REST: w.rest, Namespace: ns, Ingress: release, Stable: release, Canary: canaryRelease})
			require.NoError(t, err)
			return traffictest.RouterHarness{Router: r, Foreign: func(ctx context.Context, weight int) error {
				o := ingressOf(canaryRelease, canaryRelease, map[string]string{
					"nginx.ingress.kubernetes.io/canary": "true", "nginx.ingress.kubernetes.io/canary-weight": strconv.Itoa(weight)})
				_, err := api.Create(ctx, o, metav1.CreateOptions{})
				if apierrors.IsAlreadyExists(err) {
					_, err = api.Update(ctx, o, metav1.UpdateOptions{})
				}
				return err
			}}
		})
	})
	t.Run("state", func(t *testing.T) {
		traffictest.TestState(t, func(t *testing.T) (one, other traffic.State) {
			config := traffic.ConfigMapConfig{REST: w.rest, Namespace: w.namespace(t), Release: release}
			one, err := traffic.NewConfigMap(config)
			require.NoError(t, err)
			other, err = traffic.NewConfigMap(config)
			require.NoError(t, err)
			return one, other
		})
	})
}

// accept is what a gateway's controller says of a route.
func accept(ctx context.Context, api dynamic.ResourceInterface) error {
	o, err := api.Get(ctx, release, metav1.GetOptions{})
	if err != nil {
		return err
	}
	var conditions []any
	for _, c := range []string{"Accepted", "ResolvedRefs"} {
		conditions = append(conditions, map[string]any{"type": c, "status": "True", "reason": c, "message": "",
			"observedGeneration": o.GetGeneration(), "lastTransitionTime": "2026-01-02T03:04:05Z"})
	}
	parents := []any{map[string]any{"parentRef": map[string]any{"name": "gateway"}, "controllerName": "example.com/gateway", "conditions": conditions}}
	if err := unstructured.SetNestedSlice(o.Object, parents, "status", "parents"); err != nil {
		return err
	}
	_, err = api.UpdateStatus(ctx, o, metav1.UpdateOptions{})
	return err
}

func ingressOf(name, service string, annotations map[string]string) *networkingv1.Ingress {
	prefix := networkingv1.PathTypePrefix
	return &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}, Spec: networkingv1.IngressSpec{
		Rules: []networkingv1.IngressRule{{Host: "shop.example", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
			Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &prefix, Backend: networkingv1.IngressBackend{
				Service: &networkingv1.IngressServiceBackend{Name: service, Port: networkingv1.ServiceBackendPort{Number: 80}}}}},
		}}}},
	}}
}
