package traffic

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// namespaced are the rules of one namespace.
type namespaced = map[string][]rbacv1.PolicyRule

func policyRule(group, resource string, names []string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: names, Verbs: verbs}
}

// RequiredRules returns the rules that an account needs to use the router, by
// namespace, whatever the release is. It asks the cluster nothing.
func (r *Replicas) RequiredRules(context.Context, stages.Release) (map[string][]rbacv1.PolicyRule, error) {
	return namespaced{r.config.Namespace: {
		policyRule("", "services", []string{r.config.Service}, "get", "patch"),
		policyRule("", "pods", nil, "list"),
		policyRule("discovery.k8s.io", "endpointslices", nil, "list"),
		policyRule("apps", r.workloads.resource, []string{r.config.Stable, r.config.Canary}, "get", "patch"),
		policyRule("autoscaling", "horizontalpodautoscalers", nil, "list"),
	}}, nil
}

// RequiredRules returns the rules that an account needs to use the router, by
// namespace, whatever the release is. It asks the cluster nothing.
func (r *Selector) RequiredRules(context.Context, stages.Release) (map[string][]rbacv1.PolicyRule, error) {
	return namespaced{r.config.Namespace: {
		policyRule("", "services", []string{r.config.Service}, "get", "patch"),
		policyRule("", "pods", nil, "list"),
		policyRule("discovery.k8s.io", "endpointslices", nil, "list"),
	}}, nil
}

// RequiredRules returns the rules that an account needs to use the router, by
// namespace, whatever the release is. It asks the cluster nothing.
func (r *weightedRoute) RequiredRules(context.Context, stages.Release) (map[string][]rbacv1.PolicyRule, error) {
	return weighted(r.routes, r.name, r.allowOthers), nil
}

// weighted is for an object with weights in it, and for a look at others of its kind.
func weighted(on kind, name string, allowOthers bool) namespaced {
	rules := []rbacv1.PolicyRule{policyRule(on.gvk.Group, on.resource, []string{name}, "get", "patch")}
	if !allowOthers {
		rules = append(rules, policyRule(on.gvk.Group, on.resource, nil, "list"))
	}
	return namespaced{on.namespace: rules}
}

// RequiredRules returns the rules that an account needs to use the router, by
// namespace, whatever the release is. It asks the cluster nothing.
func (r *NGINX) RequiredRules(context.Context, stages.Release) (map[string][]rbacv1.PolicyRule, error) {
	return namespaced{r.config.Namespace: {
		policyRule("networking.k8s.io", "ingresses", nil, "list", "create"),
		policyRule("networking.k8s.io", "ingresses", []string{r.config.CanaryIngress}, "patch", "delete"),
	}}, nil
}

// RequiredRules returns the rules that an account needs to keep the state, by
// namespace, whatever the release is. It asks the cluster nothing.
func (c *ConfigMap) RequiredRules(context.Context, stages.Release) (map[string][]rbacv1.PolicyRule, error) {
	return namespaced{c.namespace: {
		policyRule("", "configmaps", nil, "create"),
		policyRule("", "configmaps", []string{c.name}, "get", "update", "delete"),
	}}, nil
}
