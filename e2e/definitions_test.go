package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	// crates are of a kind of the whole cluster.
	crates = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crates.NAMESPACE.example.com}
spec:
  group: NAMESPACE.example.com
  names: {kind: Crate, plural: crates, singular: crate}
  scope: Cluster
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`
	box   = "apiVersion: NAMESPACE.example.com/v1\nkind: Box\nmetadata: {name: shoes}\nspec: {size: WIDTH}\n"
	crate = "apiVersion: NAMESPACE.example.com/v1\nkind: Crate\nmetadata: {name: NAMESPACE-apples}\n"
)

// TestDefinitionsAndTheirObjects releases definitions together with objects of the
// kinds that they define, which the helm command can't, and goes back to before.
func TestDefinitionsAndTheirObjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	objects, err := dynamic.NewForConfig(w.rest)
	require.NoError(t, err)
	for _, mode := range []helmx.ApplyMode{helmx.ServerSide, helmx.ClientSide} {
		t.Run(string(mode), func(t *testing.T) {
			ns := w.namespace(t)
			ctx := labtest.Context(t)
			fill := strings.NewReplacer("GROUP", "boxes."+ns+".example.com", "NAMESPACE", ns, "SIZE", "integer", "WIDTH", "42").Replace
			dir := t.TempDir()
			write := func(name, text string) {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(fill(text)), 0o600))
			}
			open := func() *helmx.Deployer {
				d, err := helmx.New(helmx.Config{
					Manifests: []string{dir}, Release: "parts", Namespace: ns, Unscanned: "made by a test",
					Apply: helmx.Apply{Mode: mode}, Kubernetes: helmx.Kubernetes{REST: w.rest},
				})
				require.NoError(t, err)
				return d
			}
			get := func(resource, name string) (any, error) {
				kind := objects.Resource(schema.GroupVersionResource{Group: ns + ".example.com", Version: "v1", Resource: resource})
				if resource == "boxes" {
					got, err := kind.Namespace(ns).Get(ctx, name, metav1.GetOptions{})
					if err != nil {
						return nil, err
					}
					return got.Object["spec"], nil
				}
				return kind.Get(ctx, name, metav1.GetOptions{})
			}
			write("a-box.yaml", box)
			write("b-crate.yaml", crate)
			write("c-definitions.yaml", boxes+"---\n"+crates)
			d := open()
			plan, err := d.Plan(ctx, stages.PlanRequest{Run: "run-1"})
			require.NoError(t, err)
			require.Len(t, plan.Changes, 4)
			untried := map[string]bool{}
			for _, c := range plan.Changes {
				assert.Nil(t, c.Refusal, "%s", c.Object)
				assert.Equal(t, stages.Create, c.Action, "%s", c.Object)
			}
			for _, n := range plan.Notes {
				untried[n.Object.String()] = n.Kind == stages.NoteKindMissing
			}
			assert.Equal(t, map[string]bool{"Box " + ns + "/shoes": true, "Crate " + ns + "-apples": true}, untried)
			rights, err := d.RequiredRBAC(ctx, stages.PlanRequest{Run: "run-1"}, helmx.RBACOptions{Once: true})
			require.NoError(t, err)
			granted, err := rights.Manifests(ns + "/cd-bot")
			require.NoError(t, err)
			assert.Contains(t, string(granted), "crates\n", "the rights to a kind that isn't there yet are known")

			_, err = d.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "run-1", Plan: plan.Digest})
			require.NoError(t, err)
			size, err := get("boxes", "shoes")
			require.NoError(t, err)
			assert.Equal(t, map[string]any{"size": int64(42)}, size)
			_, err = get("crates", ns+"-apples")
			require.NoError(t, err)
			plan, err = d.Plan(ctx, stages.PlanRequest{Run: "run-2"})
			require.NoError(t, err)
			assert.Empty(t, plan.Changes)
			assert.Empty(t, plan.Drift)

			// A definition gets a version, an object of it is in the same manifests, and a
			// kind goes with its objects.
			first, err := open().Checkpoint(ctx, stages.CheckpointRequest{Run: "run-2"})
			require.NoError(t, err)
			v2 := strings.Replace(boxes, "  versions:\n", "  versions:\n  - {name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}\n", 1)
			write("c-definitions.yaml", v2)
			write("b-crate.yaml", strings.NewReplacer("/v1", "/v2", "shoes", "hats", "WIDTH", "7").Replace(box))
			d = open()
			plan, err = d.Plan(ctx, stages.PlanRequest{Run: "run-2"})
			require.NoError(t, err)
			_, err = d.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "run-2", Plan: plan.Digest})
			require.NoError(t, err)
			size, err = get("boxes", "hats")
			require.NoError(t, err)
			assert.Equal(t, map[string]any{"size": int64(7)}, size)

			restored, err := d.Restore(ctx, "run-2", first)
			require.NoError(t, err)
			assert.Equal(t, stages.Restored, restored.Outcome, "%+v", restored)
			_, err = get("crates", ns+"-apples")
			require.NoError(t, err, "the kind is back, and the object of it")
			_, err = get("boxes", "hats")
			require.Error(t, err)

			_, err = d.Uninstall(ctx, "run-3")
			require.NoError(t, err)
			for _, name := range []string{"boxes", "crates"} {
				_, err = objects.Resource(definitions).Get(ctx, name+"."+ns+".example.com", metav1.GetOptions{})
				require.Error(t, err, "the definitions are of the release, and go with it")
			}
		})
	}
}

// folder puts definitions into the chart's crds folder.
func folder(t *testing.T, policy helmx.CRDs, definitions string) func(*helmx.Config) {
	t.Helper()
	return func(cfg *helmx.Config) {
		crds := filepath.Join(cfg.Chart, "crds")
		require.NoError(t, os.Mkdir(crds, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(crds, "boxes.yaml"), []byte(definitions), 0o600))
		cfg.CRDs = policy
	}
}

// TestFolderOfDefinitions releases a chart that has definitions in its crds folder.
func TestFolderOfDefinitions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	objects, err := dynamic.NewForConfig(w.rest)
	require.NoError(t, err)
	name := "boxes." + ns + ".example.com"
	t.Cleanup(func() {
		assert.NoError(t, objects.Resource(definitions).Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}))
	})
	chart := func(policy helmx.CRDs, size, width string) *helmx.Deployer {
		fill := strings.NewReplacer("GROUP", name, "NAMESPACE", ns, "SIZE", size, "WIDTH", width).Replace
		return w.parts(t, ns, map[string]string{
			"box.yaml": fill(`{{ if .Capabilities.APIVersions.Has "NAMESPACE.example.com/v1/Box" }}` + "\n" + box + "{{ end }}\n"),
		}, folder(t, policy, fill(boxes)))
	}
	d := chart(helmx.CRDsCreate, "integer", "42")
	plan, err := d.Plan(ctx, stages.PlanRequest{Run: "run-1"})
	require.NoError(t, err)
	require.Len(t, plan.Changes, 2)
	assert.Equal(t, name, plan.Changes[0].Object.Name)
	_, err = d.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "run-1", Plan: plan.Digest})
	require.NoError(t, err)
	plan, err = d.Plan(ctx, stages.PlanRequest{Run: "run-2"})
	require.NoError(t, err)
	assert.Empty(t, plan.Changes)

	// Helm's policy leaves a definition that exists, the other one updates it.
	text := `"the size"`
	plan, err = chart(helmx.CRDsCreate, "string", text).Plan(ctx, stages.PlanRequest{Run: "run-2"})
	require.NoError(t, err)
	require.Len(t, plan.Changes, 1)
	assert.NotNil(t, plan.Changes[0].Refusal, "the old definition wants a number")
	d = chart(helmx.CRDsApply, "string", text)
	before, err := d.Checkpoint(ctx, stages.CheckpointRequest{Run: "run-2"})
	require.NoError(t, err)
	plan, err = d.Plan(ctx, stages.PlanRequest{Run: "run-2"})
	require.NoError(t, err)
	require.NotEmpty(t, plan.Changes)
	assert.Equal(t, stages.Update, plan.Changes[0].Action)
	assert.Equal(t, stages.DangerCRD, plan.Changes[0].Dangers[0].Class)
	_, err = d.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "run-2", Plan: plan.Digest})
	require.NoError(t, err)

	restored, err := d.Restore(ctx, "run-2", before)
	require.NoError(t, err)
	assert.Equal(t, stages.Diverged, restored.Outcome, "the definition is as the second revision left it")
	assert.Contains(t, fmt.Sprintf("%+v", restored), "spec.size")
	_, err = d.Uninstall(ctx, "run-3")
	require.NoError(t, err)
	_, err = objects.Resource(definitions).Get(ctx, name, metav1.GetOptions{})
	require.NoError(t, err, "it is not of the release")
}

// TestDefinitionsInASet has one release define the kinds that another one needs: the
// whole set is planned before any of it is there, and applied as planned.
func TestDefinitionsInASet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	cluster := w.connect(t)
	fill := strings.NewReplacer("GROUP", "boxes."+ns+".example.com", "NAMESPACE", ns, "SIZE", "integer", "WIDTH", "42").Replace
	member := func(name string, templates map[string]string, needs ...string) releaseset.Member {
		return releaseset.Member{Namespace: ns, Name: name, Unscanned: true, Needs: needs, Open: func(context.Context) (releaseset.Deployer, error) {
			return helmx.New(helmx.Config{
				Chart: writeChart(t, templates), Release: name, Namespace: ns, Unscanned: "made by a test", Cluster: cluster,
			})
		}}
	}
	set, err := releaseset.New(releaseset.Config{Members: []releaseset.Member{
		member("things", map[string]string{"a.yaml": fill(box), "b.yaml": fill(crate)}, ns+"/between"),
		member("between", map[string]string{"a.yaml": colours}, ns+"/kinds"),
		member("kinds", map[string]string{"a.yaml": fill(boxes), "b.yaml": fill(crates)}),
	}})
	require.NoError(t, err)
	plan, err := set.Plan(ctx, releaseset.PlanRequest{Run: "run-1"})
	require.NoError(t, err)
	assert.Equal(t, 5, plan.Count().Created)
	assert.Zero(t, plan.Count().Refused, plan.Diff())
	result, err := set.Apply(ctx, releaseset.ApplyRequest{Run: "run-1", Plan: &plan})
	require.NoError(t, err)
	for _, m := range result.Members {
		assert.Equal(t, releaseset.Deployed, m.Outcome, m.Member)
	}
	plan, err = set.Plan(ctx, releaseset.PlanRequest{Run: "run-2"})
	require.NoError(t, err)
	assert.Contains(t, plan.Diff(), "3 unchanged")
	for _, name := range []string{"things", "kinds"} { // Or the definitions would be left.
		d, err := helmx.New(helmx.Config{RemoveOnly: true, Release: name, Namespace: ns, Cluster: cluster})
		require.NoError(t, err)
		_, err = d.Uninstall(ctx, "run-3")
		require.NoError(t, err)
	}
}

// TestDefinitionsMoveToTheFolder has a chart's next version keep its definition in the
// crds folder: it must not go with the templates, and its objects with it.
func TestDefinitionsMoveToTheFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	objects, err := dynamic.NewForConfig(w.rest)
	require.NoError(t, err)
	name := "boxes." + ns + ".example.com"
	fill := strings.NewReplacer("GROUP", name, "NAMESPACE", ns, "SIZE", "integer", "WIDTH", "42").Replace
	requireDeployed(t, w.parts(t, ns, map[string]string{"a.yaml": fill(boxes), "b.yaml": fill(box)}), "run-1")
	made, err := objects.Resource(definitions).Get(ctx, name, metav1.GetOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, objects.Resource(definitions).Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}))
	})
	for run, policy := range map[string]helmx.CRDs{"run-2": helmx.CRDsCreate, "run-3": helmx.CRDsApply} {
		d := w.parts(t, ns, map[string]string{"b.yaml": fill(box)}, folder(t, policy, fill(boxes)))
		plan, err := d.Plan(ctx, stages.PlanRequest{Run: run})
		require.NoError(t, err)
		for _, c := range plan.Changes {
			assert.NotEqual(t, stages.Delete, c.Action, "%s", c.Object)
		}
		_, err = d.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: run, Plan: plan.Digest})
		require.NoError(t, err)
		is, err := objects.Resource(definitions).Get(ctx, name, metav1.GetOptions{})
		require.NoError(t, err)
		assert.Equal(t, made.GetUID(), is.GetUID())
		assert.Nil(t, is.GetDeletionTimestamp())
	}
}

// TestDefinitionsBesideWhatIsAdopted has Helm install a release in its other way, which
// it takes where objects are adopted.
func TestDefinitionsBesideWhatIsAdopted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	_, err := w.kube.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "colours"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	fill := strings.NewReplacer("GROUP", "boxes."+ns+".example.com", "NAMESPACE", ns, "SIZE", "integer", "WIDTH", "42").Replace
	d := w.parts(t, ns, map[string]string{"a.yaml": colours, "b.yaml": fill(box), "c.yaml": fill(boxes)},
		func(cfg *helmx.Config) { cfg.TakeOwnership = true })
	plan, err := d.Plan(ctx, stages.PlanRequest{Run: "run-1"})
	require.NoError(t, err)
	_, err = d.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "run-1", Plan: plan.Digest})
	require.NoError(t, err)
	assert.Equal(t, "blue", w.configMap(t, ns, "colours").Data["sky"])
	_, err = d.Uninstall(ctx, "run-2")
	require.NoError(t, err)
	plan, err = d.Plan(ctx, stages.PlanRequest{Run: "run-3"})
	require.NoError(t, err)
	for _, c := range plan.Changes {
		assert.Nil(t, c.Refusal, "%s: the kind is gone, and known to be", c.Object)
	}
}

// TestTwoReleasesBringTheSameDefinition plans both before either is deployed.
func TestTwoReleasesBringTheSameDefinition(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	name := "boxes." + ns + ".example.com"
	fill := strings.NewReplacer("GROUP", name, "NAMESPACE", ns, "SIZE", "integer", "WIDTH", "42").Replace
	var deployers []*helmx.Deployer
	var plans []stages.Plan
	for _, release := range []string{"one", "two"} {
		d := w.parts(t, ns, map[string]string{"box.yaml": strings.ReplaceAll(fill(box), "shoes", release)}, folder(t, helmx.CRDsCreate, fill(boxes)), func(cfg *helmx.Config) { cfg.Release = release })
		plan, err := d.Plan(ctx, stages.PlanRequest{Run: "run-1"})
		require.NoError(t, err)
		deployers, plans = append(deployers, d), append(plans, plan)
	}
	t.Cleanup(func() {
		objects, err := dynamic.NewForConfig(w.rest)
		require.NoError(t, err)
		assert.NoError(t, objects.Resource(definitions).Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}))
	})
	for i, d := range deployers {
		_, err := d.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "run-1", Plan: plans[i].Digest})
		require.NoError(t, err)
	}
}
