package traffic

import (
	"cmp"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// parentRef is what is read of one, of a route's spec or of its status.
type parentRef struct {
	Group       *string `json:"group"` // "" is that of Services
	Kind        string  `json:"kind"`
	Namespace   string  `json:"namespace"`
	Name        string  `json:"name"`
	SectionName string  `json:"sectionName"`
	Port        int64   `json:"port"`
}

// parent is a parentRef with its defaults, which the status may spell out where the
// spec doesn't.
type parent struct {
	group, kind, namespace, name, section string
	port                                  int64
}

func (r parentRef) in(namespace string) parent {
	group := httpRouteKind.Group
	if r.Group != nil {
		group = *r.Group
	}
	return parent{group, cmp.Or(r.Kind, "Gateway"), cmp.Or(r.Namespace, namespace), r.Name, r.SectionName, r.Port}
}

// seenFrom names a parent to people who know the route's namespace.
func (p parent) seenFrom(namespace string) string {
	text := p.kind + " "
	if p.kind == "Gateway" {
		text = "gateway "
	}
	if p.namespace != namespace {
		text += p.namespace + "/"
	}
	text += p.name
	if p.section != "" {
		text += ", section " + p.section
	}
	if p.port != 0 {
		text += fmt.Sprintf(", port %d", p.port)
	}
	return text
}

// unsettled goes by what the gateways' controllers say. Without a canary it doesn't
// matter whether the route resolves: its Service comes and goes with it.
func (g gateway) unsettled(o *unstructured.Unstructured, canary bool) string {
	var route struct {
		Spec struct {
			ParentRefs []parentRef `json:"parentRefs"`
		} `json:"spec"`
		Status struct {
			Parents []struct {
				ParentRef  parentRef          `json:"parentRef"`
				Conditions []metav1.Condition `json:"conditions"`
			} `json:"parents"`
		} `json:"status"`
	}
	if err := convert(o.Object, &route); err != nil {
		return "its status can't be read: " + err.Error()
	}
	switch {
	case len(route.Spec.ParentRefs) == 0:
		return "it has no parentRefs, so that no gateway serves it"
	case len(route.Status.Parents) == 0:
		return "no gateway has accepted it yet"
	}
	said := map[parent][][]metav1.Condition{} // by each of a parent's controllers
	for _, p := range route.Status.Parents {
		ref := p.ParentRef.in(g.namespace)
		said[ref] = append(said[ref], p.Conditions)
	}
	for _, ref := range route.Spec.ParentRefs {
		parent := ref.in(g.namespace)
		if len(said[parent]) == 0 {
			return parent.seenFrom(g.namespace) + ": not Accepted (no controller has said anything yet)"
		}
		for _, conditions := range said[parent] {
			if problem := unaccepted(conditions, o.GetGeneration(), canary); problem != "" {
				return parent.seenFrom(g.namespace) + ": " + problem
			}
		}
	}
	return ""
}

// unaccepted says what keeps a controller from serving a route; "" for nothing.
func unaccepted(conditions []metav1.Condition, generation int64, canary bool) string {
	for _, want := range []string{"Accepted", "ResolvedRefs"} {
		ok, reason := false, "unknown"
		for _, c := range conditions {
			switch {
			case c.Type != want:
			case c.ObservedGeneration < generation:
				reason = "not observed yet"
			default:
				reason = c.Reason
				ok = c.Status == metav1.ConditionTrue || want == "ResolvedRefs" && !canary
			}
		}
		if !ok {
			return fmt.Sprintf("not %s (%s)", want, reason)
		}
	}
	return ""
}
