package e2e_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestChartAndRightsOfAJenkinsfile takes a chart that only knows repository and
// tag, and the rights of a service account, as they stand in many a repository that
// was delivered by a Jenkinsfile.
func TestChartAndRightsOfAJenkinsfile(t *testing.T) {
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
