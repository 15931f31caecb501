package helmx

import (
	"fmt"
	"strings"

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
// "bind" it. For one deployment, the API server is asked where that is not known.
func (s *session) escalationNeeds(n *needs, objects []object, once bool) error {
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
		if err := s.bindingNeeds(n, o, binding.RoleRef, own, once); err != nil {
			return err
		}
	}
	return nil
}

// bindingNeeds is for one binding. It is authorized where the binding is, even if
// the role is the whole cluster's.
func (s *session) bindingNeeds(n *needs, o object, ref rbacv1.RoleRef, own map[roleKey][]rbacv1.PolicyRule, once bool) error {
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
	rules, known, err := s.roleRules(key)
	if err != nil {
		return err
	}
	if !known && once && !n.fresh {
		if refused, err := s.refusesToBind(o); err != nil || !refused {
			return err
		}
	}
	n.all = append(n.all, need{Right: bind, instead: rightsOf(rules, o.id.Namespace)})
	return nil
}

// refusesToBind tries the binding as a dry run. What stands in its way beside the
// rights of the role is told elsewhere.
func (s *session) refusesToBind(o object) (bool, error) {
	t, err := s.newTrial(o, nil, false)
	if err == nil {
		err = t.tryAnyway()
	}
	if err != nil {
		return false, s.explain(err)
	}
	return t.refusal != nil && strings.Contains(t.refusal.Message, handsOn), nil
}

// handsOn is what the API server says of an account that grants what it doesn't hold.
const handsOn = "RBAC permissions not currently held"

// untouched returns the roles and bindings that a deployment doesn't change, which the
// API server lets pass whatever they grant: they are as in the last revision, and as
// they live.
func (s *session) untouched(before, wanted []object) map[identity]bool {
	out := map[identity]bool{}
	was := index(before)
	for _, o := range wanted {
		base, stays := was[o.identity()]
		if o.gvk().Group != rbacv1.GroupName || !stays || !equalContent(base.content, o.content) {
			continue
		}
		// What can't be read is not known to be the same.
		if live, err := s.live(o); err == nil && live != nil && len(o.deviations(live, true)) == 0 {
			out[o.identity()] = true
		}
	}
	return out
}

// roleRules returns what a role of the cluster grants, and whether the account may
// look.
func (s *session) roleRules(key roleKey) (rules []rbacv1.PolicyRule, known bool, err error) {
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
		return nil, false, s.explain(fmt.Errorf("look at %s: %w", key, err))
	}
	return rules, !apierrors.IsForbidden(err), nil
}

func decodeRBAC(o object, into any) error {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.content, into); err != nil {
		return fmt.Errorf("rendered %s: %s can't be read: %w", o.template, o.id, err)
	}
	return nil
}
