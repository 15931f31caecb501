package rollout

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// service: one of type LoadBalancer needs an address.
func (in *inspector) service(a *assessment, o metav1.Object) {
	s, ok := o.(*corev1.Service)
	switch {
	case !ok:
	case s.Spec.Type != corev1.ServiceTypeLoadBalancer, len(s.Spec.ExternalIPs) > 0:
		a.exists()
	case len(s.Status.LoadBalancer.Ingress) > 0:
		i := s.Status.LoadBalancer.Ingress[0]
		a.finish("has the address " + orElse(i.IP, i.Hostname))
	default:
		in.addressless(a, subjectOf("Service", s), "no load balancer has given it an address yet", "SyncLoadBalancerFailed")
	}
}

// ingress is only judged where the configuration asks for an address: there may
// be no controller that writes one.
func (in *inspector) ingress(a *assessment, o metav1.Object) {
	i, ok := o.(*networkingv1.Ingress)
	switch {
	case !ok:
	case len(i.Status.LoadBalancer.Ingress) > 0:
		first := i.Status.LoadBalancer.Ingress[0]
		a.finish("has the address " + orElse(first.IP, first.Hostname))
	default:
		in.addressless(a, subjectOf("Ingress", i), "no ingress controller has given it an address yet", "Sync")
	}
}

func (in *inspector) addressless(a *assessment, s subject, message string, reasons ...string) {
	if e := in.world.events.last(s.uid, reasons...); e != nil && e.Type == corev1.EventTypeWarning {
		message += ": " + e.Message
	}
	a.fail(NoAddress, s, string(NoAddress), message)
}

// accepted judges a Gateway API object by conditions about its current generation.
func accepted(conditions ...string) func(*inspector, *assessment, metav1.Object) {
	return func(_ *inspector, a *assessment, o metav1.Object) {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			return
		}
		acceptedBy(a, u, "its controller", conditionsIn(u.Object, "status", "conditions"), conditions)
		if a.waiting == "" && len(a.findings) == 0 {
			a.finish(strings.ToLower(strings.Join(conditions, ", ")))
		}
	}
}

// acceptedBy holds what a controller says against the conditions wanted.
func acceptedBy(a *assessment, u *unstructured.Unstructured, who string, said []statusCondition, wanted []string) {
	for _, want := range wanted {
		c, found := conditionNamed(said, want)
		switch {
		case !found || c.hasObserved && c.observed < u.GetGeneration():
			a.fail(NotReconciled, subjectOf(u.GetKind(), u), string(NotReconciled), fmt.Sprintf("%s has not said yet whether it is %s", who, want))
		case c.status == "True":
			continue
		case c.status == "False" && c.reason != "Pending":
			a.fail(NotAccepted, subjectOf(u.GetKind(), u), orElse(c.reason, "Not"+want), fmt.Sprintf("%s says: %s", who, c))
		default:
			a.fail(NotReconciled, subjectOf(u.GetKind(), u), orElse(c.reason, string(NotReconciled)), fmt.Sprintf("%s says: %s", who, c))
		}
		return
	}
}

// route: each of its parents must have accepted it, and know its backends.
func (in *inspector) route(a *assessment, o metav1.Object) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	parents, _, _ := unstructured.NestedSlice(u.Object, "spec", "parentRefs")
	answers, _, _ := unstructured.NestedSlice(u.Object, "status", "parents")
	for _, p := range parents {
		parent, ok := p.(map[string]any)
		if !ok {
			continue
		}
		name := parentKey(parent, u.GetNamespace())
		var said []statusCondition
		for _, raw := range answers {
			answer, ok := raw.(map[string]any)
			if !ok {
				continue
			}
			ref, _, _ := unstructured.NestedMap(answer, "parentRef")
			if parentKey(ref, u.GetNamespace()) == name {
				said = append(said, conditionsIn(answer, "conditions")...)
			}
		}
		acceptedBy(a, u, name, said, []string{"Accepted", "ResolvedRefs"})
	}
	if len(a.findings) == 0 {
		a.finish(fmt.Sprintf("accepted by %d parents", len(parents)))
	}
}

// parentKey names a parent, with the defaults of the Gateway API filled in.
func parentKey(ref map[string]any, namespace string) string {
	field := func(name, otherwise string) string {
		if v := ref[name]; v != nil {
			return fmt.Sprint(v)
		}
		return otherwise
	}
	key := fmt.Sprintf("%s %s/%s", field("kind", "Gateway"), field("namespace", namespace), field("name", ""))
	if group := field("group", gatewayGroup); group != gatewayGroup {
		key = group + " " + key
	}
	for _, part := range []string{"sectionName", "port"} {
		if v := field(part, ""); v != "" {
			key += fmt.Sprintf(" %s %s", strings.TrimSuffix(part, "Name"), v)
		}
	}
	return key
}

// statusCondition is one condition of an object without types.
type statusCondition struct {
	name, status, reason, message string
	observed                      int64 // the generation that it is about
	hasObserved                   bool
}

// String returns such as "Accepted is False: NoMatchingParent: no listener …".
func (c statusCondition) String() string {
	text := fmt.Sprintf("%s is %s", c.name, orElse(c.status, "unknown"))
	for _, part := range []string{c.reason, c.message} {
		if part != "" {
			text += ": " + part
		}
	}
	return text
}

// conditionsIn reads a list of conditions, and passes over what is none.
func conditionsIn(o map[string]any, path ...string) []statusCondition {
	list, _, _ := unstructured.NestedSlice(o, path...)
	var out []statusCondition
	for _, item := range list {
		m, ok := item.(map[string]any)
		if !ok {
			continue
		}
		text := func(field string) string {
			s, _ := m[field].(string)
			return s
		}
		c := statusCondition{name: text("type"), status: text("status"), reason: text("reason"), message: text("message")}
		c.observed, c.hasObserved = integer(m["observedGeneration"])
		if c.name != "" {
			out = append(out, c)
		}
	}
	return out
}

// conditionNamed returns a condition by its name: among several, what the most
// recent generation of somebody's has to say against.
func conditionNamed(all []statusCondition, name string) (found statusCondition, ok bool) {
	for _, c := range all {
		if c.name != name {
			continue
		}
		if newer := cmp.Compare(c.observed, found.observed); !ok || newer > 0 || newer == 0 && c.status != "True" {
			found, ok = c, true
		}
	}
	return found, ok
}
