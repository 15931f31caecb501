package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/helmfile"
	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	settingsBefore = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {mode: before}\n"
	settingsAfter  = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {mode: after}\n---\n" +
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndata: {a: b}\n"
)

// TestReleaseSet takes three releases, each needing the one before, through an
// install, an upgrade whose last member does not start, and one that succeeds.
func TestReleaseSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	first, second := w.image(t, ns, "1.0.0"), w.image(t, ns, "1.1.0")
	crashes := w.image(t, ns, "1.2.0", crashing)
	cluster := w.connect(t)
	set := func(settings string, api, web stages.Image) *releaseset.Set {
		set, err := releaseset.New(releaseset.Config{Members: []releaseset.Member{
			w.service(t, cluster, ns, "web", web, "api"),
			w.service(t, cluster, ns, "api", api, "settings"),
			{
				Namespace: ns, Name: "settings", Unscanned: true,
				Open: func(context.Context) (releaseset.Deployer, error) {
					return helmx.New(helmx.Config{
						Chart: writeChart(t, map[string]string{"a.yaml": settings}), Release: "settings", Namespace: ns,
						Unscanned: "made by a test", Cluster: cluster,
					})
				},
			},
		}})
		require.NoError(t, err)
		return set
	}
	ctx := labtest.Context(t)

	fresh := set(settingsBefore, first, first)
	plan, err := fresh.Plan(ctx, releaseset.PlanRequest{Run: "set-1"})
	require.NoError(t, err)
	assert.Equal(t, []string{ns + "/settings", ns + "/api", ns + "/web"}, fresh.Members())
	assert.Zero(t, plan.Count().Updated)
	assert.Contains(t, plan.Diff(), first.Digest().String())
	result, err := fresh.Apply(ctx, releaseset.ApplyRequest{Run: "set-1"})
	require.NoError(t, err)
	for _, m := range result.Members {
		assert.Equal(t, releaseset.Deployed, m.Outcome, m.Member)
	}
	before := w.setState(t, ns)
	require.Equal(t, map[string]string{"api": first.String(), "web": first.String(), "settings": "before"}, before)

	result, err = set(settingsAfter, second, crashes).Apply(ctx, releaseset.ApplyRequest{Run: "set-2"})
	require.ErrorIs(t, err, stages.ErrRolledBack)
	require.NotErrorIs(t, err, stages.ErrRollbackFailed)
	require.NotEmpty(t, stages.EvidenceOf(err))
	assert.Equal(t, "CrashLoopBackOff", stages.EvidenceOf(err)[0].Reason)
	for _, m := range result.Members {
		assert.Equal(t, releaseset.Restored, m.Outcome, "%s: %s", m.Member, m.Restoration.Message)
	}
	assert.Equal(t, before, w.setState(t, ns), "all of it must be as before")
	for name, why := range map[string]string{"web": "CrashLoopBackOff", "api": "another release of the set failed: verify " + ns + "/web"} {
		history := w.helm(t, ns).history(t, name)
		assert.Equal(t, "failed", history[1].Status, name)
		assert.Contains(t, history[1].Description, why, "helm history tells why %s was rolled back", name)
	}

	_, err = set(settingsAfter, second, second).Apply(ctx, releaseset.ApplyRequest{Run: "set-3"})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"api": second.String(), "web": second.String(), "settings": "after", "extra": ""}, w.setState(t, ns))
}

// TestHelmfileAsWritten applies the seed's helmfile, with the sample chart in the
// place of its own.
func TestHelmfileAsWritten(t *testing.T) {
	w := newWorld(t)
	t.Cleanup(func() { w.deleteNamespace(t, "prod") }) // The file names it.
	img := w.image(t, "helmfile", "2.0.0")
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(dir, "helm-chart"), os.DirFS(chartDir)))
	text, err := os.ReadFile("../helmx/helmfile/testdata/seed/helmfile.yaml")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "helmfile.yaml"), text, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "values-prod.yaml"), []byte("replicaCount: 2\ngreeting: hello from the helmfile\n"), 0o600))

	clearance, err := stages.BypassGates(img, "made by a test")
	require.NoError(t, err)
	ctx := labtest.Context(t)
	set, err := helmfile.Load(ctx, helmfile.Config{
		Path: filepath.Join(dir, "helmfile.yaml"), Cluster: w.connect(t),
		Env: func(name string) (string, bool) { return "2.0.0", name == "IMAGE_TAG" },
		Images: map[string]helmfile.Image{
			"myapp": {Clearance: clearance, Values: helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"}},
		},
		Verify: func(string, string) stages.Verifier { return w.ready(t) },
	})
	require.NoError(t, err)
	result, err := set.Apply(ctx, releaseset.ApplyRequest{Run: "helmfile-1"})
	require.NoError(t, err)
	m, ok := result.Member("prod/myapp")
	require.True(t, ok)
	assert.Equal(t, img, m.Verification.Image)
	deployment, err := w.kube.AppsV1().Deployments("prod").Get(ctx, "myapp", metav1.GetOptions{})
	require.NoError(t, err)
	assert.EqualValues(t, 2, *deployment.Spec.Replicas)
	assert.Equal(t, img.String(), deployment.Spec.Template.Spec.Containers[0].Image)
	assert.Equal(t, "hello from the helmfile", deployment.Spec.Template.Spec.Containers[0].Env[0].Value)

	plan, err := set.Plan(ctx, releaseset.PlanRequest{Run: "helmfile-2"})
	require.NoError(t, err)
	assert.Zero(t, plan.Count(), "applied again it changes nothing")
}

// image builds a version of the sample service.
func (w *world) image(t *testing.T, repository, version string, buildArgs ...string) stages.Image {
	t.Helper()
	img, err := w.builder(t, repository).Build(labtest.Context(t), source(version, buildArgs...))
	require.NoError(t, err)
	return img
}

func (w *world) connect(t testing.TB) *helmx.Cluster {
	t.Helper()
	cluster, err := helmx.Connect(helmx.Kubernetes{REST: w.rest})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, cluster.Close()) })
	return cluster
}

func (w *world) ready(t *testing.T) stages.Verifier {
	t.Helper()
	ready, err := rollout.New(rollout.Config{REST: w.rest, Timeout: rolloutTimeout})
	require.NoError(t, err)
	return ready
}

// service is a member that runs the sample service under a name of its own.
func (w *world) service(t *testing.T, cluster *helmx.Cluster, namespace, name string, img stages.Image, needs ...string) releaseset.Member {
	t.Helper()
	clearance, err := stages.BypassGates(img, "made by a test")
	require.NoError(t, err)
	return releaseset.Member{
		Namespace: namespace, Name: name, Needs: needs, Clearance: clearance, Verify: w.ready(t),
		Open: func(context.Context) (releaseset.Deployer, error) {
			return helmx.New(helmx.Config{
				Chart: chartDir, Release: name, Namespace: namespace, Cluster: cluster,
				Values: helmx.Values{Map: map[string]any{"replicaCount": 1}},
				Image:  helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
			})
		},
	}
}

// setState returns what runs and what is set, without what Kubernetes adds.
func (w *world) setState(t *testing.T, namespace string) map[string]string {
	t.Helper()
	ctx := labtest.Context(t)
	out := map[string]string{}
	deployments, err := w.kube.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	for _, d := range deployments.Items {
		out[d.Name] = d.Spec.Template.Spec.Containers[0].Image
	}
	configs, err := w.kube.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	for _, cm := range configs.Items {
		if cm.Name != "kube-root-ca.crt" {
			out[cm.Name] = cm.Data["mode"]
		}
	}
	return out
}
