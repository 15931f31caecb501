package helmx_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	boxesPath = definitionsPath + "boxes.example.com"
	boxPath   = "/apis/example.com/any/namespaces/shop/boxes/shoes"
)

// boxes defines a kind in versions such as "v1:size,colour", each with fields of its spec.
func boxes(versions ...string) string {
	out := `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boxes.example.com}
spec:
  group: example.com
  names: {kind: Box, plural: boxes}
  scope: Namespaced
  versions:
`
	for _, v := range versions {
		name, fields, _ := strings.Cut(v, ":")
		var properties []string
		for _, f := range strings.Split(fields, ",") {
			properties = append(properties, f+": {type: string}")
		}
		out += "  - {name: " + name + ", served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {" +
			strings.Join(properties, ", ") + "}}}}}}\n"
	}
	return out
}

func box(version, spec string) string {
	return "apiVersion: example.com/" + version + "\nkind: Box\nmetadata: {name: shoes}\nspec: {" + spec + "}\n"
}

// unscanned opens a Deployer of a chart of such templates, which runs no image.
func unscanned(t *testing.T, a *apiServer, templates map[string]string, change ...func(*helmx.Config)) *helmx.Deployer {
	t.Helper()
	return templated(t, a, templates, append([]func(*helmx.Config){func(c *helmx.Config) {
		c.Image, c.Unscanned = helmx.ImageValues{}, "made by a test"
	}}, change...)...)
}

// folder puts definitions into the chart's crds folder.
func folder(t *testing.T, policy helmx.CRDs, definitions string) func(*helmx.Config) {
	t.Helper()
	return func(c *helmx.Config) {
		dir := filepath.Join(c.Chart, "crds")
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(definitions), 0o600))
		c.CRDs = policy
	}
}

func planParts(t *testing.T, d *helmx.Deployer, defined ...stages.Kind) stages.Plan {
	t.Helper()
	p, err := d.Plan(t.Context(), stages.PlanRequest{Run: "run", Defined: defined})
	require.NoError(t, err)
	return p
}

func deployParts(t *testing.T, d *helmx.Deployer, run, plan string) {
	t.Helper()
	_, err := d.DeployUnscanned(t.Context(), helmx.UnscannedRequest{Run: run, Plan: plan})
	require.NoError(t, err)
}

// assertUntried says that a change is told from the release before.
func assertUntried(t *testing.T, p stages.Plan, action stages.Action, fields ...stages.FieldChange) {
	t.Helper()
	c := changeOf(t, p, "Box", "shoes")
	assert.Equal(t, action, c.Action)
	assert.Nil(t, c.Refusal)
	assert.Equal(t, stages.BasisRelease, c.Basis)
	assert.Equal(t, fields, c.Fields)
	assert.Equal(t, []string{"Box shoes"}, notesOf(p, stages.NoteKindMissing))
}

var recoloured = stages.FieldChange{Path: "spec.colour", To: `"red"`}

func TestObjectsOfADefinitionThatChangesAreNotTried(t *testing.T) {
	a := newAPIServer(t, "shop")
	deployParts(t, unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size"), "b.yaml": box("v1", "size: s")}), "run-1", "")
	assert.Equal(t, content{"size": "s"}, a.get(boxPath)["spec"])

	d := unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size"), "b.yaml": box("v1", "size: m")})
	assert.Equal(t, stages.BasisLive, changeOf(t, planParts(t, d), "Box", "shoes").Basis, "the definition stays as it is")

	d = unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size,colour"), "b.yaml": box("v1", "size: s, colour: red")})
	p := planParts(t, d)
	assertUntried(t, p, stages.Update, recoloured)
	deployParts(t, d, "run-2", p.Digest)
	assert.Equal(t, content{"size": "s", "colour": "red"}, a.get(boxPath)["spec"])
	assert.Empty(t, planParts(t, d).Changes)
}

// TestPlanHoldsOnceTheDefinitionHasChanged: the member of a set that goes before changes
// it, or another release that brings the same one in its crds folder.
func TestPlanHoldsOnceTheDefinitionHasChanged(t *testing.T) {
	for name, policy := range map[string]helmx.CRDs{"a member before": helmx.CRDsSkip, "the same folder": helmx.CRDsApply} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			kinds := func(fields string) *helmx.Deployer {
				return unscanned(t, a, map[string]string{"a.yaml": boxes("v1:" + fields)}, func(c *helmx.Config) { c.Release = "kinds" })
			}
			deployParts(t, kinds("size"), "run-1", "")
			deployParts(t, unscanned(t, a, map[string]string{"b.yaml": box("v1", "size: s")}), "run-1", "")

			first := kinds("size,colour")
			second := unscanned(t, a, map[string]string{"b.yaml": box("v1", "size: s, colour: red")}, folder(t, policy, boxes("v1:size,colour")))
			defined := planParts(t, first).Defines
			assert.Equal(t, []stages.Kind{{APIVersion: "example.com/v1", Kind: "Box", Resource: "boxes", Namespaced: true, Pending: true}}, defined)
			p := planParts(t, second, defined...)
			assertUntried(t, p, stages.Update, recoloured)
			deployParts(t, first, "run-2", "")
			assert.False(t, planParts(t, first).Defines[0].Pending)

			a.edit(boxPath, func(o content) content {
				section(o, "metadata")["uid"], section(o, "metadata")["was"] = "another", dig(o, "metadata", "uid")
				a.objects[boxPath] = nil
				return o
			})
			_, err := second.DeployUnscanned(t.Context(), helmx.UnscannedRequest{Run: "run-2", Plan: p.Digest})
			require.ErrorIs(t, err, stages.ErrPlanStale, "which object it is is bound")
			a.edit(boxPath, func(o content) content {
				section(o, "metadata")["uid"] = dig(o, "metadata", "was")
				a.objects[boxPath] = nil
				return o
			})
			deployParts(t, second, "run-2", p.Digest)
			assert.Equal(t, "red", dig(a.get(boxPath), "spec", "colour"))
		})
	}
}

func TestApplyingTheFolderChangesADefinition(t *testing.T) {
	a := newAPIServer(t, "shop")
	chart := func(fields, spec string) *helmx.Deployer {
		return unscanned(t, a, map[string]string{"b.yaml": box("v1", spec)}, folder(t, helmx.CRDsApply, boxes("v1:"+fields)))
	}
	deployParts(t, chart("size", "size: s"), "run-1", "")
	d := chart("size,colour", "size: s, colour: red")
	p := planParts(t, d)
	assertUntried(t, p, stages.Update, recoloured)
	deployParts(t, chart("size,colour", "size: s"), "run-2", "") // Another revision: only the digest's last part would hold.
	_, err := d.DeployUnscanned(t.Context(), helmx.UnscannedRequest{Run: "run-3", Plan: p.Digest})
	require.ErrorIs(t, err, stages.ErrPlanStale)
	deployParts(t, d, "run-3", planParts(t, d).Digest)
	assert.Equal(t, "red", dig(a.get(boxPath), "spec", "colour"))
}

// TestObjectsMoveToAVersionThatIsYetToBeServed: they are the same objects, whosever
// they are.
func TestObjectsMoveToAVersionThatIsYetToBeServed(t *testing.T) {
	a := newAPIServer(t, "shop")
	deployParts(t, unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size"), "b.yaml": box("v1", "size: s")}), "run-1", "")
	both := map[string]string{"a.yaml": boxes("v1:size", "v2:size"), "b.yaml": box("v2", "size: m")}
	d := unscanned(t, a, both)
	p := planParts(t, d)
	assertUntried(t, p, stages.Update,
		stages.FieldChange{Path: "apiVersion", From: `"example.com/v1"`, To: `"example.com/v2"`},
		stages.FieldChange{Path: "spec.size", From: `"s"`, To: `"m"`})

	a.edit(boxPath, func(o content) content {
		section(section(o, "metadata"), "annotations")["meta.helm.sh/release-name"] = "another"
		return o
	})
	c := changeOf(t, planParts(t, d), "Box", "shoes")
	assert.Equal(t, stages.Adopt, c.Action)
	require.NotNil(t, c.Refusal)
	assert.Equal(t, string(helmx.NotOwned), c.Refusal.Reason)
	_, err := d.DeployUnscanned(t.Context(), helmx.UnscannedRequest{Run: "run-2"})
	var refused *helmx.APIError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, helmx.NotOwned, refused.Reason)
	assert.Contains(t, refused.Message, `meta.helm.sh/release-name is "another"`)
	assert.Equal(t, "s", dig(a.get(boxPath), "spec", "size"))

	a.edit(boxPath, func(o content) content {
		section(section(o, "metadata"), "annotations")["meta.helm.sh/release-name"] = "web"
		return o
	})
	uid := dig(a.get(boxPath), "metadata", "uid")
	deployParts(t, d, "run-3", planParts(t, d).Digest)
	assert.Equal(t, "m", dig(a.get(boxPath), "spec", "size"))
	assert.Equal(t, uid, dig(a.get(boxPath), "metadata", "uid"))
}

// TestWhatIsLeftInAVersionThatIsNotServed is not taken for gone: it is there in the
// versions that are.
func TestWhatIsLeftInAVersionThatIsNotServed(t *testing.T) {
	gone := func(v string) string {
		return strings.Replace(boxes(v+":size", "v2:size", "v3:size"), "served: true", "served: false", 1)
	}
	kinds := func(a *apiServer, definitions string) *helmx.Deployer {
		return unscanned(t, a, map[string]string{"a.yaml": definitions}, func(c *helmx.Config) { c.Release = "kinds" })
	}
	release := func(a *apiServer, box string) *helmx.Deployer {
		return unscanned(t, a, map[string]string{"b.yaml": box, "c.yaml": strings.ReplaceAll(plainConfig, "web-config", "other")})
	}
	for name, act := range map[string]func(t *testing.T, a *apiServer){
		"an uninstallation removes it": func(t *testing.T, a *apiServer) {
			removal, err := release(a, "").Uninstall(t.Context(), "run-3")
			require.NoError(t, err)
			assert.Contains(t, fmt.Sprint(removal.Removed), "Box shop/shoes")
			assert.Nil(t, a.get(boxPath))
		},
		"an update removes it": func(t *testing.T, a *apiServer) {
			d := release(a, "")
			p := planParts(t, d)
			assert.Equal(t, stages.Delete, changeOf(t, p, "Box", "shoes").Action)
			deployParts(t, d, "run-3", p.Digest)
			assert.Nil(t, a.get(boxPath))
		},
		"an update moves it": func(t *testing.T, a *apiServer) {
			uid := dig(a.get(boxPath), "metadata", "uid")
			d := release(a, box("v3", "size: m"))
			p := planParts(t, d)
			c := changeOf(t, p, "Box", "shoes")
			assert.Equal(t, stages.Update, c.Action)
			assert.Nil(t, c.Refusal)
			deployParts(t, d, "run-3", p.Digest)
			assert.Equal(t, "m", dig(a.get(boxPath), "spec", "size"))
			assert.Equal(t, uid, dig(a.get(boxPath), "metadata", "uid"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			deployParts(t, kinds(a, boxes("v1:size")), "run-1", "")
			deployParts(t, release(a, box("v1", "size: s")), "run-1", "")
			deployParts(t, kinds(a, gone("v1")), "run-2", "")
			act(t, a)
		})
	}

	a := newAPIServer(t, "shop")
	deployParts(t, unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size"), "b.yaml": box("v1", "size: s")}), "run-1", "")
	deployParts(t, unscanned(t, a, map[string]string{"a.yaml": gone("v1")}), "run-2", "")
	assert.Nil(t, a.get(boxPath), "the definition drops the version with the same release")
	asked := a.requests(func(r string) bool { return strings.HasPrefix(r, "DELETE ") && strings.Contains(r, "/boxes/") })
	assert.Equal(t, []string{"DELETE /apis/example.com/v2/namespaces/shop/boxes/shoes"}, asked, "the preferred version")
}

// TestDefinitionThatCantBeLookedAt is an error, of which Helm makes a failed revision.
func TestDefinitionThatCantBeLookedAt(t *testing.T) {
	a := newAPIServer(t, "shop")
	deployParts(t, unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size"), "b.yaml": box("v1", "size: s")}), "run-1", "")
	d := unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size,colour"), "b.yaml": box("v1", "size: s")})
	recorded := false
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		recorded = recorded || r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/secrets")
		if !recorded || r.Method != http.MethodGet || r.URL.Path != boxesPath {
			return false
		}
		fail(w, 403, metav1.StatusReasonForbidden, "no")
		return true
	})
	_, err := d.DeployUnscanned(t.Context(), helmx.UnscannedRequest{Run: "run-2"})
	failure, ok := errors.AsType[*helmx.APIError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, helmx.Forbidden, failure.Reason)
}

// TestRestoreBringsAVersionBack that the revision that failed no longer served.
func TestRestoreBringsAVersionBack(t *testing.T) {
	a := newAPIServer(t, "shop")
	deployParts(t, unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size"), "b.yaml": box("v1", "size: s")}), "run-1", "")
	moved := strings.Replace(boxes("v1:size", "v2:size"), "served: true", "served: false", 1)
	d := unscanned(t, a, map[string]string{"a.yaml": moved, "b.yaml": box("v2", "size: m")})
	before, err := d.Checkpoint(t.Context(), stages.CheckpointRequest{Run: "run-2"})
	require.NoError(t, err)
	deployParts(t, d, "run-2", "")
	r := restore(t, d, "run-2", before)
	assert.Equal(t, stages.Restored, r.Outcome, r.Message)
	assert.Equal(t, content{"size": "s"}, a.get(boxPath)["spec"])
}

// TestRestoreTakesAVersionBack that only the revision that failed had, with the objects
// that were made in it.
func TestRestoreTakesAVersionBack(t *testing.T) {
	for name, first := range map[string]string{string(helmx.ServerSide): box("v1", "size: s"), string(helmx.ClientSide): box("v1", "size: s"), "of none": ""} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			by := func(c *helmx.Config) {
				if first != "" {
					c.Apply.Mode = helmx.ApplyMode(name)
				}
			}
			deployParts(t, unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size"), "b.yaml": first}, by), "run-1", "")
			hats := strings.Replace(box("v2", "size: m"), "shoes", "hats", 1)
			d := unscanned(t, a, map[string]string{"a.yaml": boxes("v1:size", "v2:size"), "b.yaml": first + "---\n" + hats}, by)
			before, err := d.Checkpoint(t.Context(), stages.CheckpointRequest{Run: "run-2"})
			require.NoError(t, err)
			deployParts(t, d, "run-2", "")
			hatsPath := strings.Replace(boxPath, "shoes", "hats", 1)
			require.NotNil(t, a.get(hatsPath))
			r := restore(t, d, "run-2", before)
			assert.Equal(t, stages.Restored, r.Outcome, r.Message)
			assert.Nil(t, a.get(hatsPath))
			assert.Equal(t, first != "", a.get(boxPath) != nil)
		})
	}
}

// TestObjectsWaitForTheirChangedDefinition: the API server goes on with the old one for a
// while, which the condition of the definition doesn't tell.
func TestObjectsWaitForTheirChangedDefinition(t *testing.T) {
	layouts := map[string]func(t *testing.T, a *apiServer, definition, box string) *helmx.Deployer{
		"templates": func(t *testing.T, a *apiServer, definition, box string) *helmx.Deployer {
			return unscanned(t, a, map[string]string{"a.yaml": definition, "b.yaml": box})
		},
		"folder": func(t *testing.T, a *apiServer, definition, box string) *helmx.Deployer {
			return unscanned(t, a, map[string]string{"b.yaml": box}, folder(t, helmx.CRDsApply, definition))
		},
	}
	for name, layout := range layouts {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			deployParts(t, layout(t, a, boxes("v1:size"), box("v1", "size: s")), "run-1", "")
			var late, early atomic.Int32
			a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
				dry := dryRun(r)
				switch {
				case !strings.HasPrefix(r.URL.Path, "/apis/example.com/v2"):
					return false
				case late.Add(1) <= 3 && r.URL.Path == "/apis/example.com/v2":
					fail(w, 404, metav1.StatusReasonNotFound, "the server could not find the requested resource")
					return true
				case dry && late.Add(1) <= 6:
					fail(w, 400, metav1.StatusReasonBadRequest, `strict decoding error: unknown field "spec.colour"`)
					return true
				case late.Load() <= 6 && r.Method == http.MethodPatch:
					early.Add(1)
				}
				return false
			})
			deployParts(t, layout(t, a, boxes("v1:size", "v2:size,colour"), box("v2", "size: s, colour: red")), "run-2", "")
			assert.Equal(t, "red", dig(a.get(boxPath), "spec", "colour"))
			assert.Zero(t, early.Load(), "the object is not written before the definition is in force")
			assert.Greater(t, late.Load(), int32(6))
		})
	}
}
