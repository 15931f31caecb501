package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/e2e/load"
	"github.com/fairlead-dev/fairlead/e2e/sandbox"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

var dataPlanesToo = flag.Bool("dataplane", false, "send requests through Traefik")

// requireDataPlanes skips a test unless it is asked for.
func requireDataPlanes(t *testing.T) {
	t.Helper()
	if !*dataPlanesToo {
		t.Skip("Traefik takes minutes to compile: make dataplane runs this")
	}
}

// traefik is the URL of the cluster's Traefik, which is started for the first test
// that asks.
func (w *world) traefik(t *testing.T) string {
	t.Helper()
	theWorld.Lock()
	defer theWorld.Unlock()
	if w.proxy != "" {
		return w.proxy
	}
	for _, kind := range []string{"backendtlspolicies", "gatewayclasses", "gateways", "grpcroutes", "httproutes", "referencegrants", "tlsroutes"} {
		w.define(t, gatewayCRD(kind), kind+".gateway.networking.k8s.io")
	}
	url, err := w.box.RunTraefik(labtest.Context(t))
	require.NoError(t, err)
	w.proxy = url
	return url
}

// dataPlane is a kind of router whose objects Traefik goes by.
type dataPlane struct {
	name string
	// divide makes the objects that send a host's requests to the two releases of
	// the namespace, and the router.
	divide func(t *testing.T, w *world, namespace, host string) traffic.Router
}

var dataPlanes = []dataPlane{
	{"HTTPRoute", func(t *testing.T, w *world, namespace, host string) traffic.Router {
		client := w.define(t, gatewayCRD("httproutes"), "httproutes.gateway.networking.k8s.io")
		create(t, client.Resource(httpRoutes).Namespace(namespace), fmt.Sprintf(
			`{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: shop}, spec: {
				hostnames: [%s], parentRefs: [{name: %s, namespace: %s}],
				rules: [{backendRefs: [{name: shop, port: 80, weight: 100}, {name: shop-canary, port: 80, weight: 0}]}]}}`,
			host, sandbox.TraefikGateway, sandbox.TraefikNamespace))
		r, err := traffic.NewHTTPRoute(traffic.HTTPRouteConfig{REST: w.rest, Namespace: namespace, Name: release, Stable: release, Canary: canaryRelease})
		require.NoError(t, err)
		return r
	}},
	{"NGINX", func(t *testing.T, w *world, namespace, host string) traffic.Router {
		ingress := ingressOf(release, release, nil)
		ingress.Spec.IngressClassName = new("nginx")
		ingress.Spec.Rules[0].Host = host
		_, err := w.kube.NetworkingV1().Ingresses(namespace).Create(labtest.Context(t), ingress, metav1.CreateOptions{})
		require.NoError(t, err)
		r, err := traffic.NewNGINX(traffic.NGINXConfig{REST: w.rest, Namespace: namespace, Ingress: release, Stable: release, Canary: canaryRelease})
		require.NoError(t, err)
		return r
	}},
}

// hostOf is the host that a data plane sends to the releases of a namespace.
func (p dataPlane) hostOf(namespace string) string {
	return strings.ToLower(p.name) + "." + namespace + ".example"
}

// doubt is how often a test of shares fails though nothing is wrong.
const doubt = 1e-6

// bounds are what the number of successes among n stays within, if each has the
// probability p, but for doubt.
func bounds(n int, p float64) (low, high int) {
	switch p {
	case 0:
		return 0, 0
	case 1:
		return n, n
	}
	probability := func(k int) float64 {
		all, _ := math.Lgamma(float64(n + 1))
		these, _ := math.Lgamma(float64(k + 1))
		others, _ := math.Lgamma(float64(n - k + 1))
		return math.Exp(all - these - others + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
	}
	for below := probability(0); below <= doubt/2; below += probability(low) {
		low++
	}
	high = n
	for above := probability(n); above <= doubt/2; above += probability(high) {
		high--
	}
	return low, high
}

// share sends some n requests, which must all be served, and reports how many of
// them the version did, and whether that is what weight percent come to.
func share(t *testing.T, url, host, version string, weight, n int) (served, of int, ok bool) {
	t.Helper()
	g, err := load.Start(labtest.Context(t), load.Config{URL: url, Host: host, Rate: 200})
	require.NoError(t, err)
	defer g.Stop()
	require.Eventually(t, func() bool { return g.Report().Sent() >= n }, time.Minute, 10*time.Millisecond)
	report := requireUnharmed(t, g)
	served, of = report.Versions[version].Served, report.Sent()
	low, high := bounds(of, float64(weight)/100)
	return served, of, low <= served && served <= high
}

// TestTraefikDividesRequests sends requests through a real proxy that goes by the
// objects that routers write.
func TestTraefikDividesRequests(t *testing.T) {
	requireDataPlanes(t)
	w := newWorld(t)
	url := w.traefik(t)
	ctx := labtest.Context(t)
	ns := w.namespace(t)
	for name, version := range map[string]string{release: "1.0.0", canaryRelease: "1.1.0"} {
		img, err := w.builder(t, ns).Build(ctx, source(version))
		require.NoError(t, err)
		rel, err := w.shopDeployer(t, ns, name).Deploy(ctx, bypassed(t, img, "run-"+name))
		require.NoError(t, err)
		_, err = w.verifiers(t, w.rest)[0].Verify(ctx, rel)
		require.NoError(t, err)
	}
	for _, plane := range dataPlanes {
		t.Run(plane.name, func(t *testing.T) {
			host := plane.hostOf(ns)
			router := plane.divide(t, w, ns, host)
			awaitRoute(t, url, host)
			for _, weight := range []int{0, 20, 70, 100, 0} {
				require.NoError(t, router.Shift(ctx, traffic.Any, weight))
				require.Eventually(t, func() bool {
					split, err := router.Observe(ctx)
					return err == nil && split.Settled && split.Canary == weight
				}, time.Minute, 50*time.Millisecond)
				settled := time.Now()
				// Proxies don't say that they do as they are told, but it shows.
				require.Eventually(t, func() bool {
					_, _, ok := share(t, url, host, "1.1.0", weight, 100)
					return ok
				}, time.Minute, time.Millisecond)
				took := time.Since(settled)
				served, of, ok := share(t, url, host, "1.1.0", weight, 1000)
				t.Logf("MEASURED weight %d: %d of %d requests, %.1f%%; seen within %.1f s of the split that counts as settled",
					weight, served, of, 100*float64(served)/float64(of), took.Seconds())
				assert.True(t, ok, "%d of %d requests are not %d%%", served, of, weight)
			}
		})
	}
}

// awaitRoute waits until the host's requests are served.
func awaitRoute(t *testing.T, url, host string) {
	t.Helper()
	g, err := load.Start(labtest.Context(t), load.Config{URL: url, Host: host})
	require.NoError(t, err)
	defer g.Stop()
	require.Eventually(t, func() bool { return len(g.Report().Versions) > 0 }, time.Minute, 20*time.Millisecond)
}

// noted is a router that notes since when nothing is to go to the canary.
type noted struct {
	traffic.Router
	takenBack time.Time
}

func (r *noted) Observe(ctx context.Context) (traffic.Split, error) {
	split, err := r.Router.Observe(ctx)
	switch {
	case err != nil:
	case split.Canary > 0:
		r.takenBack = time.Time{}
	case split.Settled && r.takenBack.IsZero():
		r.takenBack = time.Now()
	}
	return split, err
}

// proxied is a canary of the sample service behind Traefik.
type proxied struct {
	world     *world
	namespace string
	url, host string
	images    map[string]stages.Image
	router    *noted
	removed   time.Time // when the removal of the last canary began
}

// canary makes one for this process. Chart values are the canary's own.
func (p *proxied) canary(t *testing.T, values map[string]any, state func(traffic.State) traffic.State, gates ...stages.Gate[stages.Release]) *traffic.Canary {
	t.Helper()
	// Pods go on serving until Traefik, which collects changes for two seconds, has
	// noticed.
	parts, err := twoReleases(p.world.rest, p.namespace, helmx.LockConfig{}, map[string]any{"drainSeconds": 8}, values)
	require.NoError(t, err)
	parts.Router, parts.State = p.router, state(parts.State)
	parts.Steps = []traffic.Step{{Weight: 20, For: time.Second}, {Weight: 70, For: 3 * time.Second, Extend: time.Minute, Gates: gates}}
	parts.Drain, parts.GateTimeout = traffic.DefaultDrain, gateTimeout+10*time.Second
	canary, err := traffic.NewCanary(parts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, canary.Close()) })
	return canary
}

func asIs(s traffic.State) traffic.State { return s }

func (p *proxied) deploy(t *testing.T, canary *traffic.Canary, version string) error {
	t.Helper()
	ctx := stages.WithProgress(labtest.Context(t), func(s stages.Progress) {
		if s.ID == "canary" {
			t.Log(s.Message)
		}
		if s.Message == "removing the canary" {
			p.removed = time.Now()
		}
	})
	_, err := canary.Deploy(ctx, bypassed(t, p.images[version], "run-"+version))
	return err
}

// visitors are load on the service through Traefik.
func (p *proxied) visitors(t *testing.T) *load.Generator {
	t.Helper()
	g, err := load.Start(labtest.Context(t), load.Config{URL: p.url, Host: p.host})
	require.NoError(t, err)
	t.Cleanup(func() { g.Stop() })
	return g
}

// TestCanariesBehindTraefik delivers canaries through a real proxy. Whatever becomes
// of them, it loses no request, and asks no canary that is gone.
func TestCanariesBehindTraefik(t *testing.T) {
	requireDataPlanes(t)
	w := newWorld(t)
	w.prometheus(t)
	url := w.traefik(t)
	for _, plane := range dataPlanes {
		t.Run(plane.name, func(t *testing.T) {
			ns := w.namespace(t)
			p := &proxied{world: w, namespace: ns, url: url, host: plane.hostOf(ns), images: map[string]stages.Image{}}
			for version, args := range map[string][]string{"1.0.0": nil, "1.1.0": nil, "1.2.0": {failing}, "1.3.0": {crashing}} {
				img, err := w.builder(t, ns).Build(labtest.Context(t), source(version, args...))
				require.NoError(t, err)
				p.images[version] = img
			}
			p.router = &noted{Router: plane.divide(t, w, ns, p.host)}
			require.NoError(t, p.deploy(t, p.canary(t, nil, asIs), "1.0.0"), "the first install needs no canary")
			awaitRoute(t, p.url, p.host)

			t.Run("is promoted", p.promoted)
			t.Run("is aborted by a gate", p.breached)
			t.Run("is aborted without pods that run", func(t *testing.T) { p.grounded(t, "1.3.0", nil) })
			t.Run("is aborted as the cluster refuses it", func(t *testing.T) { p.grounded(t, "1.2.0", map[string]any{"replicaCount": -1}) })
			t.Run("is forgotten after its removal", p.forgotten)
		})
	}
}

func (p *proxied) promoted(t *testing.T) {
	guests := p.visitors(t)
	gate := &timed{p.world.errorGate(t, release), t, guests, "1.1.0"}
	require.NoError(t, p.deploy(t, p.canary(t, nil, asIs, gate), "1.1.0"))
	report := requireUnharmed(t, guests)
	assert.NotZero(t, report.Versions["1.0.0"].Served)
	assert.NotZero(t, report.Versions["1.1.0"].Served)
}

func (p *proxied) breached(t *testing.T) {
	guests := p.visitors(t)
	gate := &timed{p.world.errorGate(t, release), t, guests, "1.2.0"}
	err := p.deploy(t, p.canary(t, nil, asIs, gate), "1.2.0")
	assert.Equal(t, "error-rate", requireAborted(t, err).Decisions[0].Gate)
	ended := guests.Report().Sent()
	require.Eventually(t, func() bool { return guests.Report().Sent() >= ended+100 }, time.Minute, 10*time.Millisecond)
	report := requireUnharmed(t, guests, "1.2.0")
	last := report.Versions["1.2.0"].Last
	t.Logf("MEASURED the canary's last answer came %.2f s after the split that counts as settled, and %.2f s before its removal",
		last.Sub(p.router.takenBack).Seconds(), p.removed.Sub(last).Seconds())
	assert.NotZero(t, report.Versions["1.2.0"].Failed, "the canary had traffic")
	assert.Less(t, last, p.removed, "the proxy knew before the canary was removed")
}

// grounded is a canary that fails before it can have any traffic.
func (p *proxied) grounded(t *testing.T, version string, values map[string]any) {
	guests := p.visitors(t)
	err := p.deploy(t, p.canary(t, values, asIs), version)
	aborted, ok := errors.AsType[*traffic.AbortError](err)
	require.True(t, ok, "%v", err)
	assert.Empty(t, aborted.Left)
	assert.Equal(t, traffic.Deploying, aborted.Phase)
	report := requireUnharmed(t, guests)
	assert.Len(t, report.Versions, 1)
}

// forgotten is a canary whose process died when it had removed it, and only the
// record was left.
func (p *proxied) forgotten(t *testing.T) {
	guests := p.visitors(t)
	refuse := stages.GateFunc[stages.Release](func(context.Context, stages.Release) (stages.Decision, error) {
		return stages.Decision{Gate: "refusal", Verdict: stages.Fail}, nil
	})
	canary := p.canary(t, nil, func(s traffic.State) traffic.State { return &indelible{State: s} }, refuse)
	aborted, ok := errors.AsType[*traffic.AbortError](p.deploy(t, canary, "1.2.0"))
	require.True(t, ok)
	require.ErrorIs(t, errors.Join(aborted.Left...), errIndelible)

	next := p.canary(t, nil, asIs)
	status, err := next.Status(labtest.Context(t))
	require.NoError(t, err)
	require.NotNil(t, status.Record)
	require.NoError(t, next.Abort(labtest.Context(t), "clear up"))
	status, err = next.Status(labtest.Context(t))
	require.NoError(t, err)
	assert.Nil(t, status.Record)
	requireUnharmed(t, guests, "1.2.0")
}

// indelible is a state whose record stays.
type indelible struct{ traffic.State }

var errIndelible = stages.Permanent(errors.New("the record can't be deleted"))

func (*indelible) Delete(context.Context, string) error { return errIndelible }
