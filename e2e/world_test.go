package e2e_test

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/e2e/sandbox"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/smoke"
	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/scan/trivy"
	"github.com/fairlead-dev/fairlead/sign"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/buildkit"
	"github.com/fairlead-dev/fairlead/stages/policy"
)

const (
	appDir   = "../examples/app"
	chartDir = appDir + "/chart"
	release  = "shop"

	rolloutTimeout = 4 * time.Minute
)

// world is the sandbox that all end-to-end tests of this package deliver to. They
// keep apart by namespace, and by repository.
type world struct {
	box    *sandbox.Sandbox
	rest   *rest.Config
	kube   kubernetes.Interface
	images *registry.Client
	key    *sign.PrivateKey
	proxy  string // Traefik's URL, if it runs
}

var theWorld struct {
	sync.Mutex
	w *world
}

// newWorld returns the world, making it for the first test that asks.
func newWorld(t testing.TB) *world {
	t.Helper()
	cluster := labtest.Cluster(t)
	theWorld.Lock()
	defer theWorld.Unlock()
	if theWorld.w != nil {
		return theWorld.w
	}
	box, err := sandbox.Start(labtest.Context(t), sandbox.Config{Lab: labtest.Require(t), Cluster: cluster})
	require.NoError(t, err)
	labtest.AtExit(box.Close)
	w := &world{box: box}
	w.rest, err = helmx.Kubernetes{KubeconfigPath: box.Kubeconfig}.RESTConfig()
	require.NoError(t, err)
	w.kube, err = kubernetes.NewForConfig(w.rest)
	require.NoError(t, err)
	w.images, err = registry.New(registry.Config{})
	require.NoError(t, err)
	w.key = newKey(t)
	theWorld.w = w
	return w
}

func newKey(t testing.TB) *sign.PrivateKey {
	t.Helper()
	pair, err := sign.GenerateKeyPair([]byte("password"))
	require.NoError(t, err)
	key, err := sign.LoadPrivateKey(pair.Private, []byte("password"))
	require.NoError(t, err)
	return key
}

// namespace makes a namespace that is deleted with the test.
func (w *world) namespace(t testing.TB) string {
	t.Helper()
	ns, err := w.kube.CoreV1().Namespaces().Create(labtest.Context(t),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { w.deleteNamespace(t, ns.Name) })
	return ns.Name
}

func (w *world) deleteNamespace(t testing.TB, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := w.kube.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
	if err != nil && !strings.Contains(err.Error(), "not found") {
		t.Errorf("delete namespace %s: %v", name, err)
	}
}

// delivery is the sample service's pipeline, with every part as it is in the
// examples. A test changes what it is about before it calls pipeline.New.
func (w *world) delivery(t testing.TB, namespace string) pipeline.Config {
	t.Helper()
	return pipeline.Config{
		Name:      namespace,
		Builder:   w.builder(t, namespace),
		Scanner:   w.scanner(t),
		ScanGates: []stages.Gate[stages.Report]{vulnerabilityGate(t)},
		PlanGates: []stages.Gate[stages.Plan]{policyGate(t)},
		Signer:    w.signer(t, w.key),
		Deployer:  w.deployer(t, namespace, w.rest),
		Verifiers: w.verifiers(t, w.rest),
		Observers: []pipeline.Observer{logEvents(t)},
	}
}

func (w *world) builder(t testing.TB, repository string) *buildkit.Builder {
	t.Helper()
	builder, err := buildkit.New(buildkit.Config{
		Address:    w.box.BuildKit,
		Repository: w.box.Registry + "/" + repository,
		BuildArgs:  map[string]string{"BUILD_IMAGE": w.box.Base.Go, "RUNTIME_IMAGE": w.box.Base.Base},
	})
	require.NoError(t, err)
	return builder
}

func (w *world) scanner(t testing.TB) *trivy.Scanner {
	t.Helper()
	scanner, err := trivy.New(trivy.Config{CacheDir: filepath.Join(t.TempDir(), "trivy"), Database: w.box.Database})
	require.NoError(t, err)
	return scanner
}

func vulnerabilityGate(t testing.TB) stages.Gate[stages.Report] {
	t.Helper()
	gate, err := scan.NewPolicy(scan.PolicyConfig{Threshold: stages.SeverityHigh, IgnoreUnfixed: true})
	require.NoError(t, err)
	return gate
}

func policyGate(t testing.TB) stages.Gate[stages.Plan] {
	t.Helper()
	gate, err := policy.New(policy.Config{Modules: []fs.FS{policy.Baseline()}})
	require.NoError(t, err)
	return gate
}

func (w *world) signer(t testing.TB, key *sign.PrivateKey) *sign.Signer {
	t.Helper()
	signer, err := sign.NewSigner(sign.SignerConfig{Key: key, Registry: w.images})
	require.NoError(t, err)
	return signer
}

func (w *world) deployer(t testing.TB, namespace string, access *rest.Config) *helmx.Deployer {
	t.Helper()
	deployer, err := helmx.New(helmx.Config{
		Chart: chartDir, Release: release, Namespace: namespace, CreateNamespace: true,
		Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
		Kubernetes: helmx.Kubernetes{REST: access},
	})
	require.NoError(t, err)
	return deployer
}

func (w *world) verifiers(t testing.TB, access *rest.Config) []stages.Verifier {
	t.Helper()
	ready, err := rollout.New(rollout.Config{REST: access, Timeout: rolloutTimeout})
	require.NoError(t, err)
	curl, err := stages.ParseImage(w.box.Base.Base)
	require.NoError(t, err)
	reachable, err := smoke.NewPod(smoke.PodConfig{
		REST: access, Image: curl, URL: "http://{{.Release}}.{{.Namespace}}.svc/healthz/ready",
	})
	require.NoError(t, err)
	return []stages.Verifier{ready, reachable}
}

// run delivers src through cfg, and closes the pipeline with the test.
func run(t *testing.T, cfg pipeline.Config, src stages.Source) (*pipeline.Result, error) {
	t.Helper()
	return runUnder(labtest.Context(t), t, cfg, src)
}

func runUnder(ctx context.Context, t *testing.T, cfg pipeline.Config, src stages.Source) (*pipeline.Result, error) {
	t.Helper()
	p, err := pipeline.New(cfg)
	require.NoError(t, err)
	result, err := p.Run(ctx, src)
	require.NotNil(t, result, "%v", err)
	return result, err
}

// source is a version of the sample service.
func source(version string, buildArgs ...string) stages.Source {
	src := stages.Source{Dir: appDir, Revision: version, Tags: []string{version}, BuildArgs: map[string]string{"VERSION": version}}
	for _, arg := range buildArgs {
		name, value, _ := strings.Cut(arg, "=")
		src.BuildArgs[name] = value
	}
	return src
}

// crashing and vulnerable are what a version is built with to be so.
const (
	crashing   = "REQUIRED_ENV=DATABASE_URL"
	vulnerable = "ASSETS=assets-legacy"
)

// logEvents writes the steps of a run to the test's log.
func logEvents(t testing.TB) pipeline.Observer {
	return pipeline.ObserverFunc(func(e pipeline.Event) {
		if e.Kind != pipeline.KindProgress {
			t.Logf("%s %s %s %s %s", e.Stage, e.Kind, e.Elapsed.Round(10*time.Millisecond), e.Message, e.Error)
		}
	})
}

// page fetches the sample service's page through the API server, which takes a
// ready endpoint of the service as a client in the cluster would.
func (w *world) page(ctx context.Context, namespace string) (string, error) {
	body, err := w.kube.CoreV1().Services(namespace).ProxyGet("http", release, "80", "/", nil).DoRaw(ctx)
	return string(body), err
}

// requirePage checks which version answers.
func (w *world) requirePage(t *testing.T, namespace, version string) {
	t.Helper()
	body, err := w.page(labtest.Context(t), namespace)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("shop %s: welcome\n", version), body)
}
