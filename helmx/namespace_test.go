package helmx_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-dev/fairlead/stages"
)

// TestNamespaceStaysForWhatIsOnTheNextPage reads lists to their end before it takes a
// namespace for empty.
func TestNamespaceStaysForWhatIsOnTheNextPage(t *testing.T) {
	a := newAPIServer(t)
	cfg := digestConfig(a)
	cfg.CreateNamespace = true
	d := open(t, cfg)
	cp := checkpoint(t, d, "run-1")
	deploy(t, d, "run-1", "a")
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/configmaps") || !strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadataList") {
			return false
		}
		list := content{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": content{"resourceVersion": "1"}}
		if r.URL.Query().Get("continue") == "" {
			list["metadata"] = content{"resourceVersion": "1", "continue": "more"}
			list["items"] = []any{content{"metadata": content{"name": "owned", "ownerReferences": []any{content{"name": "x", "uid": "x", "kind": "X", "apiVersion": "v1"}}}}}
		} else {
			list["items"] = []any{content{"metadata": content{"name": "precious"}}}
		}
		reply(w, 200, list)
		return true
	})
	r := restore(t, d, "run-1", cp)
	assert.Equal(t, stages.Diverged, r.Outcome, r.Message)
	assert.Contains(t, r.Message, "because it holds ConfigMap precious")
	assert.NotNil(t, a.get("/api/v1/namespaces/shop"))
}

// TestNamespaceStaysForKindsThatAreNotKnown: the server that has them may be down, and
// the objects go with the namespace all the same.
func TestNamespaceStaysForKindsThatAreNotKnown(t *testing.T) {
	a := newAPIServer(t)
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/apis":
			var groups []any
			for _, gv := range append(servedGroups(), schema.GroupVersion{Group: "metrics.k8s.io", Version: "v1beta1"}, schema.GroupVersion{Group: "backups.example.com", Version: "v1"}) {
				v := content{"groupVersion": gv.String(), "version": gv.Version}
				groups = append(groups, content{"name": gv.Group, "versions": []any{v}, "preferredVersion": v})
			}
			reply(w, 200, content{"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
		case "/apis/backups.example.com/v1", "/apis/metrics.k8s.io/v1beta1":
			fail(w, 503, metav1.StatusReasonServiceUnavailable, "the server is currently unable to handle the request")
		default:
			return false
		}
		return true
	})
	cfg := digestConfig(a)
	cfg.CreateNamespace = true
	d := open(t, cfg)
	cp := checkpoint(t, d, "run-1")
	deploy(t, d, "run-1", "a")
	r := restore(t, d, "run-1", cp)
	assert.Equal(t, stages.Diverged, r.Outcome, r.Message)
	assert.Contains(t, r.Message, "holds perhaps objects of backups.example.com/v1, whose kinds the API server can't tell")
	assert.NotContains(t, r.Message, "metrics.k8s.io")
	assert.NotNil(t, a.get("/api/v1/namespaces/shop"))
}
