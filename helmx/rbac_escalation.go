package helmx

import (
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// roleKey identifies a Role, or a ClusterRole, which has no namespace.
type roleKey struct{ kind, namespace, name string }

// resource is what the verbs escalate and bind are granted on.
func (k roleKey) resource() Right {
	resource := "roles"
	if k.kind == "ClusterRole" {
		resource = "clusterroles"
	}
	return Right{Group: rbacv1.GroupName, Resource: resource, Namespace: k.namespace, Name: k.name}
}

func (k roleKey) String() string {
	if k.namespace == "" {
		return k.kind + " " + k.name
	}
	return k.kind + " " + k.namespace + "/" + k.name
}

// escalationNeeds is for roles and bindings among objects: the API server lets an
// account grant only what it holds itself, unless it may "escalate" the role or
// "bind" it.
func (s *session) escalationNeeds(n *needs, objects []object) error {
	own := map[roleKey][]rbacv1.PolicyRule{}
	for _, o := range objects {
		if o.gvk().Group != rbacv1.GroupName || o.id.Kind != "Role" && o.id.Kind != "ClusterRole" {
			continue
		}
		var role rbacv1.ClusterRole // A Role is one without the aggregation.
		if err := decodeRBAC(o, &role); err != nil {
			return err
		}
		key := roleKey{o.id.Kind, o.id.Namespace, o.id.Name}
		own[key] = append(own[key], role.Rules...)
		escalate := key.resource()
		escalate.Verb = "escalate"
		if n.apply != ServerSide {
			escalate.Name = "" // As for what is created.
		}
		if role.AggregationRule != nil {
			n.notef("The chart makes %s, which aggregates others: that takes all rights there are, or the verb escalate, as here.", key)
			n.add(escalate)
			continue
		}
		n.notef("The chart makes %s: the account must hold the rights that it grants, as here, or the verb escalate.", key)
		for _, r := range rightsOf(role.Rules, o.id.Namespace) {
			n.all = append(n.all, need{Right: r, instead: []Right{escalate}})
		}
	}
	for _, o := range objects {
		if o.gvk().Group != rbacv1.GroupName || o.id.Kind != "RoleBinding" && o.id.Kind != "ClusterRoleBinding" {
			continue
		}
		var binding rbacv1.RoleBinding // A ClusterRoleBinding looks the same.
		if err := decodeRBAC(o, &binding); err != nil {
			return err
		}
		if err := s.bindingNeeds(n, o, binding.RoleRef, own); err != nil {
			return err
		}
	}
	return nil
}

// bindingNeeds is for one binding. It is authorized where the binding is, even if
// the role is the whole cluster's.
func (s *session) bindingNeeds(n *needs, o object, ref rbacv1.RoleRef, own map[roleKey][]rbacv1.PolicyRule) error {
	key := roleKey{ref.Kind, "", ref.Name}
	if ref.Kind == "Role" {
		key.namespace = o.id.Namespace
	}
	bind := key.resource()
	bind.Verb, bind.Namespace = "bind", o.id.Namespace
	if rules, ok := own[key]; ok {
		for _, r := range rightsOf(rules, o.id.Namespace) {
			n.all = append(n.all, need{Right: r, instead: []Right{bind}})
		}
		return nil
	}
	n.notef("The chart binds %s in %s: the account must hold the rights that the role grants, or the verb bind, as here.", key, o.id)
	rules, err := s.roleRules(key)
	if err != nil {
		return err
	}
	n.all = append(n.all, need{Right: bind, instead: rightsOf(rules, o.id.Namespace)})
	return nil
}

// roleRules returns what a role of the cluster grants, or nothing if the account
// may not look.
func (s *session) roleRules(key roleKey) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	var err error
	if key.kind == "Role" {
		var role *rbacv1.Role
		if role, err = s.clients.RbacV1().Roles(key.namespace).Get(s.ctx, key.name, metav1.GetOptions{}); err == nil {
			rules = role.Rules
		}
	} else {
		var role *rbacv1.ClusterRole
		if role, err = s.clients.RbacV1().ClusterRoles().Get(s.ctx, key.name, metav1.GetOptions{}); err == nil {
			rules = role.Rules
		}
	}
	if err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
		return nil, s.explain(fmt.Errorf("look at %s: %w", key, err))
	}
	return rules, nil
}

func decodeRBAC(o object, into any) error {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.content, into); err != nil {
		return fmt.Errorf("rendered %s: %s can't be read: %w", o.template, o.id, err)
	}
	return nil
}
