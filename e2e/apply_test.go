package e2e_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	colours = `apiVersion: v1
kind: ConfigMap
metadata: {name: colours, labels: {app.kubernetes.io/part-of: parts}}
data: {sky: blue, grass: green}
`
	coloursAtNight = `apiVersion: v1
kind: ConfigMap
metadata: {name: colours}
data: {sky: black}
`
	sizes = `apiVersion: v1
kind: ConfigMap
metadata: {name: sizes}
data: {small: "1"}
`
)

func serverSide(conflicts map[string]helmx.ConflictPolicy) func(*helmx.Config) {
	return func(cfg *helmx.Config) { cfg.Apply = helmx.Apply{Mode: helmx.ServerSide, Conflicts: conflicts} }
}

// own writes a field of the ConfigMap under a name of its own.
func (w *world) own(t *testing.T, namespace, manager, key, value string) {
	t.Helper()
	data, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "colours"}, "data": map[string]any{key: value},
	})
	require.NoError(t, err)
	force := true
	_, err = w.kube.CoreV1().ConfigMaps(namespace).Patch(labtest.Context(t), "colours", types.ApplyPatchType, data,
		metav1.PatchOptions{FieldManager: manager, Force: &force})
	require.NoError(t, err)
}

func (w *world) configMap(t *testing.T, namespace, name string) *corev1.ConfigMap {
	t.Helper()
	cm, err := w.kube.CoreV1().ConfigMaps(namespace).Get(labtest.Context(t), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(t, err)
	return cm
}

func TestServerSideApply(t *testing.T) {
	t.Parallel()
	w := newWorld(t)

	t.Run("takes over what was applied by the client, and lets go of what the chart drops", func(t *testing.T) {
		ns := w.namespace(t)
		requireDeployed(t, w.parts(t, ns, map[string]string{"a.yaml": colours, "b.yaml": sizes}), "run-1")
		night := w.parts(t, ns, map[string]string{"a.yaml": coloursAtNight}, serverSide(nil))
		plan, err := night.Plan(labtest.Context(t), stages.PlanRequest{Run: "run-2"})
		require.NoError(t, err)
		dropped := map[string]string{}
		for _, f := range plan.Changes[0].Fields {
			dropped[f.Path] = f.To
		}
		assert.Equal(t, map[string]string{"data.sky": `"black"`, "data.grass": "", `metadata.labels["app.kubernetes.io/part-of"]`: ""}, dropped)
		assert.Contains(t, plan.Notes[0].Message, "is dropped: data.grass")
		_, err = night.DeployUnscanned(labtest.Context(t), helmx.UnscannedRequest{Run: "run-2", Plan: plan.Digest})
		require.NoError(t, err)

		cm := w.configMap(t, ns, "colours")
		assert.Equal(t, map[string]string{"sky": "black"}, cm.Data)
		assert.NotContains(t, cm.Labels, "app.kubernetes.io/part-of")
		for _, f := range cm.ManagedFields {
			assert.Equal(t, metav1.ManagedFieldsOperationApply, f.Operation, "manager %s", f.Manager)
		}
		assert.Nil(t, w.configMap(t, ns, "sizes"), "what the chart no longer has is deleted")
	})

	t.Run("installs, and goes back to the client's way", func(t *testing.T) {
		ns := w.namespace(t)
		requireDeployed(t, w.parts(t, ns, map[string]string{"a.yaml": colours}, serverSide(nil)), "run-1")
		requireDeployed(t, w.parts(t, ns, map[string]string{"a.yaml": coloursAtNight}), "run-2")
		assert.Equal(t, map[string]string{"sky": "black"}, w.configMap(t, ns, "colours").Data)
	})

	t.Run("refuses, yields or overwrites by manager", func(t *testing.T) {
		ns := w.namespace(t)
		requireDeployed(t, w.parts(t, ns, map[string]string{"a.yaml": colours}, serverSide(nil)), "run-1")
		w.own(t, ns, "painter", "sky", "red")

		d := w.parts(t, ns, map[string]string{"a.yaml": colours}, serverSide(nil))
		_, err := d.DeployUnscanned(labtest.Context(t), helmx.UnscannedRequest{Run: "run-2"})
		var owned *helmx.OwnershipError
		require.ErrorAs(t, err, &owned)
		assert.Equal(t, []helmx.OwnedField{{Path: ".data.sky", Manager: "painter"}}, owned.Fields)
		assert.Equal(t, "colours", owned.Object.Name)
		assert.True(t, stages.IsPermanent(err))
		assert.Equal(t, "red", w.configMap(t, ns, "colours").Data["sky"])

		requireDeployed(t, w.parts(t, ns, map[string]string{"a.yaml": colours}, serverSide(map[string]helmx.ConflictPolicy{"painter": helmx.Yield})), "run-3")
		assert.Equal(t, map[string]string{"sky": "red", "grass": "green"}, w.configMap(t, ns, "colours").Data)

		requireDeployed(t, w.parts(t, ns, map[string]string{"a.yaml": colours}, serverSide(map[string]helmx.ConflictPolicy{helmx.AnyManager: helmx.Overwrite})), "run-4")
		assert.Equal(t, "blue", w.configMap(t, ns, "colours").Data["sky"])
	})

	t.Run("restores", func(t *testing.T) {
		ns := w.namespace(t)
		requireDeployed(t, w.parts(t, ns, map[string]string{"a.yaml": colours, "b.yaml": sizes}, serverSide(nil)), "run-1")
		d := w.parts(t, ns, map[string]string{"a.yaml": coloursAtNight}, serverSide(nil))
		before, err := d.Checkpoint(labtest.Context(t), stages.CheckpointRequest{Run: "run-2"})
		require.NoError(t, err)
		requireDeployed(t, d, "run-2")
		restored, err := d.Restore(labtest.Context(t), "run-2", before)
		require.NoError(t, err)
		assert.Equal(t, stages.Restored, restored.Outcome, restored.Message)
		assert.Equal(t, map[string]string{"sky": "blue", "grass": "green"}, w.configMap(t, ns, "colours").Data)
		assert.NotNil(t, w.configMap(t, ns, "sizes"))
	})
}

func TestHelmTest(t *testing.T) {
	w := newWorld(t)
	chartTest := func(name, command string) string {
		return `apiVersion: v1
kind: Pod
metadata:
  name: ` + name + `
  annotations: {"helm.sh/hook": test}
spec:
  restartPolicy: Never
  containers:
  - name: probe
    image: ` + w.box.Base.Base + `
    command: ["sh", "-c", "` + command + `"]
`
	}
	t.Run("passes", func(t *testing.T) {
		d := w.parts(t, w.namespace(t), map[string]string{"a.yaml": colours, "test.yaml": chartTest("fine", "true")})
		v, err := d.Tests().Verify(labtest.Context(t), requireDeployed(t, d, "run-1"))
		require.NoError(t, err)
		require.Len(t, v.Checks, 1)
		assert.Equal(t, "helm test Pod fine", v.Checks[0].Name)
	})
	t.Run("fails and says what the test wrote", func(t *testing.T) {
		d := w.parts(t, w.namespace(t), map[string]string{"a.yaml": colours, "test.yaml": chartTest("broken", "echo the till is empty; exit 3")})
		_, err := d.Tests().Verify(labtest.Context(t), requireDeployed(t, d, "run-1"))
		var hook *helmx.HookError
		require.ErrorAs(t, err, &hook)
		assert.Contains(t, hook.Logs, "broken/probe: the till is empty")
	})
	t.Run("what a test writes of secrets is masked", func(t *testing.T) {
		d := w.parts(t, w.namespace(t), map[string]string{
			"a.yaml":    "apiVersion: v1\nkind: Secret\nmetadata: {name: till}\nstringData: {password: \"canary-heron-1138\\n\"}\n",
			"test.yaml": chartTest("talkative", "echo password is canary-heron-1138; exit 1"),
		})
		_, err := d.Tests().Verify(labtest.Context(t), requireDeployed(t, d, "run-1"))
		var hook *helmx.HookError
		require.ErrorAs(t, err, &hook)
		assert.Contains(t, hook.Logs, "talkative/probe: password is "+helmx.Redacted)
	})
	t.Run("a chart without tests verifies nothing", func(t *testing.T) {
		d := w.parts(t, w.namespace(t), map[string]string{"a.yaml": colours})
		_, err := d.Tests().Verify(labtest.Context(t), requireDeployed(t, d, "run-1"))
		require.ErrorIs(t, err, stages.ErrInvalid)
	})
}

func TestNamespaceIsMadeAsAsked(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t) + "-made"
	t.Cleanup(func() { w.deleteNamespace(t, ns) })
	requireDeployed(t, w.parts(t, ns, map[string]string{"a.yaml": colours}, func(cfg *helmx.Config) {
		cfg.CreateNamespace = true
		cfg.NamespaceLabels = map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
		cfg.NamespaceAnnotations = map[string]string{"example.com/team": "till"}
	}), "run-1")
	got, err := w.kube.CoreV1().Namespaces().Get(labtest.Context(t), ns, metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, "restricted", got.Labels["pod-security.kubernetes.io/enforce"])
	assert.Equal(t, "till", got.Annotations["example.com/team"])
}

func TestDeployersShareACluster(t *testing.T) {
	w := newWorld(t)
	cluster, err := helmx.Connect(helmx.Kubernetes{REST: w.rest})
	require.NoError(t, err)
	defer cluster.Close()
	share := func(cfg *helmx.Config) { cfg.Kubernetes, cfg.Cluster = helmx.Kubernetes{}, cluster }
	requireDeployed(t, w.parts(t, w.namespace(t), map[string]string{"a.yaml": colours}, share), "run-1")
	first := cluster.Calls()
	assert.Equal(t, 1, first[helmx.Call{Verb: "create", Resource: "configmaps"}])
	assert.Greater(t, first[helmx.Call{Verb: "get"}], 2, "discovery")
	requireDeployed(t, w.parts(t, w.namespace(t), map[string]string{"a.yaml": colours}, share), "run-2")
	second := cluster.Calls()
	assert.Equal(t, 1, second[helmx.Call{Verb: "get"}]-first[helmx.Call{Verb: "get"}], "what is known of the cluster is shared; Helm asks whether it is there")
	assert.Equal(t, 2, second[helmx.Call{Verb: "create", Resource: "configmaps"}])
}

func TestImpersonation(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	d := w.parts(t, ns, map[string]string{"a.yaml": colours}, func(cfg *helmx.Config) {
		cfg.Kubernetes.Impersonate.UserName = "system:serviceaccount:" + ns + ":default"
	})
	_, err := d.DeployUnscanned(labtest.Context(t), helmx.UnscannedRequest{Run: "run-1"})
	var missing *helmx.PrivilegeError
	require.ErrorAs(t, err, &missing)
	assert.Equal(t, "system:serviceaccount:"+ns+":default", missing.Subject)
}
