package e2e_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
)

// estate has an object of every sort that an uninstallation treats in its own way.
var estate = map[string]string{
	"own.yaml": colours,
	"policy.yaml": `apiVersion: v1
kind: ConfigMap
metadata: {name: policy, annotations: {helm.sh/resource-policy: keep}}
`,
	"adopted.yaml": `apiVersion: v1
kind: ConfigMap
metadata: {name: adopted}
data: {of: the chart}
`,
	"claim.yaml": `apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
`,
	"hooks.yaml": `apiVersion: v1
kind: ConfigMap
metadata: {name: farewell, annotations: {helm.sh/hook: pre-delete}}
`,
}

func TestUninstall(t *testing.T) {
	w := newWorld(t)
	ctx := labtest.Context(t)
	ns := w.namespace(t)
	helm := w.helm(t, ns)
	adopted := []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"adopted","labels":{"app.kubernetes.io/managed-by":"Helm"},` +
		`"annotations":{"meta.helm.sh/release-name":"parts","meta.helm.sh/release-namespace":"` + ns + `"}},"data":{"of":"somebody"}}`)
	made, err := w.kube.CoreV1().ConfigMaps(ns).Patch(ctx, "adopted", types.ApplyPatchType, adopted, metav1.PatchOptions{FieldManager: "somebody"})
	require.NoError(t, err)
	// The API server tells ages to the second.
	<-time.After(time.Until(made.CreationTimestamp.Add(1100 * time.Millisecond)))
	requireDeployed(t, w.parts(t, ns, estate), "run-1")

	d := w.parts(t, ns, estate)
	plan, err := d.PlanRemoval(ctx, "run-2")
	require.NoError(t, err)
	require.Len(t, plan.Changes, 2)
	assert.Equal(t, stages.DangerStorage, plan.AllDangers()[0].Class)
	removal, err := d.Uninstall(ctx, "run-2")
	require.NoError(t, err)
	configMap := func(name string) stages.Object {
		return stages.Object{APIVersion: "v1", Kind: "ConfigMap", Namespace: ns, Name: name}
	}
	assert.ElementsMatch(t, []stages.Object{
		configMap("colours"), {APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: ns, Name: "claim"},
	}, removal.Removed)
	assert.ElementsMatch(t, []stages.Object{configMap("policy"), configMap("adopted"), configMap("farewell")}, removal.Kept)
	assert.Nil(t, w.configMap(t, ns, "colours"))
	_, err = w.kube.CoreV1().PersistentVolumeClaims(ns).Get(ctx, "claim", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "it was waited for: %v", err)
	assert.NotNil(t, w.configMap(t, ns, "policy"))
	assert.NotNil(t, w.configMap(t, ns, "adopted"))
	assert.NotNil(t, w.configMap(t, ns, "farewell"), "the hook ran")
	assert.NotContains(t, helm.run(t, "list", "--all", "-q"), "parts")
	leases, err := w.kube.CoordinationV1().Leases(ns).List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	assert.Empty(t, leases.Items)
	again, err := d.Uninstall(ctx, "run-3")
	require.NoError(t, err)
	assert.Empty(t, again.Removed)

	// Of a release that the helm command has made, too.
	helm.run(t, "install", "parts", writeChart(t, map[string]string{"a.yaml": colours}))
	removal, err = d.Uninstall(ctx, "run-4")
	require.NoError(t, err)
	assert.Equal(t, []stages.Object{configMap("colours")}, removal.Removed)
}

// TestUninstallWaitsForFinalizers is cancelled while a finalizer holds an object, and
// finished once it is taken off.
func TestUninstallWaitsForFinalizers(t *testing.T) {
	w := newWorld(t)
	ctx := labtest.Context(t)
	ns := w.namespace(t)
	chart := map[string]string{"a.yaml": colours, "b.yaml": sizes}
	requireDeployed(t, w.parts(t, ns, chart), "run-1")
	finalizers := func(text string) {
		_, err := w.kube.CoreV1().ConfigMaps(ns).Patch(ctx, "sizes", types.MergePatchType,
			[]byte(`{"metadata":{"finalizers":`+text+`}}`), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	finalizers(`["example.com/backup"]`)
	watched, err := w.kube.CoreV1().ConfigMaps(ns).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=sizes"})
	require.NoError(t, err)
	defer watched.Stop()
	bound, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for event := range watched.ResultChan() {
			if m, ok := event.Object.(metav1.Object); ok && m.GetDeletionTimestamp() != nil {
				cancel()
				return
			}
		}
	}()
	_, err = w.parts(t, ns, chart).Uninstall(bound, "run-2")
	require.ErrorIs(t, err, context.Canceled)
	helm := w.helm(t, ns)
	assert.Equal(t, "failed", helm.history(t, "parts")[0].Status)
	assert.Contains(t, helm.history(t, "parts")[0].Description, `fairlead run "run-2": uninstalled in part`)

	short := w.parts(t, ns, chart, func(cfg *helmx.Config) { cfg.Timeout = 2 * time.Second })
	_, err = short.Uninstall(ctx, "run-3")
	require.ErrorContains(t, err, "held by the finalizers example.com/backup")
	finalizers("null")
	_, err = w.parts(t, ns, chart).Uninstall(ctx, "run-4")
	require.NoError(t, err)
	assert.Nil(t, w.configMap(t, ns, "sizes"))
}

// TestReleaseSetRemoves plans a removal, undoes it when another member fails, and
// carries it through.
func TestReleaseSetRemoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := labtest.Context(t)
	ns := w.namespace(t)
	cluster := w.connect(t)
	part := func(name, templates string) releaseset.Member {
		chart := writeChart(t, map[string]string{"a.yaml": templates})
		return releaseset.Member{Namespace: ns, Name: name, Unscanned: true, Open: func(context.Context) (releaseset.Deployer, error) {
			return helmx.New(helmx.Config{Chart: chart, Release: name, Namespace: ns, Unscanned: "made by a test", Cluster: cluster})
		}}
	}
	gone := func(name string) releaseset.Member {
		return releaseset.Member{Namespace: ns, Name: name, Remove: true, Open: func(context.Context) (releaseset.Deployer, error) {
			return helmx.New(helmx.Config{RemoveOnly: true, KeepHistory: true, Release: name, Namespace: ns, Cluster: cluster})
		}}
	}
	set := func(members ...releaseset.Member) *releaseset.Set {
		set, err := releaseset.New(releaseset.Config{Members: members})
		require.NoError(t, err)
		return set
	}
	_, err := set(part("old", colours)).Apply(ctx, releaseset.ApplyRequest{Run: "set-1"})
	require.NoError(t, err)

	next := set(part("new", sizes), gone("old"))
	plan, err := next.Plan(ctx, releaseset.PlanRequest{Run: "set-2"})
	require.NoError(t, err)
	assert.Equal(t, releaseset.Count{Created: 1, Deleted: 1}, plan.Count())
	assert.Contains(t, plan.Diff(), "old (to be removed)")

	// What would be removed is another object by now.
	require.NoError(t, w.kube.CoreV1().ConfigMaps(ns).Delete(ctx, "colours", metav1.DeleteOptions{}))
	result, err := next.Apply(ctx, releaseset.ApplyRequest{Run: "set-2", Plan: &plan})
	require.ErrorIs(t, err, stages.ErrPlanStale)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	m, _ := result.Member(ns + "/new")
	assert.Equal(t, releaseset.Restored, m.Outcome, m.Restoration.Message)
	assert.Nil(t, w.configMap(t, ns, "sizes"))
	requireDeployedIn(t, set(part("old", colours)), "set-3")

	// One that is removed is brought back when the next can't be.
	stuck := part("stuck", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: stuck, finalizers: [example.com/never]}\n")
	requireDeployedIn(t, set(stuck), "set-4")
	held := releaseset.Member{Namespace: ns, Name: "stuck", Remove: true, Open: func(context.Context) (releaseset.Deployer, error) {
		return helmx.New(helmx.Config{RemoveOnly: true, KeepHistory: true, Release: "stuck", Namespace: ns, Cluster: cluster, Timeout: 2 * time.Second})
	}}
	old := gone("old")
	old.Needs = []string{"stuck"} // So that it goes first.
	result, err = set(old, held).Apply(ctx, releaseset.ApplyRequest{Run: "set-5"})
	require.ErrorContains(t, err, "remove "+ns+"/stuck")
	m, _ = result.Member(ns + "/old")
	assert.Equal(t, releaseset.Restored, m.Outcome, m.Restoration.Message)
	assert.Equal(t, "blue", w.configMap(t, ns, "colours").Data["sky"])
	_, err = w.kube.CoreV1().ConfigMaps(ns).Patch(ctx, "stuck", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	require.NoError(t, err)

	_, err = next.Apply(ctx, releaseset.ApplyRequest{Run: "set-6"})
	require.NoError(t, err)
	assert.Nil(t, w.configMap(t, ns, "colours"))
	assert.NotNil(t, w.configMap(t, ns, "sizes"))
	var listed []struct{ Name string }
	require.NoError(t, json.Unmarshal([]byte(w.helm(t, ns).run(t, "list", "--all", "-o", "json")), &listed))
	var names []string
	for _, r := range listed {
		names = append(names, r.Name)
	}
	assert.NotContains(t, names, "old", "its records are given up")
	assert.Contains(t, names, "new")
}

func requireDeployedIn(t *testing.T, set *releaseset.Set, run string) {
	t.Helper()
	_, err := set.Apply(labtest.Context(t), releaseset.ApplyRequest{Run: run})
	require.NoError(t, err)
}
