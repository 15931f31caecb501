package e2e_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
)

// BenchmarkSign signs a new image each time, in process and with the cosign
// command line, and reports how many times faster the former is.
func BenchmarkSign(b *testing.B) {
	lab := newSignLab(b)
	signer := lab.signer(b, lab.ours, nil)
	var c comparison
	for b.Loop() {
		img, other := lab.image(b), lab.image(b)
		c.ours(func() {
			_, err := signer.Sign(lab.ctx, img)
			require.NoError(b, err)
		})
		c.theirs(func() { lab.cosignSign(b, lab.theirs, other) })
	}
	c.report(b, "cosign")
}

// BenchmarkDeploy upgrades a release of ten objects, with a library that stays
// connected and with the helm command, and counts what both ask of the API server.
func BenchmarkDeploy(b *testing.B) {
	d, c := newParts(b)
	for i := 0; b.Loop(); i++ {
		c.ours(func() { requireDeployed(b, d, fmt.Sprint("run-", i)) })
		c.theirs(func() { c.helm.run(b, "upgrade", "--install", "parts", c.chart) })
	}
	c.report(b)
}

// BenchmarkPlan asks what an upgrade would change, of the API server, beside helm
// upgrade --dry-run=server, which says less.
func BenchmarkPlan(b *testing.B) {
	d, c := newParts(b)
	for b.Loop() {
		c.ours(func() {
			_, err := d.Plan(labtest.Context(b), stages.PlanRequest{Run: "plan"})
			require.NoError(b, err)
		})
		c.theirs(func() { c.helm.run(b, "upgrade", "parts", c.chart, "--dry-run=server") })
	}
	c.report(b)
}

// BenchmarkReleaseSet applies twenty releases that are there already, as one set
// and as one helm command after the other.
func BenchmarkReleaseSet(b *testing.B) {
	const members = 20
	c := newHelmComparison(b, map[string]string{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\n"})
	var cfg releaseset.Config
	for i := range members {
		name := fmt.Sprint("part-", i)
		cfg.Members = append(cfg.Members, releaseset.Member{
			Namespace: c.helm.namespace, Name: name, Unscanned: true,
			Open: func(context.Context) (releaseset.Deployer, error) {
				return helmx.New(helmx.Config{Chart: c.chart, Release: name, Namespace: c.helm.namespace, Unscanned: "a benchmark", Cluster: c.cluster})
			},
		})
	}
	set, err := releaseset.New(cfg)
	require.NoError(b, err)
	for i := 0; b.Loop(); i++ {
		c.ours(func() {
			_, err := set.Apply(labtest.Context(b), releaseset.ApplyRequest{Run: fmt.Sprint("run-", i)})
			require.NoError(b, err)
		})
		c.theirs(func() {
			for n := range members {
				c.helm.run(b, "upgrade", "--install", fmt.Sprint("part-", n), c.chart)
			}
		})
	}
	c.report(b)
}

// newParts releases ten objects, to be released again by both sides.
func newParts(b *testing.B) (*helmx.Deployer, *helmComparison) {
	b.Helper()
	c := newHelmComparison(b, manyObjects)
	d := c.w.parts(b, c.helm.namespace, manyObjects, func(cfg *helmx.Config) { cfg.Kubernetes, cfg.Cluster = helmx.Kubernetes{}, c.cluster })
	requireDeployed(b, d, "first")
	c.asked = sum(c.cluster.Calls())
	return d, c
}

// manyObjects are the templates of ten objects.
var manyObjects = func() map[string]string {
	out := map[string]string{}
	for i := range 10 {
		out[fmt.Sprintf("%d.yaml", i)] = fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: many-%d}\ndata: {revision: {{ .Release.Revision | quote }}}\n", i)
	}
	return out
}()

// helmComparison is the library's connection and a helm command, both of which
// release the same chart to the same namespace, and what they ask of the API server.
type helmComparison struct {
	comparison
	w       *world
	chart   string
	cluster *helmx.Cluster
	asked   int // before the comparison, of the cluster
	helm    helmCommand
	calls   atomic.Int64 // of the command
}

func newHelmComparison(b *testing.B, templates map[string]string) *helmComparison {
	b.Helper()
	w := newWorld(b)
	c := &helmComparison{w: w, chart: writeChart(b, templates), cluster: w.connect(b), helm: w.helm(b, w.namespace(b))}
	transport, err := rest.TransportFor(w.rest)
	require.NoError(b, err)
	host, err := url.Parse(w.rest.Host)
	require.NoError(b, err)
	server := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		c.calls.Add(1)
		r.SetURL(host)
	}})
	b.Cleanup(server.Close)
	config := filepath.Join(b.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{name: x, cluster: {server: %q}}]\ncontexts: [{name: x, context: {cluster: x, user: x}}]\nusers: [{name: x, user: {}}]\n", server.URL)
	require.NoError(b, os.WriteFile(config, []byte(text), 0o600))
	c.helm.kubeconfig = config
	return c
}

func (c *helmComparison) report(b *testing.B) {
	b.Helper()
	c.comparison.report(b, "helm")
	b.ReportMetric(float64(sum(c.cluster.Calls())-c.asked)/float64(b.N), "fairlead-calls/op")
	b.ReportMetric(float64(c.calls.Load())/float64(b.N), "helm-calls/op")
}

func sum(calls map[helmx.Call]int) int {
	all := 0
	for _, n := range calls {
		all += n
	}
	return all
}

// comparison adds up the time that two ways take.
type comparison struct{ our, their time.Duration }

func (c *comparison) ours(f func()) {
	began := time.Now()
	f()
	c.our += time.Since(began)
}

func (c *comparison) theirs(f func()) {
	began := time.Now()
	f()
	c.their += time.Since(began)
}

func (c *comparison) report(b *testing.B, other string) {
	b.Helper()
	b.ReportMetric(float64(c.our.Nanoseconds())/float64(b.N), "fairlead-ns/op")
	b.ReportMetric(float64(c.their.Nanoseconds())/float64(b.N), other+"-ns/op")
	b.ReportMetric(float64(c.their)/float64(c.our), "times-faster")
}
