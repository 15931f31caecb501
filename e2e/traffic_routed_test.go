package e2e_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// road is what divides the traffic of two releases, of which each has a Service.
type road struct {
	router traffic.Router
	// weight reads the canary's off the live objects.
	weight func(ctx context.Context) (int, error)
	stable map[string]any // values of the stable release's chart
}

// nginxRoad has the Ingress of the stable release's chart, which the router makes a
// second one of.
func (w *world) nginxRoad(t *testing.T, namespace string) road {
	router, err := traffic.NewNGINX(traffic.NGINXConfig{REST: w.rest, Namespace: namespace, Ingress: release, Stable: release, Canary: canaryRelease})
	require.NoError(t, err)
	return road{router: router, stable: map[string]any{"ingress": map[string]any{"enabled": true, "className": "nginx"}},
		weight: func(ctx context.Context) (int, error) {
			o, err := w.kube.NetworkingV1().Ingresses(namespace).Get(ctx, canaryRelease, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			service := o.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Name
			if service != canaryRelease || o.Annotations["nginx.ingress.kubernetes.io/canary"] != "true" {
				return 0, fmt.Errorf("no canary: it sends to %s, and has %v", service, o.Annotations)
			}
			return strconv.Atoi(o.Annotations["nginx.ingress.kubernetes.io/canary-weight"])
		}}
}

// istioRoad has a VirtualService that was there before.
func (w *world) istioRoad(t *testing.T, namespace string) road {
	api := w.define(t, istioCRDs, "virtualservices.networking.istio.io").Resource(virtualServices).Namespace(namespace)
	create(t, api, `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: shop}, spec: {hosts: [shop.example], http: [
		{match: [{uri: {prefix: /api}}], route: [{destination: {host: shop}, weight: 100}, {destination: {host: shop-canary}, weight: 0}]},
		{route: [{destination: {host: shop}, weight: 100}, {destination: {host: shop-canary}, weight: 0}]}]}}`)
	return w.virtualRoad(t, namespace, api)
}

func (w *world) virtualRoad(t *testing.T, namespace string, api dynamic.ResourceInterface) road {
	router, err := traffic.NewVirtualService(traffic.VirtualServiceConfig{REST: w.rest, Namespace: namespace, Name: release,
		Stable: traffic.Destination{Host: release}, Canary: traffic.Destination{Host: canaryRelease}})
	require.NoError(t, err)
	return road{router: router, weight: func(ctx context.Context) (int, error) {
		o, err := api.Get(ctx, release, metav1.GetOptions{})
		if err != nil {
			return 0, err
		}
		return canaryWeight(o)
	}}
}

// canaryWeight is that of all routes of a VirtualService, out of 100.
func canaryWeight(o *unstructured.Unstructured) (int, error) {
	routes, _, err := unstructured.NestedSlice(o.Object, "spec", "http")
	if err != nil {
		return 0, err
	}
	weights := map[int64]bool{}
	for _, route := range routes {
		to := route.(map[string]any)["route"].([]any)
		stable, _, _ := unstructured.NestedInt64(to[0].(map[string]any), "weight")
		canary, _, _ := unstructured.NestedInt64(to[1].(map[string]any), "weight")
		if stable+canary != 100 {
			return 0, fmt.Errorf("weights %d and %d", stable, canary)
		}
		weights[canary] = true
	}
	for weight := range weights {
		if len(weights) == 1 {
			return int(weight), nil
		}
	}
	return 0, fmt.Errorf("weights differ: %v", weights)
}

// routes releases the chart of nothing but a VirtualService.
func (w *world) routes(ctx context.Context, namespace string, apply helmx.Apply, values ...helmx.Override) error {
	d, err := helmx.New(helmx.Config{
		Chart: "testdata/routes", Release: "shop-routes", Namespace: namespace, Values: helmx.Values{Overrides: values},
		Unscanned: "it has no containers", Apply: apply, Kubernetes: helmx.Kubernetes{REST: w.rest},
	})
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = d.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "shop-routes"})
	return err
}

// valuesRoad has a chart that the weight is a value of.
func (w *world) valuesRoad(t *testing.T, namespace string) road {
	api := w.define(t, istioCRDs, "virtualservices.networking.istio.io").Resource(virtualServices).Namespace(namespace)
	deploy := func(ctx context.Context, weight int) error {
		return w.routes(ctx, namespace, helmx.Apply{}, helmx.Set(fmt.Sprintf("canary.weight=%d", weight)))
	}
	require.NoError(t, deploy(labtest.Context(t), 0))
	r := w.virtualRoad(t, namespace, api)
	r.router = traffic.Values{Route: r.router, Deploy: deploy}
	return r
}

// canaryBy makes a canary whose traffic a road divides.
func (w *world) canaryBy(t *testing.T, namespace string, r road, gates ...stages.Gate[stages.Release]) *traffic.Canary {
	t.Helper()
	values := map[string]any{"replicaCount": stableReplicas}
	for key, value := range r.stable {
		values[key] = value
	}
	parts, err := twoReleases(w.rest, namespace, helmx.LockConfig{}, values, map[string]any{"replicaCount": 1})
	require.NoError(t, err)
	parts.Router = r.router
	parts.Steps = []traffic.Step{{Weight: 30, For: time.Second, Gates: gates}, {Weight: 60, For: time.Second, Gates: gates}}
	canary, err := traffic.NewCanary(parts)
	require.NoError(t, err)
	return canary
}

// roadGate notes the weights that it is asked at, and refuses one of them.
type roadGate struct {
	road   road
	refuse int
	seen   []int
}

func (g *roadGate) Decide(ctx context.Context, rel stages.Release) (stages.Decision, error) {
	weight, err := g.road.weight(ctx)
	if len(g.seen) == 0 || g.seen[len(g.seen)-1] != weight {
		g.seen = append(g.seen, weight)
	}
	d := stages.Decision{Gate: "weights", Verdict: stages.Pass}
	if weight == g.refuse {
		d.Verdict, d.Reasons = stages.Fail, []stages.Reason{{Rule: "weight", Message: fmt.Sprintf("%s has %d%%", rel.Name, weight)}}
	}
	return d, err
}

// TestCanaryByRoute takes a good release and a bad one through all steps, each by what
// the live objects say. No requests follow them here: there is no controller.
func TestCanaryByRoute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := labtest.Context(t)
	images := map[string]stages.Image{}
	repository := w.namespace(t)
	for _, version := range []string{"1.0.0", "1.1.0", "1.2.0"} {
		img, err := w.builder(t, repository).Build(ctx, source(version))
		require.NoError(t, err)
		images[version] = img
	}
	for name, build := range map[string]func(*testing.T, string) road{
		"NGINX": w.nginxRoad, "VirtualService": w.istioRoad, "values": w.valuesRoad,
	} {
		t.Run(name, func(t *testing.T) {
			ns := w.namespace(t)
			r := build(t, ns)
			first, err := w.canaryBy(t, ns, r).Deploy(ctx, bypassed(t, images["1.0.0"], "run-1"))
			require.NoError(t, err)
			_, err = w.verifiers(t, w.rest)[0].Verify(ctx, first)
			require.NoError(t, err)
			c := w.census(t, ns)
			requireBack := func(version string) {
				t.Helper()
				weight, err := r.weight(ctx)
				require.NoError(t, err)
				assert.Zero(t, weight)
				w.requireNoCanary(t, w.canaryBy(t, ns, r), ns, version, images[version])
			}

			gate := &roadGate{road: r, refuse: -1}
			rel, err := w.canaryBy(t, ns, r, gate).Deploy(ctx, bypassed(t, images["1.1.0"], "run-2"))
			require.NoError(t, err)
			assert.Equal(t, images["1.1.0"], rel.Image)
			assert.Equal(t, []int{30, 60}, gate.seen)
			requireBack("1.1.0")

			gate = &roadGate{road: r, refuse: 60}
			_, err = w.canaryBy(t, ns, r, gate).Deploy(ctx, bypassed(t, images["1.2.0"], "run-3"))
			aborted := requireAborted(t, err)
			assert.Equal(t, 2, aborted.Step)
			assert.Equal(t, 60, aborted.Weight)
			assert.Equal(t, []int{30, 60}, gate.seen)
			requireBack("1.1.0")
			c.requireUnharmed(t)
		})
	}
}
