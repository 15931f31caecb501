package e2e_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	canaryRelease  = release + "-canary"
	stableReplicas = 2
)

// canaryParts makes a canary of the sample chart: two releases behind one Service,
// which this machine can reach, and nothing else that the cluster would have to have.
func canaryParts(access *rest.Config, namespace string, lock helmx.LockConfig) (traffic.CanaryConfig, error) {
	parts, err := twoReleases(access, namespace, lock,
		map[string]any{"replicaCount": stableReplicas, "service": map[string]any{"shared": true, "type": "NodePort"}},
		map[string]any{"replicaCount": 0, "service": map[string]any{"canary": true}}) // No pods before the first step.
	if err != nil {
		return parts, err
	}
	parts.Router, err = traffic.NewReplicas(traffic.ReplicasConfig{REST: access, Namespace: namespace, Service: release, Stable: release, Canary: canaryRelease})
	return parts, err
}

// twoReleases are all parts of a canary but the router.
func twoReleases(access *rest.Config, namespace string, lock helmx.LockConfig, stableValues, canaryValues map[string]any) (traffic.CanaryConfig, error) {
	deployer := func(name string, values map[string]any) (*helmx.Deployer, error) {
		return helmx.New(helmx.Config{
			Chart: chartDir, Release: name, Namespace: namespace, Values: helmx.Values{Map: values},
			Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
			Kubernetes: helmx.Kubernetes{REST: access}, Lock: lock,
		})
	}
	stable, err := deployer(release, stableValues)
	if err != nil {
		return traffic.CanaryConfig{}, err
	}
	canary, err := deployer(canaryRelease, canaryValues)
	if err != nil {
		return traffic.CanaryConfig{}, err
	}
	ready, err := rollout.New(rollout.Config{REST: access, Timeout: rolloutTimeout, AllowUnused: true})
	if err != nil {
		return traffic.CanaryConfig{}, err
	}
	state, err := traffic.NewConfigMap(traffic.ConfigMapConfig{REST: access, Namespace: namespace, Release: release})
	return traffic.CanaryConfig{
		Stable: stable, Canary: canary, Verifiers: []stages.Verifier{ready}, State: state,
		Steps:    []traffic.Step{{Weight: 30, For: time.Second}, {Weight: 50, For: time.Second, Extend: 30 * time.Second}},
		Interval: 250 * time.Millisecond, Drain: time.Second,
	}, err
}

// newCanary makes one for this process, whose gates are asked in the second step.
func (w *world) newCanary(t *testing.T, namespace string, gates ...stages.Gate[stages.Release]) *traffic.Canary {
	t.Helper()
	parts, err := canaryParts(w.rest, namespace, helmx.LockConfig{})
	require.NoError(t, err)
	parts.Steps[1].Gates = gates
	canary, err := traffic.NewCanary(parts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, canary.Close()) })
	return canary
}

func bypassed(t *testing.T, img stages.Image, run string) stages.DeployRequest {
	t.Helper()
	clearance, err := stages.BypassGates(img, "made by a test")
	require.NoError(t, err)
	return stages.DeployRequest{Clearance: clearance, Run: run}
}

// requireNoCanary checks that all traffic is on a stable release of this version,
// and that nothing of a canary is left.
func (w *world) requireNoCanary(t *testing.T, canary *traffic.Canary, namespace, version string, img stages.Image) {
	t.Helper()
	ctx := labtest.Context(t)
	// A restore doesn't wait for pods.
	_, err := w.verifiers(t, w.rest)[0].Verify(ctx, stages.Release{Image: img, Name: release, Namespace: namespace,
		Objects: []stages.Object{{APIVersion: "apps/v1", Kind: "Deployment", Namespace: namespace, Name: release}}})
	require.NoError(t, err)
	status, err := canary.Status(ctx)
	require.NoError(t, err)
	assert.Nil(t, status.Record)
	assert.Zero(t, status.Traffic.Canary)
	deployments, err := w.kube.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, deployments.Items, 1)
	assert.EqualValues(t, stableReplicas, *deployments.Items[0].Spec.Replicas)
	assert.NotContains(t, deployments.Items[0].Annotations, "traffic.fairlead.dev/replicas")
	assert.NotContains(t, managersOf(deployments.Items[0].ManagedFields), traffic.FieldManager, "the replicas are the chart's again")
	records, err := w.kube.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{LabelSelector: "owner=helm,name=" + canaryRelease})
	require.NoError(t, err)
	assert.Empty(t, records.Items, "the canary's release")
	w.requirePage(t, namespace, version)
}

// requireAborted checks that a canary was aborted completely because of a gate.
func requireAborted(t *testing.T, err error) *traffic.AbortError {
	t.Helper()
	var aborted *traffic.AbortError
	require.ErrorAs(t, err, &aborted)
	require.ErrorIs(t, err, stages.ErrGateRefused)
	assert.Empty(t, aborted.Left)
	assert.Zero(t, aborted.Traffic.Canary)
	assert.NotEmpty(t, stages.EvidenceOf(err))
	t.Log(err)
	return aborted
}
