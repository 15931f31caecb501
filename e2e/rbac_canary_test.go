package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestEachRightOfAPipelineIsNamed takes one verb after the other from a whole
// pipeline's account.
func TestEachRightOfAPipelineIsNamed(t *testing.T) {
	w := newWorld(t)
	ns, ctx := w.namespace(t), labtest.Context(t)
	w.define(t, gatewayCRD("httproutes"), "httproutes.gateway.networking.k8s.io")
	deployer := func(access *rest.Config) *helmx.Deployer {
		return w.routedCanary(t, access, ns).Stable.(*helmx.Deployer)
	}
	granted, err := deployer(w.rest).RequiredRBAC(ctx, stages.PlanRequest{Image: w.anyImage(t)}, helmx.RBACOptions{Once: true})
	require.NoError(t, err)
	bot := w.account(t, ns)
	bot.grant(t, granted)
	d := deployer(bot.rest)
	require.NoError(t, d.Preflight(ctx, stages.PlanRequest{Image: w.anyImage(t)}))
	bot.requireEachRight(t, granted, func() error {
		_, err := d.Deploy(ctx, bypassed(t, w.anyImage(t), "refused"))
		return err
	})
}

// heldCanary makes a canary of two releases that the router divides traffic between.
// They are held to the rights that all parts need, the stable release also to those
// of a pipeline that verifies it in every way afterwards.
func (w *world) heldCanary(t *testing.T, access *rest.Config, namespace string, router traffic.Router, stable, canary helmx.Override) traffic.CanaryConfig {
	t.Helper()
	ready, err := rollout.New(rollout.Config{REST: access, Timeout: rolloutTimeout, AllowUnused: true})
	require.NoError(t, err)
	state, err := traffic.NewConfigMap(traffic.ConfigMapConfig{REST: access, Namespace: namespace, Release: release})
	require.NoError(t, err)
	rules := ruleSources[any](ready, router, state)
	return traffic.CanaryConfig{
		Stable:    heldDeployer(t, access, namespace, release, append(ruleSources(w.allVerifiers(t, access)...), rules...), stable),
		Canary:    heldDeployer(t, access, namespace, canaryRelease, rules, canary),
		Verifiers: []stages.Verifier{ready}, Router: router, State: state,
		Steps:    []traffic.Step{{Weight: 30}, {Weight: 50}},
		Interval: 250 * time.Millisecond, Drain: time.Second,
	}
}

// replicaCanary has both releases behind one Service.
func (w *world) replicaCanary(t *testing.T, access *rest.Config, namespace string) traffic.CanaryConfig {
	t.Helper()
	router, err := traffic.NewReplicas(traffic.ReplicasConfig{REST: access, Namespace: namespace, Service: release, Stable: release, Canary: canaryRelease})
	require.NoError(t, err)
	return w.heldCanary(t, access, namespace, router, helmx.Set("service.shared=true"), helmx.Set("service.canary=true,replicaCount=0"))
}

// routedCanary has an HTTPRoute lead to the Services of both releases.
func (w *world) routedCanary(t *testing.T, access *rest.Config, namespace string) traffic.CanaryConfig {
	t.Helper()
	router, err := traffic.NewHTTPRoute(traffic.HTTPRouteConfig{REST: access, Namespace: namespace, Name: release, Stable: release, Canary: canaryRelease})
	require.NoError(t, err)
	return w.heldCanary(t, access, namespace, router, helmx.Set("replicaCount=1"), helmx.Set("replicaCount=1"))
}

// TestCanaryWithEmittedRights delivers canaries by whole pipelines, with the rights
// that were emitted and no others: one is promoted, one is taken back.
func TestCanaryWithEmittedRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, c := range map[string]struct {
		parts   func(t *testing.T, access *rest.Config, namespace string) traffic.CanaryConfig
		prepare func(t *testing.T, namespace string)
	}{
		"replicas": {w.replicaCanary, func(*testing.T, string) {}},
		"HTTPRoute": {
			w.routedCanary,
			func(t *testing.T, ns string) {
				api := w.define(t, gatewayCRD("httproutes"), "httproutes.gateway.networking.k8s.io").Resource(httpRoutes).Namespace(ns)
				acceptAlways(t, api)
				create(t, api, `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: shop}, spec: {parentRefs: [{name: gateway}],
					rules: [{backendRefs: [{name: shop, port: 80}, {name: shop-canary, port: 80, weight: 0}]}]}}`)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := w.namespace(t)
			c.prepare(t, ns)
			bot := w.account(t, ns)
			bot.grant(t, emitted(t, c.parts(t, w.rest, ns), w.anyImage(t)))

			deliver := func(version string, gates ...stages.Gate[stages.Release]) (*pipeline.Result, error) {
				parts := c.parts(t, bot.rest, ns)
				parts.Steps[1].Gates = gates
				canary, err := traffic.NewCanary(parts)
				require.NoError(t, err)
				cfg := w.delivery(t, ns)
				cfg.PlanGates = append(cfg.PlanGates, parts.Stable.(*helmx.Deployer).PrivilegeGate(), parts.Canary.(*helmx.Deployer).PrivilegeGate())
				cfg.Verifiers, cfg.Deployer = w.allVerifiers(t, bot.rest), canary
				return run(t, cfg, source(version))
			}
			_, err := deliver("1.0.0")
			require.NoError(t, err, "the first install needs no canary")
			good, err := deliver("1.1.0")
			require.NoError(t, err)
			require.Equal(t, pipeline.OutcomeReleased, good.Outcome)
			_, err = deliver("1.2.0", stages.GateFunc[stages.Release](func(context.Context, stages.Release) (stages.Decision, error) {
				return stages.Decision{Gate: "never", Verdict: stages.Fail}, nil
			}))
			var aborted *traffic.AbortError
			require.ErrorAs(t, err, &aborted)
			assert.Equal(t, 2, aborted.Step)
			assert.Empty(t, aborted.Left, "everything could be taken back")
			w.requirePage(t, ns, "1.1.0")
		})
	}
}

// emitted are the rules for both releases of a canary.
func emitted(t *testing.T, parts traffic.CanaryConfig, img stages.Image) helmx.RBAC {
	t.Helper()
	ctx, req := labtest.Context(t), stages.PlanRequest{Image: img}
	stable, err := parts.Stable.(*helmx.Deployer).RequiredRBAC(ctx, req, helmx.RBACOptions{})
	require.NoError(t, err)
	canary, err := parts.Canary.(*helmx.Deployer).RequiredRBAC(ctx, req, helmx.RBACOptions{Uninstall: true})
	require.NoError(t, err)
	return stable.Union(canary)
}

// TestRoutersNeedEachRule takes one verb after the other from whoever moves traffic,
// who is told which one it is.
func TestRoutersNeedEachRule(t *testing.T) {
	w := newWorld(t)
	type part interface {
		traffic.Router
		helmx.RuleSource
	}
	shift := func(ctx context.Context, r traffic.Router) error {
		for _, weight := range []int{30, 60, 0} {
			if _, err := r.Nearest(ctx, weight); err != nil {
				return err
			}
			if err := r.Shift(ctx, traffic.Any, weight); err != nil {
				return err
			}
			if _, err := r.Observe(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	routes := w.define(t, gatewayCRD("httproutes"), "httproutes.gateway.networking.k8s.io").Resource(httpRoutes)
	meshes := w.define(t, istioCRDs, "virtualservices.networking.istio.io").Resource(virtualServices)
	for name, c := range map[string]struct {
		prepare func(t *testing.T, ns string)
		router  func(access *rest.Config, ns string) (part, error)
	}{
		"HTTPRoute": {
			func(t *testing.T, ns string) {
				create(t, routes.Namespace(ns), `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: shop}, spec: {
					rules: [{backendRefs: [{name: shop, port: 80}, {name: shop-canary, port: 80, weight: 0}]}]}}`)
			},
			func(access *rest.Config, ns string) (part, error) {
				return traffic.NewHTTPRoute(traffic.HTTPRouteConfig{REST: access, Namespace: ns, Name: release, Stable: release, Canary: canaryRelease})
			},
		},
		"VirtualService": {
			func(t *testing.T, ns string) {
				create(t, meshes.Namespace(ns), `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: shop}, spec: {hosts: [shop.example], http: [
					{route: [{destination: {host: shop}, weight: 100}, {destination: {host: shop-canary}}]}]}}`)
			},
			func(access *rest.Config, ns string) (part, error) {
				return traffic.NewVirtualService(traffic.VirtualServiceConfig{REST: access, Namespace: ns, Name: release,
					Stable: traffic.Destination{Host: release}, Canary: traffic.Destination{Host: canaryRelease}})
			},
		},
		"NGINX": {
			func(t *testing.T, ns string) {
				_, err := w.kube.NetworkingV1().Ingresses(ns).Create(labtest.Context(t), ingressOf(release, release, nil), metav1.CreateOptions{})
				require.NoError(t, err)
			},
			func(access *rest.Config, ns string) (part, error) {
				return traffic.NewNGINX(traffic.NGINXConfig{REST: access, Namespace: ns, Ingress: release, Stable: release, Canary: canaryRelease})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, ns := labtest.Context(t), w.namespace(t)
			c.prepare(t, ns)
			router := func(access *rest.Config) part {
				r, err := c.router(access, ns)
				require.NoError(t, err)
				return r
			}
			byNamespace, err := router(w.rest).RequiredRules(ctx, stages.Release{})
			require.NoError(t, err)
			rules := byNamespace[ns]
			require.NoError(t, shift(ctx, router(w.withRights(t, ns, rules).rest)))
			for i, r := range rules {
				for j, verb := range r.Verbs {
					as := w.withRights(t, ns, without(rules, i, j))
					err := shift(ctx, router(as.rest))
					require.Error(t, err, "%s %v", verb, r.Resources)
					assert.True(t, stages.IsPermanent(err))
					for _, word := range []string{verb, r.Resources[0], ns, as.rest.Impersonate.UserName} {
						assert.ErrorContains(t, err, word)
					}
					require.NoError(t, router(w.rest).Shift(ctx, traffic.Any, 0))
				}
			}
		})
	}
}

// without returns the rules but for one verb of one of them.
func without(rules []rbacv1.PolicyRule, rule, verb int) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for i := range rules {
		r := *rules[i].DeepCopy()
		if i == rule {
			r.Verbs = append(r.Verbs[:verb], r.Verbs[verb+1:]...)
		}
		if len(r.Verbs) > 0 {
			out = append(out, r)
		}
	}
	return out
}

// acceptAlways stands in for a gateway's controller until the test ends.
func acceptAlways(t *testing.T, api dynamic.ResourceInterface) {
	t.Helper()
	ctx, cancel := context.WithCancel(labtest.Context(t))
	events, err := api.Watch(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range events.ResultChan() {
			_ = accept(ctx, api) // after a conflict there is another event
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}
