package rollout

import (
	"context"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-dev/fairlead/stages"
)

// RequiredRules returns the rules that an account needs to verify rel, those that
// only its diagnosis needs included, by namespace; the ones under "" are for the
// whole cluster. StorageClasses are left out, because only a ClusterRole lets an
// account read them, and the verdict can do without. Of the cluster it asks nothing
// but what the kinds are called that it doesn't know; one that isn't served is left
// out.
func (v *Verifier) RequiredRules(ctx context.Context, rel stages.Release) (map[string][]rbacv1.PolicyRule, error) {
	rules := rulesByNamespace{}
	watched, others, _ := v.settings.split(rel)
	for _, o := range watched {
		if err := v.rulesToWatch(ctx, rules, o, orElse(o.Namespace, rel.Namespace)); err != nil {
			return nil, err
		}
	}
	for _, o := range others {
		e, served, err := v.served(ctx, o)
		if err != nil {
			return nil, err
		}
		if served {
			rules.add(e.namespace(orElse(o.Namespace, rel.Namespace)), e.resource.GroupResource(), []string{o.Name}, "get")
		}
	}
	return rules, nil
}

// rulesToWatch are for an object that is waited for.
func (v *Verifier) rulesToWatch(ctx context.Context, rules rulesByNamespace, o stages.Object, namespace string) error {
	k, _ := v.settings.kindOf(o)
	for _, r := range k.needs {
		switch {
		case r.name == storageClasses.name:
		case r.clusterScoped:
			rules.add("", schema.ParseGroupResource(r.name), nil, "list", "watch")
		default:
			rules.add(namespace, schema.ParseGroupResource(r.name), nil, "list", "watch")
		}
	}
	if k.workload() {
		rules.add(namespace, schema.GroupResource{Resource: "pods/log"}, nil, "get")
	}
	if !k.discover {
		return nil
	}
	e, served, err := v.served(ctx, o)
	if served {
		rules.add(e.namespace(namespace), e.resource.GroupResource(), nil, "list", "watch")
	}
	return err
}

// served asks what the cluster calls o's kind, and whether it serves it.
func (v *Verifier) served(ctx context.Context, o stages.Object) (e entry, served bool, err error) {
	e, err = v.cluster.kinds.find(ctx, o)
	switch {
	case apierrors.IsNotFound(err):
		return entry{}, false, nil
	case err != nil:
		return entry{}, false, fmt.Errorf("ask the cluster for the kind %s: %w", o.Kind, err)
	}
	return e, true, nil
}

// namespace is where an object of the kind is authorized.
func (e entry) namespace(namespace string) string {
	if !e.namespaced {
		return ""
	}
	return namespace
}

type rulesByNamespace map[string][]rbacv1.PolicyRule

// add adds a rule that isn't there yet.
func (r rulesByNamespace) add(namespace string, on schema.GroupResource, names []string, verbs ...string) {
	rule := rbacv1.PolicyRule{APIGroups: []string{on.Group}, Resources: []string{on.Resource}, ResourceNames: names, Verbs: verbs}
	same := func(other rbacv1.PolicyRule) bool { return other.String() == rule.String() }
	if !slices.ContainsFunc(r[namespace], same) {
		r[namespace] = append(r[namespace], rule)
	}
}
