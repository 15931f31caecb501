package helmx_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

func rule(group, resources, names, verbs string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: strings.Fields(resources), ResourceNames: fields(names), Verbs: strings.Fields(verbs)}
}

// fields is nil for no fields, as in a decoded rule.
func fields(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Fields(text)
}

func requiredRBAC(t *testing.T, cfg helmx.Config, options helmx.RBACOptions) helmx.RBAC {
	t.Helper()
	out, err := open(t, cfg).RequiredRBAC(t.Context(), stages.PlanRequest{Image: image("a")}, options)
	require.NoError(t, err)
	return out
}

// writeTemplates makes a chart of the sample deployment and these templates.
func writeTemplates(t *testing.T, templates map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "chart")
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/digest")))
	for name, text := range templates {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "templates", name), []byte(text), 0o600))
	}
	return dir
}

func TestRequiredRBAC(t *testing.T) {
	lease := []rbacv1.PolicyRule{
		rule("coordination.k8s.io", "leases", "", "create"),
		rule("coordination.k8s.io", "leases", "fairlead.web", "get watch update delete"),
	}
	t.Run("of an install, for good", func(t *testing.T) {
		got := requiredRBAC(t, digestConfig(newAPIServer(t, "shop")), helmx.RBACOptions{})
		assert.Empty(t, got.Cluster)
		assert.Equal(t, map[string][]rbacv1.PolicyRule{"shop": slices.Concat([]rbacv1.PolicyRule{
			rule("", "configmaps", "", "create"),
			rule("", "configmaps", "web-config", "get watch patch delete"),
			rule("", "secrets", "", "get list create update delete"),
			rule("", "secrets", "web web-nested", "watch patch"),
			rule("apps", "deployments", "", "create"),
			rule("apps", "deployments", "web", "get watch patch delete"),
		}, lease)}, got.Namespaces)
	})
	t.Run("of an install, once, applied on the server's side", func(t *testing.T) {
		cfg := digestConfig(newAPIServer(t, "shop"))
		cfg.Apply.Mode = helmx.ServerSide
		got := requiredRBAC(t, cfg, helmx.RBACOptions{Once: true})
		assert.Equal(t, slices.Concat([]rbacv1.PolicyRule{
			rule("", "configmaps", "web-config", "get watch create patch delete"),
			rule("", "secrets", "", "list create"),
			rule("", "secrets", "sh.helm.release.v1.web.v1", "get update delete"),
			rule("", "secrets", "web web-nested", "get watch patch delete"),
			rule("apps", "deployments", "web", "get watch create patch delete"),
		}, lease), got.Namespaces["shop"])
	})
	t.Run("of an upgrade that adds, drops and keeps", func(t *testing.T) {
		a := newAPIServer(t, "shop")
		cfg := digestConfig(a, helmx.Set("extra=true"), helmx.Set("keep=true"))
		deploy(t, open(t, cfg), "run-1", "a")
		cfg = digestConfig(a, helmx.Set("hook=migrate"))
		cfg.HistoryMax = 2
		got := requiredRBAC(t, cfg, helmx.RBACOptions{Once: true})
		assert.Equal(t, slices.Concat([]rbacv1.PolicyRule{
			rule("", "configmaps", "", "create"),
			rule("", "configmaps", "web-config web-keep", "get patch"),
			rule("", "configmaps", "web-extra", "get watch patch delete"),
			rule("", "pods", "", "list"),
			rule("", "pods/log", "", "get"),
			rule("", "secrets", "", "list create"),
			rule("", "secrets", "sh.helm.release.v1.web.v1", "get update"),
			rule("", "secrets", "sh.helm.release.v1.web.v2 sh.helm.release.v1.web.v3", "update"),
			rule("", "secrets", "web web-nested", "get patch"),
			rule("apps", "deployments", "", "create"),
			rule("apps", "deployments", "web", "get patch"),
			rule("batch", "jobs", "", "create"),
			rule("batch", "jobs", "web-migrate", "get watch delete"),
		}, lease), got.Namespaces["shop"])
	})
	t.Run("of what templates look up", func(t *testing.T) {
		cfg := digestConfig(newAPIServer(t, "shop"))
		cfg.Chart = writeTemplates(t, map[string]string{"lookup.yaml": `{{ $_ := lookup "v1" "Service" "shared" "gateway" }}{{ $_ := lookup "v1" "Namespace" "" "" }}`})
		got := requiredRBAC(t, cfg, helmx.RBACOptions{})
		assert.Equal(t, []rbacv1.PolicyRule{rule("", "services", "gateway", "get")}, got.Namespaces["shared"])
		assert.Equal(t, []rbacv1.PolicyRule{rule("", "namespaces", "", "list")}, got.Cluster)
		assert.Contains(t, got.Notes, "A template looks up get services gateway in namespace shared.")
	})
	t.Run("of roles that the chart makes", func(t *testing.T) {
		cfg := digestConfig(newAPIServer(t, "shop"))
		cfg.Chart = writeTemplates(t, map[string]string{"roles.yaml": `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [services], resourceNames: [web], verbs: [get, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: prober}
rules: [{nonResourceURLs: [/metrics], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: all}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {all: "true"}}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
`})
		got := requiredRBAC(t, cfg, helmx.RBACOptions{})
		assert.Subset(t, got.Namespaces["shop"], []rbacv1.PolicyRule{
			rule("", "services", "web", "get watch"),
			rule("rbac.authorization.k8s.io", "clusterroles", "view", "bind"),
			rule("rbac.authorization.k8s.io", "rolebindings roles", "reader", "get watch patch delete"),
		})
		assert.Equal(t, []rbacv1.PolicyRule{
			{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics"}},
			rule("rbac.authorization.k8s.io", "clusterroles", "", "create escalate"),
			rule("rbac.authorization.k8s.io", "clusterroles", "all prober", "get watch patch delete"),
		}, got.Cluster)
		manifests, err := got.Manifests("ci/cd-bot")
		require.NoError(t, err)
		assert.Contains(t, string(manifests), "# The chart makes Role shop/reader: the account must hold the rights that it grants")
		assert.Contains(t, string(manifests), "kind: ClusterRoleBinding\nmetadata:\n  name: shop-web-deployer\n")
	})
	t.Run("of a namespace that is yet to be made", func(t *testing.T) {
		cfg := digestConfig(newAPIServer(t))
		cfg.CreateNamespace = true
		got := requiredRBAC(t, cfg, helmx.RBACOptions{})
		assert.Empty(t, got.Namespaces)
		assert.Subset(t, got.Cluster, []rbacv1.PolicyRule{
			rule("", "namespaces", "", "create"),
			rule("", "namespaces", "shop", "get watch delete"),
			rule("batch", "jobs", "", "list"),
		})
	})
	t.Run("of a kind that the cluster lacks", func(t *testing.T) {
		cfg := digestConfig(newAPIServer(t, "shop"))
		cfg.Chart = writeTemplates(t, map[string]string{"x.yaml": "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n"})
		_, err := open(t, cfg).RequiredRBAC(t.Context(), stages.PlanRequest{Image: image("a")}, helmx.RBACOptions{})
		require.ErrorContains(t, err, "does not serve the kind of Widget shop/w")
		assert.True(t, stages.IsPermanent(err))
	})
	t.Run("for an account that can't be", func(t *testing.T) {
		got := requiredRBAC(t, digestConfig(newAPIServer(t, "shop")), helmx.RBACOptions{})
		for _, account := range []string{"", "cd-bot", "/cd-bot", "ci/", "ci/cd/bot", "CI/cd-bot"} {
			_, err := got.Manifests(account)
			require.ErrorIs(t, err, stages.ErrInvalid, account)
		}
	})
}

// reviewer answers as an API server does that lets an account do what it may.
type reviewer struct {
	// rules are listed; may answers single questions. A nil one is refused.
	rules func(namespace string) map[string]any
	may   func(helmx.Right) bool
}

func (v *reviewer) serve(w http.ResponseWriter, r *http.Request) bool {
	var body struct {
		Spec struct {
			Namespace          string
			ResourceAttributes struct{ Verb, Group, Resource, Subresource, Namespace, Name string }
		}
	}
	if !strings.Contains(r.URL.Path, "/selfsubject") {
		return false
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		panic(err)
	}
	switch kind := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]; {
	case kind == "selfsubjectreviews":
		reply(w, 201, content{"status": content{"userInfo": content{"username": "system:serviceaccount:ci:cd-bot"}}})
	case kind == "selfsubjectrulesreviews" && v.rules != nil:
		reply(w, 201, content{"status": v.rules(body.Spec.Namespace)})
	case kind == "selfsubjectaccessreviews" && v.may != nil:
		a := body.Spec.ResourceAttributes
		if a.Subresource != "" {
			a.Resource += "/" + a.Subresource
		}
		right := helmx.Right{Verb: a.Verb, Group: a.Group, Resource: a.Resource, Namespace: a.Namespace, Name: a.Name}
		reply(w, 201, content{"status": content{"allowed": v.may(right)}})
	default:
		fail(w, 403, "Forbidden", "no questions")
	}
	return true
}

func TestPreflight(t *testing.T) {
	every := content{"verbs": []string{"*"}, "apiGroups": []string{"*"}, "resources": []string{"*"}}
	onlyApps := content{"verbs": []string{"get", "create", "patch", "delete", "watch"}, "apiGroups": []string{"apps"}, "resources": []string{"*"}}
	listing := func(incomplete bool, rules ...any) func(string) map[string]any {
		return func(string) map[string]any { return content{"incomplete": incomplete, "resourceRules": rules} }
	}
	all := func(helmx.Right) bool { return true }
	noPatch := func(r helmx.Right) bool { return r.Verb != "patch" && r.Verb != "*" }
	for name, c := range map[string]struct {
		reviewer reviewer
		asked    int
		missing  []string
	}{
		"one request is enough":                {reviewer: reviewer{rules: listing(false, every)}},
		"what the list leaves open is asked":   {reviewer: reviewer{rules: listing(true, onlyApps), may: all}, asked: 1},
		"the list is refused":                  {reviewer: reviewer{may: all}, asked: 1},
		"everything is refused":                {reviewer: reviewer{}, asked: 1},
		"a list that is complete is the truth": {reviewer: reviewer{rules: listing(false, every), may: func(helmx.Right) bool { return false }}},
		"all that is missing is named at once": {reviewer: reviewer{may: noPatch}, asked: 25, missing: []string{
			"patch configmaps web-config in namespace shop", "patch secrets web in namespace shop",
			"patch secrets web-nested in namespace shop", "patch deployments.apps web in namespace shop",
		}},
		"what the list has is not asked again": {reviewer: reviewer{rules: listing(true, onlyApps), may: noPatch}, asked: 20, missing: []string{
			"patch configmaps web-config in namespace shop", "patch secrets web in namespace shop", "patch secrets web-nested in namespace shop",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			a.onRequest(c.reviewer.serve)
			d := open(t, digestConfig(a))
			err := d.Preflight(t.Context(), stages.PlanRequest{Image: image("a")})
			assert.Len(t, a.requests(func(r string) bool { return strings.Contains(r, "/selfsubjectaccessreviews") }), c.asked)
			if c.missing == nil {
				require.NoError(t, err)
				return
			}
			refused := requirePrivilegeError(t, err)
			assert.Equal(t, "system:serviceaccount:ci:cd-bot", refused.Subject)
			var missing []string
			for _, r := range refused.Missing {
				missing = append(missing, r.String())
			}
			assert.Equal(t, c.missing, missing)
			assert.ErrorContains(t, err, "system:serviceaccount:ci:cd-bot may not: "+strings.Join(c.missing, "; "))
			assert.ErrorContains(t, err, "  namespace: shop\nrules:\n- apiGroups:\n  - \"\"\n  resourceNames:\n  - web-config\n")

			_, err = d.Deploy(t.Context(), request(t, "run-1", "a"))
			requirePrivilegeError(t, err)
			assert.Empty(t, a.requests(mutating))
			cfg := digestConfig(a)
			cfg.SkipPreflight = true
			deploy(t, open(t, cfg), "run-1", "a")
		})
	}
}

func TestPrivilegeGate(t *testing.T) {
	a := newAPIServer(t, "shop")
	gate := open(t, digestConfig(a)).PrivilegeGate()
	decision, err := gate.Decide(t.Context(), stages.Plan{Image: image("a")})
	require.NoError(t, err)
	assert.Equal(t, stages.Decision{Gate: "privileges", Verdict: stages.Pass}, decision)

	a.onRequest((&reviewer{may: func(r helmx.Right) bool { return r.Group != "apps" && r.Group != "*" }}).serve)
	decision, err = gate.Decide(t.Context(), stages.Plan{Image: image("a")})
	require.NoError(t, err)
	assert.Equal(t, stages.Fail, decision.Verdict)
	assert.Contains(t, decision.Reasons, stages.Reason{
		Rule: "missing right", Subject: "system:serviceaccount:ci:cd-bot", Message: "create deployments.apps in namespace shop",
	})

	_, err = gate.Decide(t.Context(), stages.Plan{})
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func requirePrivilegeError(t *testing.T, err error) *helmx.PrivilegeError {
	t.Helper()
	var refused *helmx.PrivilegeError
	require.ErrorAs(t, err, &refused)
	assert.True(t, stages.IsPermanent(err))
	return refused
}

// TestPreflightOfWhatCannotBeRead names what is needed even if the release can't
// be read.
func TestPreflightOfWhatCannotBeRead(t *testing.T) {
	a := newAPIServer(t, "shop")
	v := &reviewer{may: func(r helmx.Right) bool { return r.Resource != "secrets" && r.Verb != "patch" && r.Verb != "*" }}
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/secrets") {
			fail(w, 403, "Forbidden", `secrets is forbidden: User "system:serviceaccount:ci:cd-bot" cannot list resource "secrets" in API group "" in the namespace "shop"`)
			return true
		}
		return v.serve(w, r)
	})
	_, err := open(t, digestConfig(a)).Deploy(t.Context(), request(t, "run-1", "a"))
	assert.Subset(t, requirePrivilegeError(t, err).Missing, []helmx.Right{
		{Verb: "list", Resource: "secrets", Namespace: "shop"},
		{Verb: "create", Resource: "secrets", Namespace: "shop"},
		{Verb: "patch", Group: "apps", Resource: "deployments", Namespace: "shop", Name: "web"},
		{Verb: "patch", Resource: "configmaps", Namespace: "shop", Name: "web-config"},
	})
}

// TestRightsThatAreWithdrawnMeanwhile ends in an error that says how to get them.
func TestRightsThatAreWithdrawnMeanwhile(t *testing.T) {
	for message, want := range map[string]string{
		`deployments.apps is forbidden: User "ada" cannot create resource "deployments" in API group "apps" in the namespace "shop"`: "to grant it to ada, apply:\n",
		`roles "x" is forbidden: user "ada" (groups=["a"]) is attempting to grant RBAC permissions not currently held:`:              "or the verb escalate",
		`the plug-in says no`: "grant it to the deploying account with a Role",
	} {
		a := newAPIServer(t, "shop")
		a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/deployments") {
				return false
			}
			fail(w, 403, "Forbidden", message)
			return true
		})
		_, err := open(t, digestConfig(a)).Deploy(t.Context(), request(t, "run-1", "a"))
		var refused *helmx.APIError
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, helmx.Forbidden, refused.Reason)
		require.ErrorContains(t, err, want)
		if strings.Contains(message, "ada") {
			assert.Equal(t, "ada", refused.Subject)
		}
	}
}

// TestRestoreWaitsWithTheRightsThatWereChecked: what the upgrade deletes may still be
// going when the restore makes it anew.
func TestRestoreWaitsWithTheRightsThatWereChecked(t *testing.T) {
	a := newAPIServer(t, "shop")
	deploy(t, open(t, digestConfig(a, helmx.Set("extra=true"))), "run-1", "a")
	a.onRequest((&reviewer{may: func(r helmx.Right) bool { return r.Verb != "*" && (r.Verb != "watch" || r.Resource != "configmaps") }}).serve)
	_, err := open(t, digestConfig(a)).Deploy(t.Context(), request(t, "run-2", "b"))
	assert.Equal(t, []helmx.Right{{Verb: "watch", Resource: "configmaps", Namespace: "shop", Name: "web-extra"}}, requirePrivilegeError(t, err).Missing)
	assert.Equal(t, image("a").String(), runningImage(t, a))
}
