package rollout

import (
	"fmt"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// definition: the API server must serve the kind that it defines.
func (in *inspector) definition(a *assessment, o metav1.Object) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	conditions := conditionsIn(u.Object, "status", "conditions")
	s := subjectOf("CustomResourceDefinition", u)
	names, _ := conditionNamed(conditions, "NamesAccepted")
	established, _ := conditionNamed(conditions, "Established")
	switch {
	case names.status == "False":
		a.fail(NotAccepted, s, orElse(names.reason, "NamesNotAccepted"), names.String())
	case names.status == "True" && established.status == "True":
		a.finish("established")
	default:
		a.fail(NotReconciled, s, orElse(established.reason, string(NotReconciled)), "the API server does not serve its kind yet")
	}
}

// apiService: the server behind it must answer.
func (in *inspector) apiService(a *assessment, o metav1.Object) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	c, _ := conditionNamed(conditionsIn(u.Object, "status", "conditions"), "Available")
	if c.status == "True" {
		a.finish("available")
		return
	}
	c.name = "Available"
	a.fail(NotReconciled, subjectOf("APIService", u), orElse(c.reason, string(NotReconciled)), c.String())
}

// custom judges an object that nothing is known of by the conventions that
// kstatus has written down: observedGeneration, and the conditions Ready,
// Reconciling and Stalled. One that follows none of them is done when it exists.
func (in *inspector) custom(a *assessment, o metav1.Object) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	s := subjectOf(u.GetKind(), u)
	status, _, _ := unstructured.NestedMap(u.Object, "status")
	if observed, known := integer(status["observedGeneration"]); known && observed < u.GetGeneration() {
		a.fail(NotReconciled, s, string(NotReconciled), unobserved(u.GetGeneration(), observed))
		return
	}
	conditions := conditionsIn(status, "conditions")
	current := func(name string) (statusCondition, bool) {
		c, found := conditionNamed(conditions, name)
		return c, found && (!c.hasObserved || c.observed >= u.GetGeneration())
	}
	if c, ok := current("Stalled"); ok && c.status == "True" {
		a.fail(ResourceFailed, s, orElse(c.reason, "Stalled"), c.String())
		return
	}
	if c, ok := current("Reconciling"); ok && c.status == "True" {
		a.fail(NotReconciled, s, orElse(c.reason, "Reconciling"), c.String())
		return
	}
	_, has := conditionNamed(conditions, "Ready")
	switch c, fresh := current("Ready"); {
	case !has:
		a.exists()
	case !fresh:
		a.fail(NotReconciled, s, string(NotReconciled), unobserved(1, 0))
	case c.status == "True":
		a.finish("ready")
	default:
		a.fail(NotReconciled, s, orElse(c.reason, string(NotReconciled)), c.String())
	}
}

// stale reports that the status is about an earlier generation. Its own
// observedGeneration says so. Where it says otherwise, the condition Ready may be behind
// only if another is not, for then its turn is yet to come. Where it has none, Ready says
// so or, if that doesn't either, all conditions that have one.
func stale(u *unstructured.Unstructured) bool {
	status, _, _ := unstructured.NestedMap(u.Object, "status")
	conditions := conditionsIn(status, "conditions")
	current, behind := false, false
	for _, c := range conditions {
		current = current || c.hasObserved && c.observed >= u.GetGeneration()
		behind = behind || c.hasObserved && c.observed < u.GetGeneration()
	}
	ready, _ := conditionNamed(conditions, "Ready")
	late := ready.hasObserved && ready.observed < u.GetGeneration()
	if observed, known := integer(status["observedGeneration"]); known {
		return observed < u.GetGeneration() || late && current
	}
	return late || behind && !current
}

// integer reads a number as JSON and careless controllers write it.
func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case int64:
		return n, true
	case float64:
		return int64(n), true
	case string:
		i, err := strconv.ParseInt(n, 10, 64)
		return i, err == nil
	}
	return 0, false
}

// declaredBy judges by a rule of the configuration.
func declaredBy(check ReadinessCheck) func(*inspector, *assessment, metav1.Object) {
	return func(_ *inspector, a *assessment, o metav1.Object) {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			return
		}
		s := subjectOf(u.GetKind(), u)
		if stale(u) {
			a.fail(NotReconciled, s, string(NotReconciled), unobserved(1, 0))
			return
		}
		switch state, message := check(u.DeepCopy()); state {
		case StateReady:
			a.finish(orElse(message, "ready"))
		case StateFailed:
			a.fail(ResourceFailed, s, string(ResourceFailed), orElse(message, "its rule says that it has failed"))
		case StateWaiting:
			a.fail(NotReconciled, s, string(NotReconciled), orElse(message, "its rule says that it is not ready yet"))
		default:
			a.fail(ResourceFailed, s, string(ResourceFailed), fmt.Sprintf("its rule returned the unknown state %d", int(state)))
		}
	}
}
