package helmx_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/helmx"
)

const mounting = `apiVersion: v1
kind: Pod
metadata: {name: mounting}
spec:
  containers: [{name: x, image: x}]
  volumes: [{name: data, image: {reference: registry.example.com/acme/data:1}}]
`

// TestNoImageIsYielded: neither that of a volume, nor one within a field that is left
// to its owner as a whole.
func TestNoImageIsYielded(t *testing.T) {
	for _, path := range []string{`.spec.volumes[name="data"].image.reference`, ".spec.volumes", ".spec.containers"} {
		a := newAPIServer(t, "shop")
		d := templated(t, a, map[string]string{"pod.yaml": mounting}, func(c *helmx.Config) {
			c.Apply = helmx.Apply{Mode: helmx.ServerSide, Conflicts: map[string]helmx.ConflictPolicy{helmx.AnyManager: helmx.Yield}}
		})
		a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPatch {
				return false
			}
			if strings.HasSuffix(r.URL.Path, "/pods/mounting") {
				fail(w, 409, metav1.StatusReasonConflict, "Apply failed with 1 conflict",
					metav1.StatusCause{Type: metav1.CauseTypeFieldManagerConflict, Field: path, Message: `conflict with "mallory" using v1`})
				return true
			}
			reply(w, 200, content{"apiVersion": "v1", "kind": "ConfigMap", "metadata": content{"name": "x"}})
			return true
		})
		_, err := d.Deploy(t.Context(), request(t, "run-1", "a"))
		var owned *helmx.OwnershipError
		require.ErrorAs(t, err, &owned, path)
		assert.Equal(t, []helmx.OwnedField{{Path: path, Manager: "mallory"}}, owned.Fields)
	}
}
