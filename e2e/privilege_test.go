package e2e_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/smoke"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

var _ = []helmx.RuleSource{
	(*rollout.Verifier)(nil), (*smoke.Test)(nil), (*traffic.ConfigMap)(nil),
	(*traffic.Replicas)(nil), (*traffic.Selector)(nil), (*traffic.HTTPRoute)(nil), (*traffic.VirtualService)(nil), (*traffic.NGINX)(nil),
}

// ruleSources are those of the parts that say which rules they need.
func ruleSources[T any](parts ...T) []helmx.RuleSource {
	var out []helmx.RuleSource
	for _, p := range parts {
		if source, ok := any(p).(helmx.RuleSource); ok {
			out = append(out, source)
		}
	}
	return out
}

// allVerifiers watch the rollout, fetch a page with a pod, run a job, and fetch a page
// through a port-forward.
func (w *world) allVerifiers(t *testing.T, access *rest.Config) []stages.Verifier {
	t.Helper()
	finished, err := smoke.NewJob(smoke.JobConfig{REST: access, Image: w.baseImage(t), Command: []string{"true"}})
	require.NoError(t, err)
	forwarded, err := smoke.NewHTTP(smoke.HTTPConfig{REST: access, Path: "/healthz/ready"})
	require.NoError(t, err)
	return append(w.verifiers(t, access), finished, forwarded)
}

// heldDeployer deploys the sample chart under a name, held to the rights that the
// other parts of the delivery need.
func heldDeployer(t *testing.T, access *rest.Config, namespace, name string, rules []helmx.RuleSource, values ...helmx.Override) *helmx.Deployer {
	t.Helper()
	deployer, err := helmx.New(helmx.Config{
		Chart: chartDir, Release: name, Namespace: namespace, Values: helmx.Values{Overrides: values},
		Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
		Kubernetes: helmx.Kubernetes{REST: access}, Rules: rules,
	})
	require.NoError(t, err)
	return deployer
}

// anyImage is one that rules can be derived for: they depend on none.
func (w *world) anyImage(t *testing.T) stages.Image {
	t.Helper()
	img, err := stages.ParseImage(w.box.Registry + "/any@sha256:" + strings.Repeat("0", 64))
	require.NoError(t, err)
	return img
}

// TestExampleRBAC keeps the example what is derived from the sample's chart. Run
// it with UPDATE_RBAC set in the environment to write it anew.
func TestExampleRBAC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	deployer := heldDeployer(t, w.rest, ns, release, ruleSources(w.verifiers(t, w.rest)...), helmx.Set("autoscaling.enabled=true,ingress.enabled=true"))
	derived, err := deployer.RequiredRBAC(labtest.Context(t), stages.PlanRequest{Image: w.anyImage(t)}, helmx.RBACOptions{})
	require.NoError(t, err)
	manifests, err := derived.Manifests(ns + "/cd-bot")
	require.NoError(t, err)
	manifests = bytes.ReplaceAll(manifests, []byte("namespace: "+ns+"\n"), []byte("namespace: shop\n"))
	const header = "# What a delivery of the sample service needs, its rollout and its smoke test\n" +
		"# included, as RequiredRBAC of package helmx derives it from the chart. Create the\n# namespace first.\n"
	const file = "../examples/rbac/cd-bot.yaml"
	if _, update := os.LookupEnv("UPDATE_RBAC"); update {
		require.NoError(t, os.WriteFile(file, append([]byte(header), manifests...), 0o600))
	}
	example, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, header+string(manifests), string(example))
}

// TestLeastPrivilege delivers, rolls back, and runs every kind of verification with
// the rights that were emitted and no others.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	admin := heldDeployer(t, w.rest, ns, release, ruleSources(w.allVerifiers(t, w.rest)...))
	granted, err := admin.RequiredRBAC(labtest.Context(t), stages.PlanRequest{Image: w.anyImage(t)}, helmx.RBACOptions{})
	require.NoError(t, err)
	bot := w.account(t, ns)
	bot.grant(t, granted)

	cfg := w.delivery(t, ns)
	cfg.Verifiers = w.allVerifiers(t, bot.rest)
	deployer := heldDeployer(t, bot.rest, ns, release, ruleSources(cfg.Verifiers...))
	cfg.Deployer, cfg.PlanGates = deployer, append(cfg.PlanGates, deployer.PrivilegeGate())
	good, err := run(t, cfg, source("1.0.0"))
	require.NoError(t, err)
	_, err = run(t, cfg, source("1.1.0", crashing))
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.NotContains(t, err.Error(), "events unavailable", "the evidence is complete")
	assert.NotContains(t, err.Error(), "logs unavailable")
	w.requireRunning(t, ns, good.Image)
}

// applyRBAC applies manifests of which all are in the namespace, and returns the name
// of the Role among them.
func (w *world) applyRBAC(t *testing.T, namespace string, manifests []byte) (role string) {
	t.Helper()
	ctx, apply := labtest.Context(t), metav1.ApplyOptions{FieldManager: "e2e", Force: true}
	client, err := dynamic.NewForConfig(w.rest)
	require.NoError(t, err)
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return role
		}
		require.NoError(t, err)
		require.Equal(t, namespace, object.GetNamespace(), "a %s is not for one namespace only", object.GetKind())
		kind := object.GroupVersionKind()
		if kind.Kind == "Role" {
			role = object.GetName()
		}
		resource := kind.GroupVersion().WithResource(strings.ToLower(kind.Kind) + "s")
		_, err = client.Resource(resource).Namespace(namespace).Apply(ctx, object.GetName(), &object, apply)
		require.NoError(t, err)
	}
}

func into[T any](t *testing.T, object unstructured.Unstructured) *T {
	t.Helper()
	typed := new(T)
	require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, typed, true))
	return typed
}
