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

// TestNamespaceGoesWithWhatClustersPutThere: it says nothing of whether the release is
// gone. Whatever may be somebody's keeps the namespace.
func TestNamespaceGoesWithWhatClustersPutThere(t *testing.T) {
	const account, registry = "kubernetes.io/service-account.name", "openshift.io/internal-registry-auth-token.service-account"
	for name, c := range map[string]struct {
		path                string
		labels, annotations content
		openShift           bool
		stays               bool
	}{
		"Kubernetes' root certificate":            {path: "configmaps/kube-root-ca.crt"},
		"Istio's root certificate":                {path: "configmaps/istio-ca-root-cert"},
		"trust-manager's bundle":                  {path: "configmaps/corporate", labels: content{"trust.cert-manager.io/bundle": "corporate"}},
		"a copy of trust-manager's bundle":        {path: "configmaps/mine", labels: content{"trust.cert-manager.io/bundle": "corporate"}, stays: true},
		"of a Kyverno policy for namespaces":      {path: "roles/base", labels: content{"generate.kyverno.io/trigger-kind": "Namespace"}},
		"of a Kyverno policy for workloads":       {path: "roles/base", labels: content{"generate.kyverno.io/trigger-kind": "Deployment"}, stays: true},
		"the account of every namespace":          {path: "serviceaccounts/default"},
		"an account of every OpenShift project":   {path: "serviceaccounts/builder", openShift: true},
		"an account called as one of OpenShift's": {path: "serviceaccounts/deployer", stays: true},
		"somebody's account on OpenShift":         {path: "serviceaccounts/robot", openShift: true, stays: true},
		"an account's token":                      {path: "secrets/default-token-x7k2p", annotations: content{account: "default"}},
		"an account's pull secret":                {path: "secrets/builder-dockercfg-x7k2p", annotations: content{registry: "builder"}, openShift: true},
		"somebody's token":                        {path: "secrets/for-backups", annotations: content{account: "default"}, stays: true},
		"the token of somebody's account":         {path: "secrets/robot-token-x7k2p", annotations: content{account: "robot"}, stays: true},
		"a Secret called as a token":              {path: "secrets/default-token-x7k2p", stays: true},
		"a binding of OpenShift's":                {path: "rolebindings/system:image-pullers", openShift: true},
		"somebody's binding on OpenShift":         {path: "rolebindings/admins", openShift: true, stays: true},
		"what Helm keeps of a release": {
			path: "configmaps/istio-ca-root-cert", annotations: content{"meta.helm.sh/release-name": "web"}, stays: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t)
			cfg := digestConfig(a)
			cfg.CreateNamespace = true
			d := open(t, cfg)
			cp := checkpoint(t, d, "run-1")
			deploy(t, d, "run-1", "a")
			if c.openShift {
				a.edit("/api/v1/namespaces/shop", func(ns content) content {
					section(ns, "metadata")["annotations"] = content{"openshift.io/sa.scc.uid-range": "1000650000/10000"}
					return ns
				})
			}
			resource, object, _ := strings.Cut(c.path, "/")
			path := "/api/v1/namespaces/shop/" + c.path
			if strings.HasPrefix(resource, "role") {
				path = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/" + c.path
			}
			a.edit(path, func(content) content {
				return content{"metadata": content{"name": object, "namespace": "shop", "labels": c.labels, "annotations": c.annotations}}
			})
			r := restore(t, d, "run-1", cp)
			if c.stays {
				assert.Equal(t, stages.Diverged, r.Outcome, r.Message)
				assert.Regexp(t, "namespace shop stays, because it holds [a-zA-Z]+ "+object+"$", r.Message)
				assert.NotNil(t, a.get(path))
				assert.NotNil(t, a.get("/api/v1/namespaces/shop"))
				return
			}
			assert.Equal(t, stages.Restored, r.Outcome, r.Message)
			assert.Contains(t, r.Message, "namespace shop was removed")
			assert.Nil(t, a.get("/api/v1/namespaces/shop"))
		})
	}
}

// TestNamespaceStaysForKindsThatAreNotKnown: the server that has them may be down, and
// the objects go with the namespace all the same.
func TestNamespaceStaysForKindsThatAreNotKnown(t *testing.T) {
	a := newAPIServer(t)
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/apis":
			var groups []any
			for _, gv := range append(groupsOf(served), schema.GroupVersion{Group: "metrics.k8s.io", Version: "v1beta1"}, schema.GroupVersion{Group: "backups.example.com", Version: "v1"}) {
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

// TestNamespaceStaysForKindsThatAreNew: the kinds are asked for anew before a namespace
// counts as empty.
func TestNamespaceStaysForKindsThatAreNew(t *testing.T) {
	a := newAPIServer(t)
	cfg := digestConfig(a)
	cfg.CreateNamespace = true
	d := open(t, cfg)
	cp := checkpoint(t, d, "run-1")
	deploy(t, d, "run-1", "a")
	a.edit(boxesPath, func(content) content {
		return content{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": content{"name": "boxes.example.com"}, "spec": content{
			"group": "example.com", "names": content{"plural": "boxes", "kind": "Box"}, "scope": "Namespaced", "versions": []any{content{"name": "v1", "served": true, "storage": true}},
		}}
	})
	foreignBox(a, "shop")
	r := restore(t, d, "run-1", cp)
	assert.Equal(t, stages.Diverged, r.Outcome, r.Message)
	assert.Contains(t, r.Message, "namespace shop stays, because it holds Box theirs")
	assert.NotNil(t, a.get("/api/v1/namespaces/shop"))
}
