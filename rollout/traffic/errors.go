package traffic

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

var (
	// ErrAbandoned is a canary whose process died.
	ErrAbandoned = errors.New("the process that made the canary died")
	// ErrAbortAsked is a canary that somebody had aborted, see [Canary.Abort].
	ErrAbortAsked = errors.New("an abort was asked for")
	// ErrPromoted is a canary that is the stable release by now.
	ErrPromoted = errors.New("it was promoted: the stable release is the new one, roll that back instead")
	// ErrNoCanary is that there is none under way.
	ErrNoCanary = errors.New("no canary is under way")
)

// AbortError is a canary that was aborted.
type AbortError struct {
	// Run is the run whose canary it was, Image what it ran.
	Run   string
	Image stages.Image
	// Phase is what failed. Step counts the steps from 1, and Weight is what the
	// canary had in it; both are 0 before the first.
	Phase  Phase
	Step   int
	Weight int
	// Decisions are what the gates said at the last look.
	Decisions []stages.Decision
	// Cause is why.
	Cause error
	// Facts were collected before the canary was removed.
	Facts []stages.Evidence
	// Traffic is how it was divided when the abort was done.
	Traffic Split
	// Stable is what became of the stable release; nil if it was never touched.
	Stable *stages.Restoration
	// Left are the errors of what could not be done. Without any, all traffic is on
	// the stable release as it was before, and the canary is gone.
	Left []error
}

var _ stages.Evidencer = (*AbortError)(nil)

// Error says in one line why, what the state is now, and what to do.
func (e *AbortError) Error() string {
	var b strings.Builder
	b.WriteString("canary aborted ")
	switch e.Phase {
	case Shifting, Watching:
		fmt.Fprintf(&b, "in step %d, at %d%%", e.Step, e.Weight)
	default:
		fmt.Fprintf(&b, "while %s", e.Phase)
	}
	fmt.Fprintf(&b, ": %v", e.Cause)
	if len(e.Left) == 0 {
		b.WriteString("; all traffic is on the stable release, the canary is removed")
		return b.String()
	}
	fmt.Fprintf(&b, "; the abort is not complete (%s): %v; abort again, or deliver again, to finish it", e.Traffic, errors.Join(e.Left...))
	return b.String()
}

// Unwrap returns the cause and the errors of what is left.
func (e *AbortError) Unwrap() []error {
	errs := append([]error{e.Cause}, e.Left...)
	if e.Stable != nil && (e.Stable.Outcome == stages.Diverged || e.Stable.Outcome == stages.Impossible) {
		errs = append(errs, stages.ErrRollbackFailed)
	}
	return errs
}

// Evidence returns the facts.
func (e *AbortError) Evidence() []stages.Evidence { return e.Facts }

// BreachError is a step whose gates did not let the canary go on. It matches
// [stages.ErrGateRefused] or [stages.ErrInconclusive].
type BreachError struct {
	// Decisions are what the gates said, the failing first.
	Decisions []stages.Decision

	class error
}

func (e *BreachError) Error() string {
	var texts []string
	for _, d := range e.Decisions {
		if d.Verdict == stages.Pass {
			continue
		}
		text := fmt.Sprintf("%s: %s", d.Gate, d.Verdict)
		if len(d.Reasons) > 0 {
			text += ": " + d.Reasons[0].Message
		}
		texts = append(texts, text)
	}
	return fmt.Sprintf("%v: %s", e.class, strings.Join(texts, "; "))
}

// Unwrap returns the class.
func (e *BreachError) Unwrap() error { return e.class }

// canaryError is a canary that does not run any more, or never did.
type canaryError struct{ err error }

func (e *canaryError) Error() string { return fmt.Sprintf("the canary does not run: %v", e.err) }
func (e *canaryError) Unwrap() error { return e.err }

// reasonOf classes a cause for the record, which must hold no secret: an error's
// text may come from anywhere.
func reasonOf(cause error) string {
	if _, ok := errors.AsType[*ChangedError](cause); ok {
		return "weights changed by somebody else"
	}
	if _, ok := errors.AsType[*canaryError](cause); ok {
		return "the canary does not run"
	}
	for _, class := range []error{stages.ErrGateRefused, stages.ErrInconclusive, ErrAbandoned, ErrAbortAsked, stages.ErrPanicked} {
		if errors.Is(cause, class) {
			return class.Error()
		}
	}
	return "failed"
}
