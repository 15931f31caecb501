package rollout

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-dev/fairlead/stages"
)

// State is what a [ReadinessCheck] says about an object.
type State int

// The states.
const (
	// StateWaiting is an object that is not ready yet.
	StateWaiting State = iota
	// StateReady is an object that needs no more waiting for.
	StateReady
	// StateFailed is an object that won't become ready: the verification fails as
	// the rule for [ResourceFailed] says, by default at once.
	StateFailed
)

// ReadinessCheck says how far an object is, and why: a line for people, which may
// be empty. It is not asked as long as the object says that its status is about an
// earlier generation: by status.observedGeneration or, where it has none, by that of its
// condition Ready or those of all its conditions. Where status.observedGeneration is that
// of the object, and its condition Ready is behind, the check is asked unless another
// condition is not: a controller that has begun comes to Ready later, and one that won't,
// as for a suspended object, leaves all as they are. Where an object has none of them,
// the check sees whatever status there is, which may still be a former release's. It is
// called after each change of the object with a copy of its own, and may be called for
// several objects at once.
type ReadinessCheck func(object *unstructured.Unstructured) (state State, message string)

// Readiness is how to judge the objects of one kind, in place of what this
// package would do. A caller who declares it must be allowed to list and watch
// the kind.
type Readiness struct {
	// Group is the kind's API group, such as "cert-manager.io"; empty for the core
	// group.
	Group string
	// Kind is such as "Certificate".
	Kind string
	// Check is required. Package celrule makes one of an expression.
	Check ReadinessCheck
}

// checksByKind holds the rules against what may be declared.
func checksByKind(rules []Readiness) (map[string]ReadinessCheck, error) {
	out := map[string]ReadinessCheck{}
	for _, r := range rules {
		id := r.Group + "/" + r.Kind
		k := kinds[id]
		switch {
		case r.Kind == "" || r.Check == nil:
			return nil, fmt.Errorf("%w: a rule of Readiness for %q needs Kind and Check", stages.ErrInvalid, id)
		case k.workload():
			return nil, fmt.Errorf("%w: a rule of Readiness can't be for %s: it is judged by its pods", stages.ErrInvalid, r.Kind)
		case id == "/Secret":
			return nil, fmt.Errorf("%w: a rule of Readiness can't be for a Secret: its content is never asked for", stages.ErrInvalid)
		case out[id] != nil:
			return nil, fmt.Errorf("%w: two rules of Readiness for %s", stages.ErrInvalid, id)
		}
		out[id] = r.Check
	}
	return out, nil
}
