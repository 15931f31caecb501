package helmx_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	boxDefinition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boxes.example.com}
spec:
  group: example.com
  names: {plural: boxes, kind: Box}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true}]
`
	ownBox   = "apiVersion: example.com/v1\nkind: Box\nmetadata: {name: own}\n"
	allBoxes = "/apis/example.com/v1/boxes"
)

// foreignBox is an object that somebody else has made of the release's kind.
func foreignBox(a *apiServer, namespace string) {
	a.edit("/apis/example.com/any/namespaces/"+namespace+"/boxes/theirs", func(content) content {
		return content{"apiVersion": "example.com/v1", "kind": "Box", "metadata": content{"name": "theirs", "namespace": namespace}}
	})
}

// TestRestoreKeepsADefinitionInUse has somebody use a definition that is to go.
func TestRestoreKeepsADefinitionInUse(t *testing.T) {
	for name, upgrade := range map[string]bool{"first install": false, "upgrade": true} {
		for name, c := range map[string]struct {
			use  func(*apiServer)
			says string
		}{
			name + ", not used": {func(*apiServer) {}, ""},
			name + ", used": {
				func(a *apiServer) { foreignBox(a, "elsewhere") },
				"CustomResourceDefinition boxes.example.com is left as it is, because there are objects of its kind that do not go with the release: Box elsewhere/theirs",
			},
			name + ", unknown": {func(a *apiServer) {
				a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method != http.MethodGet || r.URL.Path != allBoxes {
						return false
					}
					fail(w, 403, metav1.StatusReasonForbidden, `boxes.example.com is forbidden: User "ci" cannot list resource "boxes"`)
					return true
				})
			}, "CustomResourceDefinition boxes.example.com is left as it is, because whether there are other objects of its kind can't be seen: "},
		} {
			t.Run(name, func(t *testing.T) {
				a := newAPIServer(t, "shop")
				if upgrade {
					deploy(t, open(t, digestConfig(a)), "run-0", "a")
				}
				templates := map[string]string{"crd.yaml": boxDefinition, "box.yaml": ownBox}
				clientSide := func(cfg *helmx.Config) { cfg.Apply.Mode = helmx.ClientSide }
				d := templated(t, a, templates, clientSide)
				cp := checkpoint(t, d, "run-1")
				deploy(t, d, "run-1", "b")
				assert.NotNil(t, a.get(boxesPath))
				c.use(a)
				r := restore(t, d, "run-1", cp)
				if c.says == "" {
					assert.Equal(t, stages.Restored, r.Outcome, r.Message)
				} else {
					assert.Equal(t, stages.Diverged, r.Outcome, r.Message)
					assert.Contains(t, r.Message, c.says)
				}
				assert.Equal(t, c.says != "", a.get(boxesPath) != nil)
				assert.Nil(t, a.get("/apis/example.com/any/namespaces/shop/boxes/own"), "the release's own goes")
				discovery := func(request string) bool { return request == "GET /apis" }
				asked := len(a.requests(discovery))
				checkpoint(t, d, "run-2")
				assert.Greater(t, len(a.requests(discovery)), asked, "the kinds may be others now")
			})
		}
	}
}

// TestRequiredRBACListsUsesOfDefinitions, where a restore may delete one.
func TestRequiredRBACListsUsesOfDefinitions(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := templated(t, a, map[string]string{"crd.yaml": boxDefinition})
	lists := func() bool {
		rules, err := d.RequiredRBAC(t.Context(), stages.PlanRequest{Image: image("a")}, helmx.RBACOptions{Once: true})
		require.NoError(t, err)
		return slices.ContainsFunc(rules.Cluster, func(r rbacv1.PolicyRule) bool {
			return slices.Contains(r.Resources, "boxes") && slices.Equal(r.Verbs, []string{"list"})
		})
	}
	assert.True(t, lists())
	deploy(t, d, "run-1", "a")
	assert.False(t, lists(), "from then on it stays")
}

// TestRestoreNamesDefinitionsThatStay, as they are outside of the release, where the run
// has changed them.
func TestRestoreNamesDefinitionsThatStay(t *testing.T) {
	a := newAPIServer(t, "shop")
	withDefinition := func(text string) *helmx.Deployer {
		return templated(t, a, nil, func(cfg *helmx.Config) {
			require.NoError(t, os.Mkdir(filepath.Join(cfg.Chart, "crds"), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(cfg.Chart, "crds", "boxes.yaml"), []byte(text), 0o600))
			cfg.CRDs = helmx.CRDsApply
		})
	}
	for _, c := range []struct {
		run, text string
		changed   bool
	}{
		{"run-1", boxDefinition, true},
		{"run-2", boxDefinition, false},
		{"run-3", strings.Replace(boxDefinition, "storage: true}", "storage: true, schema: {}}", 1), true},
	} {
		d := withDefinition(c.text)
		cp := checkpoint(t, d, c.run)
		deploy(t, d, c.run, "b")
		r := restore(t, d, c.run, cp)
		assert.Equal(t, stages.Restored, r.Outcome, r.Message)
		assert.Equal(t, c.changed, strings.HasSuffix(r.Message,
			"; definitions of the crds folder that the run has made or changed stay, because they are not part of the release: boxes.example.com"), r.Message)
		deploy(t, d, "between", "a")
	}
}

// TestStorageVersionsStay tells of a change of a definition that can't be undone, and what
// to do once it can't.
func TestStorageVersionsStay(t *testing.T) {
	a := newAPIServer(t, "shop")
	deploy(t, templated(t, a, map[string]string{"crd.yaml": boxDefinition}), "run-1", "a")
	d := templated(t, a, map[string]string{"crd.yaml": strings.Replace(boxDefinition, "[{name: v1, served: true, storage: true}]",
		"[{name: v1, served: true, storage: false}, {name: v2, served: true, storage: true}]", 1)})
	plan, err := d.Plan(t.Context(), stages.PlanRequest{Run: "run-2", Image: image("a")})
	require.NoError(t, err)
	dangers := plan.AllDangers()
	require.Len(t, dangers, 1)
	assert.Equal(t, stages.DangerCRD, dangers[0].Class)
	assert.Contains(t, dangers[0].Why, "stored as v2, which the API server does not let go again")
	cp := checkpoint(t, d, "run-2")
	deploy(t, d, "run-2", "a")
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch || r.URL.Path != boxesPath {
			return false
		}
		fail(w, 422, metav1.StatusReasonInvalid, `status.storedVersions[1]: Invalid value: "v2": missing from spec.versions`)
		return true
	})
	r := restore(t, d, "run-2", cp)
	assert.Equal(t, stages.Diverged, r.Outcome, r.Message)
	assert.Contains(t, r.Message, "write each object of the kind anew")
}
