package helmx_test

import (
	"context"
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

// TestRestoreLeavesWhatWasAdopted has a release take over, or find left, an object that
// was there before it, be it for a moment only.
func TestRestoreLeavesWhatWasAdopted(t *testing.T) {
	left := content{"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": "shop"}
	for name, c := range map[string]struct {
		upgrade, late bool
		annotations   content
	}{
		"first install, left":     {false, false, left},
		"first install, foreign":  {false, false, content{}},
		"upgrade, left":           {true, false, left},
		"upgrade, foreign":        {true, false, content{}},
		"after the first attempt": {true, true, content{}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			if c.upgrade {
				deploy(t, open(t, digestConfig(a)), "run-0", "a")
			}
			cfg := digestConfig(a, helmx.Set("extra=true"))
			cfg.TakeOwnership = true
			d := open(t, cfg)
			cp := checkpoint(t, d, "run-1")
			attempt := func() {
				a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method == http.MethodGet || !strings.Contains(r.URL.Path, "/configmaps") && r.URL.Path != deploymentPath {
						return false
					}
					fail(w, 422, metav1.StatusReasonInvalid, "not yet")
					return true
				})
				_, err := d.Deploy(t.Context(), request(t, "run-1", "b"))
				require.ErrorContains(t, err, "not yet")
				a.onRequest(nil)
			}
			if c.late {
				attempt()
			}
			a.edit(extraPath, func(content) content {
				return content{"apiVersion": "v1", "kind": "ConfigMap", "data": content{"mine": "since a moment ago"}, "metadata": content{
					"name": "web-extra", "namespace": "shop", "annotations": c.annotations, "labels": content{"app.kubernetes.io/managed-by": "Helm"},
				}}
			})
			if !c.late {
				attempt()
			}
			deploy(t, d, "run-1", "b")
			deploy(t, d, "run-1", "c")
			r := restore(t, d, "run-1", cp)
			assert.Equal(t, stages.Diverged, r.Outcome)
			assert.Contains(t, r.Message, "ConfigMap shop/web-extra was there before the run")
			assert.NotNil(t, a.get(extraPath), "what was there before must survive")
		})
	}
}

// TestRestoreLeavesWhatSomebodyElseMadeSince has somebody make what the run was about to,
// and didn't come to.
func TestRestoreLeavesWhatSomebodyElseMadeSince(t *testing.T) {
	for name, upgrade := range map[string]bool{"first install": false, "upgrade": true} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			if upgrade {
				deploy(t, open(t, digestConfig(a)), "run-0", "a")
			}
			d := open(t, digestConfig(a, helmx.Set("extra=true")))
			cp := checkpoint(t, d, "run-1")
			a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet || !strings.Contains(r.URL.Path, "/configmaps") {
					return false
				}
				fail(w, 422, metav1.StatusReasonInvalid, "not yet")
				return true
			})
			_, err := d.Deploy(t.Context(), request(t, "run-1", "b"))
			require.ErrorContains(t, err, "not yet")
			a.onRequest(nil)
			a.edit(extraPath, func(content) content {
				return content{"apiVersion": "v1", "kind": "ConfigMap", "metadata": content{"name": "web-extra", "namespace": "shop"}}
			})
			r := restore(t, d, "run-1", cp)
			assert.Equal(t, stages.Diverged, r.Outcome)
			assert.Contains(t, r.Message, "ConfigMap shop/web-extra was there before the run, or somebody else has made it since")
			assert.NotNil(t, a.get(extraPath))
		})
	}
}

// TestRestoreTellsWhatIsItsOwn has attempts of one run find what those before have made.
func TestRestoreTellsWhatIsItsOwn(t *testing.T) {
	a := newAPIServer(t, "shop")
	deploy(t, open(t, digestConfig(a)), "run-0", "a")
	d := open(t, digestConfig(a, helmx.Set("extra=true"), helmx.Set("second=true")))
	cp := checkpoint(t, d, "run-1")
	kill(t, a, d, "PATCH /apis/apps", func(ctx context.Context) error {
		_, err := d.Deploy(ctx, request(t, "run-1", "b"))
		return err
	})
	require.NotNil(t, a.get(extraPath), "the first attempt has made it")
	deploy(t, d, "run-1", "b")
	r := restore(t, d, "run-1", cp)
	assert.Equal(t, stages.Restored, r.Outcome, r.Message)
	assert.Nil(t, a.get(extraPath))
}

// TestRestoreOfARecordWithoutANote goes by the API server's clock.
func TestRestoreOfARecordWithoutANote(t *testing.T) {
	for name, c := range map[string]struct {
		age  time.Duration
		want stages.RestoreOutcome
	}{
		"made before": {30 * time.Second, stages.Diverged},
		"made by it":  {0, stages.Restored},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			d := open(t, digestConfig(a, helmx.Set("extra=true")))
			cp := checkpoint(t, d, "run-1")
			deploy(t, d, "run-1", "a")
			recorded := time.Now().Add(-time.Hour)
			at := func(when time.Time) func(content) content {
				return func(obj content) content {
					metadata := section(obj, "metadata")
					metadata["creationTimestamp"] = when.UTC().Format(time.RFC3339)
					delete(section(metadata, "labels"), "fairlead.dev/found")
					return obj
				}
			}
			for _, path := range a.paths("/namespaces/shop/") {
				a.edit(path, at(recorded))
			}
			a.edit(extraPath, at(recorded.Add(-c.age)))
			r := restore(t, d, "run-1", cp)
			assert.Equal(t, c.want, r.Outcome, r.Message)
			assert.Equal(t, c.want == stages.Diverged, a.get(extraPath) != nil)
		})
	}
}

// TestTakeOwnershipIsForWhatIsNew has kubectl hold a field of an object, which the release
// has already or takes over.
func TestTakeOwnershipIsForWhatIsNew(t *testing.T) {
	for name, released := range map[string]bool{"new": false, "released": true} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			cfg := digestConfig(a, helmx.Set("extra=true"))
			cfg.Apply.Mode, cfg.TakeOwnership = helmx.ServerSide, true
			if released {
				deploy(t, open(t, cfg), "run-0", "a")
			} else {
				deploy(t, open(t, digestConfig(a)), "run-0", "a")
				a.edit(extraPath, func(content) content {
					return content{"apiVersion": "v1", "kind": "ConfigMap", "metadata": content{"name": "web-extra", "namespace": "shop"}}
				})
			}
			a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPatch || r.URL.Path != extraPath || r.URL.Query().Get("force") == "true" {
					return false
				}
				fail(w, 409, metav1.StatusReasonConflict, "conflict", metav1.StatusCause{
					Type: metav1.CauseTypeFieldManagerConflict, Field: ".data.a", Message: `conflict with "kubectl-client-side-apply" using v1`,
				})
				return true
			})
			_, err := open(t, cfg).Deploy(t.Context(), request(t, "run-1", "b"))
			if !released {
				require.NoError(t, err)
				return
			}
			var owned *helmx.OwnershipError
			require.ErrorAs(t, err, &owned)
			assert.Equal(t, "web-extra", owned.Object.Name)
		})
	}
}
