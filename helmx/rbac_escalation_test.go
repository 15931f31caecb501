package helmx_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

const watchman = `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: watchman}
rules: [{apiGroups: [""], resources: [services], verbs: [watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: watchman}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: watchman}
`

// TestRolesThatStayNeedNoRights: the API server lets them pass whatever they grant.
func TestRolesThatStayNeedNoRights(t *testing.T) {
	a := newAPIServer(t, "shop")
	deploy(t, templated(t, a, map[string]string{"roles.yaml": watchman}), "run-1", "a")
	powerless := (&reviewer{may: func(r helmx.Right) bool {
		return r.Verb != "*" && r.Verb != "escalate" && r.Verb != "bind" && r.Resource != "services"
	}}).serve
	a.onRequest(powerless)
	preflight := func(templates string) error {
		return templated(t, a, map[string]string{"roles.yaml": templates}).Preflight(t.Context(), stages.PlanRequest{Image: image("b")})
	}
	require.NoError(t, preflight(watchman))

	more := requirePrivilegeError(t, preflight(strings.Replace(watchman, "watch]", "watch, list]", 1)))
	assert.Contains(t, more.Missing, helmx.Right{Verb: "list", Resource: "services", Namespace: "shop"})
	labelled := requirePrivilegeError(t, preflight(strings.Replace(watchman, "{name: watchman}", "{name: watchman, labels: {a: b}}", 1)))
	assert.Contains(t, labelled.Missing, helmx.Right{Verb: "watch", Resource: "services", Namespace: "shop"})

	a.edit("/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles/watchman", func(obj content) content {
		obj["rules"] = []any{}
		return obj
	})
	drifted := requirePrivilegeError(t, preflight(watchman))
	assert.Contains(t, drifted.Missing, helmx.Right{Verb: "watch", Resource: "services", Namespace: "shop"})
}

// TestUnreadableRolesAreTried lets the API server decide whether the account may bind
// a role that it can't read.
func TestUnreadableRolesAreTried(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := templated(t, a, map[string]string{"roles.yaml": `apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
`})
	refuses := false
	asked := (&reviewer{may: func(r helmx.Right) bool { return r.Verb != "*" && r.Verb != "bind" }}).serve
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/clusterroles/view"):
			fail(w, 403, "Forbidden", `clusterroles "view" is forbidden: User "cd-bot" cannot get resource "clusterroles"`)
			return true
		case refuses && strings.HasSuffix(r.URL.Path, "/rolebindings") && r.Method == http.MethodPost:
			fail(w, 403, "Forbidden", `rolebindings "reader" is forbidden: user "cd-bot" (groups=["a"]) is attempting to grant RBAC permissions not currently held`)
			return true
		}
		return asked(w, r)
	})
	require.NoError(t, d.Preflight(t.Context(), stages.PlanRequest{Image: image("a")}))
	refuses = true
	denied := requirePrivilegeError(t, d.Preflight(t.Context(), stages.PlanRequest{Image: image("a")}))
	assert.Equal(t, []helmx.Right{{Verb: "bind", Group: "rbac.authorization.k8s.io", Resource: "clusterroles", Namespace: "shop", Name: "view"}}, denied.Missing)
	assert.Empty(t, a.requests(mutating))
}
