package helmx_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// grants is a source of these rules, which remembers the release that it was asked for.
func grants(asked *stages.Release, rules map[string][]rbacv1.PolicyRule) helmx.RuleSource {
	return helmx.RuleSourceFunc(func(_ context.Context, rel stages.Release) (map[string][]rbacv1.PolicyRule, error) {
		*asked = rel
		return rules, nil
	})
}

func TestRulesOfOtherParts(t *testing.T) {
	a := newAPIServer(t, "shop")
	var asked stages.Release
	cfg := digestConfig(a)
	alone := requiredRBAC(t, cfg, helmx.RBACOptions{})
	cfg.Rules = []helmx.RuleSource{
		grants(&asked, map[string][]rbacv1.PolicyRule{
			"shop":  {rule("", "pods", "", "list watch"), rule("apps", "deployments", "", "list watch"), rule("", "configmaps", "web-config", "get")},
			"tests": {rule("", "pods", "", "create")},
		}),
		grants(&asked, map[string][]rbacv1.PolicyRule{"shop": {rule("", "pods", "", "watch create")}, "": {rule("", "nodes", "", "get")}}),
	}
	got := requiredRBAC(t, cfg, helmx.RBACOptions{})

	assert.Equal(t, image("a"), asked.Image)
	assert.Equal(t, "shop/web", asked.Namespace+"/"+asked.Name)
	assert.Equal(t, 1, asked.Revision)
	assert.Contains(t, asked.Objects, stages.Object{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "shop", Name: "web"})

	assert.Equal(t, []rbacv1.PolicyRule{rule("", "nodes", "", "get")}, got.Cluster)
	assert.Equal(t, []rbacv1.PolicyRule{rule("", "pods", "", "create")}, got.Namespaces["tests"])
	assert.Subset(t, got.Namespaces["shop"], []rbacv1.PolicyRule{
		rule("", "pods", "", "list watch create"),
		rule("apps", "deployments", "", "list watch create"), // and so no watch by name
		rule("apps", "deployments", "web", "get patch delete"),
		rule("", "configmaps", "web-config", "get watch patch delete"),
	})
	assert.Len(t, got.Namespaces["shop"], len(alone.Namespaces["shop"])+1, "only pods are new")
	manifests, err := got.Manifests("ci/cd-bot")
	require.NoError(t, err)
	assert.Contains(t, string(manifests), "kind: Role\nmetadata:\n  name: web-deployer\n  namespace: shop\n")
	assert.Contains(t, string(manifests), "kind: ClusterRole\nmetadata:\n  name: shop-web-deployer\n")
}

// TestRulesOfOtherPartsAreChecked: nothing is deployed that could not be verified.
func TestRulesOfOtherPartsAreChecked(t *testing.T) {
	a := newAPIServer(t, "shop")
	a.onRequest((&reviewer{may: func(r helmx.Right) bool { return r.Verb != "*" && r.Resource != "httproutes" }}).serve)
	var asked stages.Release
	cfg := digestConfig(a)
	cfg.Rules = []helmx.RuleSource{grants(&asked, map[string][]rbacv1.PolicyRule{"shop": {rule("gateway.networking.k8s.io", "httproutes", "shop", "get patch")}})}
	_, err := open(t, cfg).Deploy(t.Context(), request(t, "run-1", "a"))
	route := func(verb string) helmx.Right {
		return helmx.Right{Verb: verb, Group: "gateway.networking.k8s.io", Resource: "httproutes", Namespace: "shop", Name: "shop"}
	}
	assert.Equal(t, []helmx.Right{route("get"), route("patch")}, requirePrivilegeError(t, err).Missing)
	assert.Empty(t, a.requests(mutating))

	cfg.Rules = []helmx.RuleSource{helmx.RuleSourceFunc(func(context.Context, stages.Release) (map[string][]rbacv1.PolicyRule, error) {
		return nil, errors.New("the cluster is away")
	})}
	_, err = open(t, cfg).Deploy(t.Context(), request(t, "run-1", "a"))
	require.ErrorContains(t, err, "the rules of helmx.RuleSourceFunc: the cluster is away")
	assert.Empty(t, a.requests(mutating))

	cfg.Rules = []helmx.RuleSource{nil}
	_, err = helmx.New(cfg)
	require.ErrorIs(t, err, stages.ErrInvalid)
}

// TestRulesThatCannotBeAskedFor: what a release consists of isn't known if its
// templates may not look up what they want to.
func TestRulesThatCannotBeAskedFor(t *testing.T) {
	a := newAPIServer(t, "shop")
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/services/gateway") {
			fail(w, 403, "Forbidden", `services "gateway" is forbidden: User "cd-bot" cannot get resource "services"`)
			return true
		}
		return false
	})
	cfg := digestConfig(a)
	cfg.Chart = writeTemplates(t, map[string]string{"lookup.yaml": `{{ $_ := lookup "v1" "Service" "shop" "gateway" }}`})
	cfg.Rules = []helmx.RuleSource{helmx.RuleSourceFunc(func(context.Context, stages.Release) (map[string][]rbacv1.PolicyRule, error) {
		t.Error("asked about a release that is not known")
		return nil, nil
	})}
	refused := requirePrivilegeError(t, open(t, cfg).Preflight(t.Context(), stages.PlanRequest{Image: image("a")}))
	assert.Contains(t, refused.Missing, helmx.Right{Verb: "get", Resource: "services", Namespace: "shop", Name: "gateway"})
}

func TestUnionOfRBAC(t *testing.T) {
	a := newAPIServer(t, "shop")
	stable := requiredRBAC(t, digestConfig(a), helmx.RBACOptions{})
	cfg := digestConfig(a)
	cfg.Release = "web-canary"
	cfg.Chart = writeTemplates(t, map[string]string{"role.yaml": "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: prober}\n"})
	both := stable.Union(requiredRBAC(t, cfg, helmx.RBACOptions{Uninstall: true}), stable)
	assert.Subset(t, both.Namespaces["shop"], []rbacv1.PolicyRule{
		rule("", "secrets", "", "get list create update delete"),
		rule("apps", "deployments", "", "create"),
		rule("apps", "deployments", "web web-canary", "get watch patch delete"),
		rule("coordination.k8s.io", "leases", "fairlead.web fairlead.web-canary", "get watch update delete"),
	})
	assert.NotEmpty(t, both.Cluster)
	assert.Empty(t, stable.Cluster)
	manifests, err := both.Manifests("ci/cd-bot")
	require.NoError(t, err)
	assert.Equal(t, 1, strings.Count(string(manifests), "# Helm keeps its revisions"))
	assert.Contains(t, string(manifests), "kind: Role\nmetadata:\n  name: web-deployer\n")
	assert.Contains(t, string(manifests), "kind: ClusterRole\nmetadata:\n  name: shop-web-deployer\n")
}
