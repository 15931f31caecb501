package preview

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// ErrNoURL is a preview whose address isn't known, because no Ingress or HTTPRoute in
// it has a host, nor a Service the address of a load balancer.
var ErrNoURL = errors.New("the preview has no URL yet")

// ForeignError is a namespace that has a preview's name, and that this package did not
// make for that pull request. It is left alone. It satisfies [stages.IsPermanent].
type ForeignError struct {
	Namespace string
	// Reason says what it lacks.
	Reason string
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("namespace %s is not a preview that fairlead made: %s; rename or remove it, or use another Prefix", e.Namespace, e.Reason)
}

// Unwrap marks e as permanent.
func (e *ForeignError) Unwrap() error { return stages.Permanent(errors.New(e.Reason)) }

// StuckError is a namespace that is being deleted and isn't gone yet.
type StuckError struct {
	Namespace string
	// Since is when the deletion was asked for.
	Since time.Time
	// Finalizers are those of the namespace itself that are left, but for the one that
	// stands for its content.
	Finalizers []string
	// Problems is what the cluster says it waits for: which kinds of objects are left,
	// how many, and which finalizers they have.
	Problems []string

	err error
}

func (e *StuckError) Error() string {
	waits := append([]string(nil), e.Problems...)
	if len(e.Finalizers) > 0 {
		waits = append(waits, "finalizers of the namespace itself: "+strings.Join(e.Finalizers, ", "))
	}
	if len(waits) == 0 {
		waits = []string{"the cluster does not say for what"}
	}
	return fmt.Sprintf("namespace %s is being deleted since %s and not gone (%s); it waits: %s",
		e.Namespace, e.Since.UTC().Format(time.RFC3339), e.err, strings.Join(waits, "; "))
}

// Unwrap returns why the wait ended.
func (e *StuckError) Unwrap() error { return e.err }

// timeoutError says which limit a wait ran into. It is not a deadline of the caller,
// so it doesn't match [context.DeadlineExceeded].
type timeoutError struct{ after time.Duration }

func (e *timeoutError) Error() string { return fmt.Sprintf("not done after %s", e.after) }
