package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/environment"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestChartAndRightsOfAJenkinsfile takes a chart that only knows repository and
// tag, and the rights of a service account, as they stand in many a repository that
// was delivered by a Jenkinsfile.
func TestChartAndRightsOfAJenkinsfile(t *testing.T) {
	t.Parallel()
	const namespace = "default" // The rights name it.
	w := newWorld(t)
	ctx := labtest.Context(t)
	rights, err := os.ReadFile("testdata/seed/rbac.yaml")
	require.NoError(t, err)
	w.applyRBAC(t, namespace, rights)
	img := w.image(t, "jenkinsfile", "3.0.0")
	open := func(change func(*helmx.Config)) *helmx.Deployer {
		cfg := helmx.Config{
			Chart: "testdata/seed/helm-chart", Release: "myapp", Namespace: namespace,
			Values:     helmx.Values{Files: []string{"testdata/seed/helm-chart/values-stg.yaml"}},
			Image:      helmx.ImageValues{Repository: "image.repository", Tag: "image.tag"},
			Kubernetes: helmx.Kubernetes{REST: w.account(t, namespace).rest},
		}
		change(&cfg)
		d, err := helmx.New(cfg)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, d.Close()) })
		return d
	}
	clearance, err := stages.BypassGates(img, "made by a test")
	require.NoError(t, err)
	request := stages.DeployRequest{Clearance: clearance, Run: "run-1"}

	_, err = open(func(*helmx.Config) {}).Deploy(ctx, request)
	var missing *helmx.PrivilegeError
	require.ErrorAs(t, err, &missing, "the rights are older than the lock")
	for _, right := range missing.Missing {
		assert.Equal(t, "leases", right.Resource)
	}
	assert.ErrorContains(t, err, "coordination.k8s.io", "the role that would grant it is shown")

	d := open(func(cfg *helmx.Config) { cfg.Lock.Off = true })
	before, err := d.Checkpoint(ctx, stages.CheckpointRequest{Run: "run-1", Image: img})
	require.NoError(t, err)
	rel, err := d.Deploy(ctx, request)
	require.NoError(t, err)
	verified, err := w.ready(t).Verify(ctx, rel)
	require.NoError(t, err)
	assert.Equal(t, img, verified.Image)
	deployment, err := w.kube.AppsV1().Deployments(namespace).Get(ctx, "myapp", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, "cd-bot", deployment.Spec.Template.Spec.ServiceAccountName)
	assert.Contains(t, deployment.Spec.Template.Spec.Containers[0].Image, "@"+img.Digest().String())

	set, err := d.Provenance("replicaCount")
	require.NoError(t, err)
	assert.Equal(t, "replicaCount: testdata/seed/helm-chart/values-stg.yaml:3, over myapp/values.yaml:6", set[0].String())

	restored, err := d.Restore(ctx, "run-1", before)
	require.NoError(t, err)
	assert.Equal(t, stages.Restored, restored.Outcome, restored.Message)
}

// TestBranchesAndCanaryOfAJenkinsfile delivers the chart to where its branches go,
// with a second release of it as canary that is taken away again.
func TestBranchesAndCanaryOfAJenkinsfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := labtest.Context(t)
	img := w.image(t, "jenkinsfile-canary", "3.1.0")
	clearance, err := stages.BypassGates(img, "made by a test")
	require.NoError(t, err)
	dir := t.TempDir()
	declared, folder := filepath.Join(dir, "environments.yaml"), filepath.Join(dir, "helm-chart")
	require.NoError(t, os.CopyFS(folder, os.DirFS("testdata/seed/helm-chart")))
	staging, production := w.namespace(t), w.namespace(t)
	require.NoError(t, os.WriteFile(declared, fmt.Appendf(nil, `environments:
- {name: staging, branches: [develop], namespace: %s, values: [helm-chart/values-stg.yaml]}
- {name: production, branches: [main], namespace: %s, values: [helm-chart/values-prod.yaml]}
`, staging, production), 0o600))
	set, err := environment.Load(declared, environment.LoadOptions{})
	require.NoError(t, err)
	open := func(branch, name string, overrides ...helmx.Override) *environment.Deployer {
		env, err := set.Resolve(environment.Branch(branch))
		require.NoError(t, err)
		d, err := environment.NewDeployer(env, helmx.Config{
			Chart: folder, Release: name, CreateNamespace: true, Values: helmx.Values{Overrides: append(overrides, helmx.Set("serviceAccount.name=default"))},
			Image:      helmx.ImageValues{Repository: "image.repository", Tag: "image.tag"},
			Kubernetes: helmx.Kubernetes{REST: w.rest},
		})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, d.Close()) })
		return d
	}
	replicas := func(namespace, name string) int32 {
		deployment, err := w.kube.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		require.NoError(t, err)
		return *deployment.Spec.Replicas
	}
	for branch, namespace := range map[string]string{"develop": staging, "main": production} {
		d := open(branch, "myapp")
		plan, err := d.Plan(ctx, stages.PlanRequest{Image: img, Run: branch})
		require.NoError(t, err, "of what was never released, too")
		for _, c := range plan.Changes {
			assert.Equal(t, stages.Create, c.Action)
		}
		rel, err := d.Deploy(ctx, stages.DeployRequest{Clearance: clearance, Run: branch, Plan: plan.Digest})
		require.NoError(t, err)
		assert.Equal(t, namespace, rel.Namespace)
	}
	assert.EqualValues(t, 1, replicas(staging, "myapp"))
	assert.EqualValues(t, 2, replicas(production, "myapp"))

	canary := open("main", "myapp-canary", helmx.Set("replicaCount=1"), helmx.Set("service.canary=true"))
	rel, err := canary.Deploy(ctx, stages.DeployRequest{Clearance: clearance, Run: "canary"})
	require.NoError(t, err)
	_, err = w.ready(t).Verify(ctx, rel)
	require.NoError(t, err)
	assert.EqualValues(t, 1, replicas(production, "myapp-canary"))
	removal, err := canary.Uninstall(ctx, "canary")
	require.NoError(t, err)
	assert.Len(t, removal.Removed, 2)
	assert.EqualValues(t, 2, replicas(production, "myapp"), "the other release of the chart is left alone")
}
