package helmx_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestFolderOfDefinitionsIsWaitedForAsAWhole: one that is on its way out is no definition
// to rely on, and all have the time of one.
func TestFolderOfDefinitionsIsWaitedForAsAWhole(t *testing.T) {
	a := newAPIServer(t, "shop")
	crates := strings.NewReplacer("boxes", "crates", "Box", "Crate").Replace(boxes("v1:size"))
	chart := unscanned(t, a, map[string]string{"b.yaml": box("v1", "size: s")}, folder(t, helmx.CRDsCreate, crates+"---\n"+boxes("v1:size")),
		func(c *helmx.Config) { c.Timeout = 300 * time.Millisecond })
	deployParts(t, chart, "run-1", "")
	a.edit(boxesPath, func(o content) content {
		section(o, "metadata")["deletionTimestamp"] = time.Now().UTC().Format(time.RFC3339)
		section(o, "metadata")["finalizers"] = []any{"customresourcecleanup.apiextensions.k8s.io"}
		return o
	})
	p := planParts(t, chart)
	assert.Equal(t, stages.Create, changeOf(t, p, "CustomResourceDefinition", "boxes.example.com").Action)
	assert.Equal(t, []string{"CustomResourceDefinition boxes.example.com"}, notesOf(p, stages.NoteNotTried))
	_, err := chart.DeployUnscanned(t.Context(), helmx.UnscannedRequest{Run: "run-2"})
	require.ErrorContains(t, err, "CustomResourceDefinition boxes.example.com is still being deleted after 300ms, held by the finalizers customresourcecleanup")

	uid := dig(a.get(boxesPath), "metadata", "uid")
	gone := time.AfterFunc(100*time.Millisecond, func() { a.edit(boxesPath, func(content) content { return nil }) })
	defer gone.Stop()
	deployParts(t, chart, "run-3", "")
	require.NotNil(t, a.get(boxesPath))
	assert.NotEqual(t, uid, dig(a.get(boxesPath), "metadata", "uid"))

	for _, name := range []string{"boxes", "crates"} {
		a.edit(definitionsPath+name+".example.com", func(content) content { return nil })
	}
	a.hold = true // Neither will be established.
	began := time.Now()
	_, err = chart.DeployUnscanned(t.Context(), helmx.UnscannedRequest{Run: "run-4"})
	require.ErrorContains(t, err, "not done after 300ms")
	assert.Less(t, time.Since(began), 600*time.Millisecond)
	assert.NotNil(t, a.get(boxesPath), "all are written before the first is waited for")
}

// TestPlanDoesNotHoldForADefinitionThatMoved since it was found as the folder has it: to
// write it was in no plan.
func TestPlanDoesNotHoldForADefinitionThatMoved(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := unscanned(t, a, map[string]string{"b.yaml": box("v1", "size: s")}, folder(t, helmx.CRDsApply, boxes("v1:size")))
	deployParts(t, d, "run-1", "")
	p := planParts(t, d)
	require.Empty(t, p.Changes)
	a.edit(boxesPath, func(obj content) content {
		section(obj, "spec")["versions"].([]any)[0].(content)["schema"] = content{"openAPIV3Schema": content{"type": "object"}}
		return obj
	})
	_, err := d.DeployUnscanned(t.Context(), helmx.UnscannedRequest{Run: "run-2", Plan: p.Digest})
	moved, ok := errors.AsType[*helmx.MovedError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, []string{"CustomResourceDefinition boxes.example.com was changed or deleted"}, moved.Moved)
	p = planParts(t, d)
	require.Len(t, p.Changes, 1)
	deployParts(t, d, "run-3", p.Digest)
}

// TestUninstallLeavesAFolderOfDefinitions, also where a template had one of them before.
func TestUninstallLeavesAFolderOfDefinitions(t *testing.T) {
	for _, policy := range []helmx.CRDs{helmx.CRDsCreate, helmx.CRDsApply} {
		t.Run(string(policy), func(t *testing.T) {
			a := newAPIServer(t, "shop")
			deployParts(t, unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size"), "b.yaml": box("v1", "size: s")}), "run-1", "")
			d := unscanned(t, a, map[string]string{"b.yaml": box("v1", "size: s")}, folder(t, policy, boxes("v1:size")))
			deployParts(t, d, "run-2", "")
			_, err := d.Uninstall(t.Context(), "run-3")
			require.NoError(t, err)
			assert.Nil(t, a.get(boxPath))
			assert.NotNil(t, a.get(boxesPath))
		})
	}
}

// TestUninstallOfAChartWithAFolderThatCantBeRead, and that nobody has asked for.
func TestUninstallOfAChartWithAFolderThatCantBeRead(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size")}, folder(t, helmx.CRDsSkip, "a: [\n"))
	deployParts(t, d, "run-1", "")
	_, err := d.Uninstall(t.Context(), "run-2")
	require.NoError(t, err)
	assert.Nil(t, a.get(boxesPath))
}

// TestChartsThatAskForKindsOfOthers are planned with what those will have defined.
func TestChartsThatAskForKindsOfOthers(t *testing.T) {
	a := newAPIServer(t, "shop")
	kinds := unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size")}, func(c *helmx.Config) { c.Release = "kinds" })
	templates := map[string]string{
		"b.yaml": `{{ if and (.Capabilities.APIVersions.Has "example.com/v1") (.Capabilities.APIVersions.Has "example.com/v1/Box") }}` + "\n" + box("v1", "size: s") + "{{ end }}\n",
	}
	d := unscanned(t, a, templates)
	assert.NotContains(t, string(planParts(t, d).Manifests), "Box")
	p := planParts(t, d, planParts(t, kinds).Defines...)
	assert.Equal(t, stages.Create, changeOf(t, p, "Box", "shoes").Action)
	deployParts(t, kinds, "run-1", "")
	deployParts(t, unscanned(t, a, templates), "run-1", p.Digest) // One that doesn't know the cluster from before.
	assert.NotNil(t, a.get(boxPath))
}

// TestFolderOfDefinitionsThatMayNotBeRead is planned by what the cluster serves.
func TestFolderOfDefinitionsThatMayNotBeRead(t *testing.T) {
	for policy, want := range map[helmx.CRDs][]stages.Action{helmx.CRDsCreate: nil, helmx.CRDsApply: {stages.Update}} {
		a := newAPIServer(t, "shop")
		d := unscanned(t, a, map[string]string{}, folder(t, policy, boxes("v1:size")))
		read := func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || r.URL.Path != boxesPath {
				return false
			}
			fail(w, 403, metav1.StatusReasonForbidden, `customresourcedefinitions.apiextensions.k8s.io "boxes.example.com" is forbidden: User "bot" cannot get resource "customresourcedefinitions"`)
			return true
		}
		actions := func(d *helmx.Deployer) (out []stages.Action) {
			p := planParts(t, d)
			assert.Equal(t, []string{"CustomResourceDefinition boxes.example.com"}, notesOf(p, stages.NoteNotCompared))
			for _, c := range p.Changes {
				if c.Object.Kind == "CustomResourceDefinition" {
					out = append(out, c.Action)
				}
			}
			return out
		}
		a.onRequest(read)
		assert.Equal(t, []stages.Action{stages.Create}, actions(d))
		a.onRequest(nil)
		deployParts(t, d, "run-1", "")
		a.onRequest(read)
		assert.Equal(t, want, actions(d), policy)
	}
}

// TestDefinitionsThatControllersWriteInto are not overwritten unasked.
func TestDefinitionsThatControllersWriteInto(t *testing.T) {
	conflict := func(manager string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPatch || r.URL.Path != boxesPath || r.URL.Query().Get("force") == "true" {
				return false
			}
			fail(w, 409, metav1.StatusReasonConflict, "Apply failed with 1 conflict",
				metav1.StatusCause{Type: metav1.CauseTypeFieldManagerConflict, Field: ".spec.conversion", Message: `conflict with "` + manager + `" using apiextensions.k8s.io/v1`})
			return true
		}
	}
	for name, test := range map[string]struct {
		manager   string
		conflicts map[string]helmx.ConflictPolicy
		refused   bool
	}{
		"kubectl":              {"kubectl-client-side-apply", nil, false},
		"a controller":         {"cainjector", nil, true},
		"one that may be lost": {"cainjector", map[string]helmx.ConflictPolicy{"cainjector": helmx.Overwrite}, false},
		"any":                  {"cainjector", map[string]helmx.ConflictPolicy{helmx.AnyManager: helmx.Overwrite}, false},
		"kubectl is kept":      {"kubectl", map[string]helmx.ConflictPolicy{"kubectl": helmx.Refuse}, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			chart := func(fields string) *helmx.Deployer {
				return unscanned(t, a, map[string]string{}, folder(t, helmx.CRDsApply, boxes("v1:"+fields)),
					func(c *helmx.Config) { c.Apply = helmx.Apply{Mode: helmx.ClientSide, Conflicts: test.conflicts} })
			}
			deployParts(t, chart("size"), "run-1", "")
			a.onRequest(conflict(test.manager))
			d := chart("size,colour")
			c := changeOf(t, planParts(t, d), "CustomResourceDefinition", "boxes.example.com")
			_, err := d.DeployUnscanned(t.Context(), helmx.UnscannedRequest{Run: "run-2"})
			if !test.refused {
				assert.Nil(t, c.Refusal)
				require.NoError(t, err)
				return
			}
			require.NotNil(t, c.Refusal)
			assert.Equal(t, string(helmx.Conflict), c.Refusal.Reason)
			var owned *helmx.OwnershipError
			require.ErrorAs(t, err, &owned)
			assert.Equal(t, []helmx.OwnedField{{Path: ".spec.conversion", Manager: test.manager}}, owned.Fields)
		})
	}
}
