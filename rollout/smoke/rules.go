package smoke

import (
	"cmp"
	"context"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-dev/fairlead/stages"
)

// RequiredRules returns the rules that an account needs to run the test on rel,
// those that only its diagnosis and its cleanliness need included, by namespace. A
// function's are its own business: there are none. It asks the cluster nothing.
func (t *Test) RequiredRules(_ context.Context, rel stages.Release) (map[string][]rbacv1.PolicyRule, error) {
	if t.rules == nil {
		return nil, nil
	}
	return t.rules(rel)
}

func (p *podTest) rules(rel stages.Release) (map[string][]rbacv1.PolicyRule, error) {
	namespace := cmp.Or(p.Namespace, rel.Namespace)
	return map[string][]rbacv1.PolicyRule{namespace: append(ownerRules(rel, namespace),
		rule("pods", "", "list", "watch", "create", "delete"),
		rule("pods/log", "", "get"),
		rule("events", "", "list", "watch"),
	)}, nil
}

func (j *jobTest) rules(rel stages.Release) (map[string][]rbacv1.PolicyRule, error) {
	namespace := cmp.Or(j.Namespace, rel.Namespace)
	return map[string][]rbacv1.PolicyRule{namespace: append(ownerRules(rel, namespace),
		rule("jobs.batch", "", "list", "watch", "create", "delete"),
		rule("pods", "", "list", "watch"),
		rule("pods/log", "", "get"),
		rule("events", "", "list", "watch"),
	)}, nil
}

func (d *dialTest) rules(rel stages.Release) (map[string][]rbacv1.PolicyRule, error) {
	resource, name, err := d.target.resolve(rel)
	if err != nil {
		return nil, err
	}
	rules := []rbacv1.PolicyRule{rule(resource, name, "get"), rule("pods/portforward", "", "get", "create")}
	if resource != "pods" {
		rules = append(rules, rule("pods", "", "list"))
	}
	if strings.HasSuffix(resource, ".apps") {
		return map[string][]rbacv1.PolicyRule{rel.Namespace: append(rules, revisionRules(resource, name)...)}, nil
	}
	for _, o := range rel.Objects {
		if o.APIVersion == "apps/v1" && workloads[o.Kind] != "" && (o.Namespace == "" || o.Namespace == rel.Namespace) {
			rules = append(rules, revisionRules(workloads[o.Kind], o.Name)...)
		}
	}
	return map[string][]rbacv1.PolicyRule{rel.Namespace: rules}, nil
}

// revisionRules are for telling which pods of a workload are of its current revision.
func revisionRules(resource, name string) []rbacv1.PolicyRule {
	rules := []rbacv1.PolicyRule{rule(resource, name, "list")}
	if resource == "deployments.apps" {
		rules = append(rules, rule("replicasets.apps", "", "list"))
	}
	return rules
}

// ownerRules are for reading the workload that owns what a test makes.
func ownerRules(rel stages.Release, namespace string) []rbacv1.PolicyRule {
	if o, found := firstWorkload(rel, namespace); found {
		return []rbacv1.PolicyRule{rule(workloads[o.Kind], o.Name, "get")}
	}
	return nil
}

// rule is for a resource with its group, such as "jobs.batch", or one object of it.
func rule(resource, name string, verbs ...string) rbacv1.PolicyRule {
	on := schema.ParseGroupResource(resource)
	r := rbacv1.PolicyRule{APIGroups: []string{on.Group}, Resources: []string{on.Resource}, Verbs: verbs}
	if name != "" {
		r.ResourceNames = []string{name}
	}
	return r
}
