package pipeline

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

// The classes of refusal and failure that are the engine's own. The others, such
// as [stages.ErrRolledBack], are in package stages.
var (
	// ErrClosed is a run or recovery asked for after [Pipeline.Close].
	ErrClosed = errors.New("pipeline is closed")
	// ErrBusy is a journal in use by another run or recovery.
	ErrBusy = errors.New("journal is in use")
	// ErrUnfinished is a journal that holds a run that a killed process left; see
	// [UnfinishedError].
	ErrUnfinished = errors.New("journal holds an unfinished run")
	// ErrJournal is a journal that can't be read or written.
	ErrJournal = errors.New("journal failed")
)

// UnfinishedError refuses a run because others need [Pipeline.Recover] first. It
// matches [ErrUnfinished].
type UnfinishedError struct {
	// Runs are the unfinished runs, oldest first.
	Runs []string
}

// Error names the runs.
func (e *UnfinishedError) Error() string {
	return fmt.Sprintf("%v: %s; call Recover first", ErrUnfinished, strings.Join(e.Runs, ", "))
}

// Is reports whether target is [ErrUnfinished].
func (e *UnfinishedError) Is(target error) bool { return target == ErrUnfinished }

// GateError is a gate that didn't say Pass. It matches [stages.ErrGateRefused]
// or [stages.ErrInconclusive].
type GateError struct {
	// Decision is what the gate said.
	Decision stages.Decision
	// Err is why the gate itself didn't work, if so.
	Err error
}

// Error gives the verdict and its reasons.
func (e *GateError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %s", e.class(), e.Decision.Gate)
	if e.Err != nil {
		fmt.Fprintf(&b, " did not work: %v", e.Err)
		return b.String()
	}
	const shown = 3
	for i, r := range e.Decision.Reasons {
		if i == shown {
			fmt.Fprintf(&b, "; and %d more", len(e.Decision.Reasons)-shown)
			break
		}
		b.WriteString(map[bool]string{true: ": ", false: "; "}[i == 0])
		b.WriteString(reasonText(r))
	}
	return b.String()
}

func (e *GateError) class() error {
	if e.Decision.Verdict == stages.Fail {
		return stages.ErrGateRefused
	}
	return stages.ErrInconclusive
}

// Unwrap returns the class and why the gate didn't work.
func (e *GateError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.class()}
	}
	return []error{e.class(), e.Err}
}

func reasonText(r stages.Reason) string {
	text := r.Rule
	if r.Subject != "" {
		text += " in " + r.Subject
	}
	return text + ": " + r.Message
}

// Error is a run that failed: where, why, and what state it left.
type Error struct {
	// Pipeline and Run say which run it was.
	Pipeline string
	Run      string
	// Stage is what failed first, Subject what it was working on: the source's
	// folder, an image, or a release.
	Stage   Stage
	Subject string
	// Attempts counts how often the stage was tried; 0 if it never began.
	Attempts int
	// Cause is why it failed.
	Cause error
	// Evidence is what was observed about it before anything was undone.
	Evidence []stages.Evidence
	// Restorations are what was undone, in that order.
	Restorations []Restoration
	// Outcome is the state that the run left behind.
	Outcome Outcome
	// Later are errors that followed from ending the run, such as a journal that
	// can't be written any more.
	Later []error
}

// Error tells in one line what was being done, to what, why it failed, what state
// it left, and what to do. For more lines, see [Error.Detail].
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pipeline %s: %s", e.Pipeline, e.Stage)
	if e.Subject != "" {
		fmt.Fprintf(&b, " %s", e.Subject)
	}
	if e.Attempts == 0 {
		b.WriteString(" not begun")
	}
	fmt.Fprintf(&b, ": %v; %s; %s", e.Cause, e.state(), e.advice())
	return b.String()
}

// Unwrap returns the classes, the cause, and every other error of the run.
func (e *Error) Unwrap() []error {
	errs := append(e.classes(), e.Cause)
	for _, r := range e.Restorations {
		errs = append(errs, r.errs()...)
	}
	return append(errs, e.Later...)
}

func (e *Error) classes() (classes []error) {
	for _, r := range e.Restorations {
		if !r.ok() || r.NotReady != nil {
			classes = append(classes, stages.ErrRollbackFailed)
			break
		}
	}
	switch e.Outcome {
	case OutcomeNotReady:
		classes = append(classes, stages.ErrNotReady)
	case OutcomeRolledBack:
		classes = append(classes, stages.ErrRolledBack)
	case OutcomeUnknown:
		classes = append(classes, stages.ErrIndeterminate)
	}
	return classes
}

// state says what the world looks like now.
func (e *Error) state() string {
	switch e.Outcome {
	case OutcomeUntouched:
		return "nothing was deployed"
	case OutcomeRolledBack:
		return "rolled back: " + e.restorations()
	case OutcomeNotReady:
		return "restored but not ready: " + e.restorations()
	case OutcomeRollbackFailed:
		return "rollback failed: " + e.restorations()
	case OutcomeLeft:
		return "the release stays deployed, because its deployer can't roll back"
	default:
		if len(e.Restorations) == 0 {
			return "what is deployed now is unknown, because the deployer can't roll back"
		}
		return "what is deployed now is unknown: " + e.restorations()
	}
}

func (e *Error) restorations() string {
	parts := make([]string, len(e.Restorations))
	for i, r := range e.Restorations {
		parts[i] = r.text()
	}
	return strings.Join(parts, ", ")
}

func (r Restoration) text() string {
	outcome := string(r.Outcome)
	if r.Err != nil {
		outcome = "restore failed"
	}
	text := r.Subject + " " + outcome
	if r.Message != "" {
		text += " (" + r.Message + ")"
	}
	return text
}

// advice says what to do next.
func (e *Error) advice() string {
	switch e.Outcome {
	case OutcomeUnknown:
		if len(e.Restorations) == 0 {
			return "look at the release before running again"
		}
		return "mend what stopped the restore and call Recover"
	case OutcomeRollbackFailed:
		return "look at what differs and restore it by hand before running again"
	case OutcomeNotReady:
		const advice = "bring the restored release up first"
		for _, r := range e.Restorations {
			if remedy := remedyOf(r.Evidence); remedy != "" {
				return advice + ": " + remedy
			}
		}
		return advice
	}
	if remedy := remedyOf(e.Evidence); remedy != "" {
		return remedy
	}
	switch {
	case errors.Is(e.Cause, stages.ErrGateRefused):
		return "mend what the gate names and run again"
	case errors.Is(e.Cause, stages.ErrInconclusive):
		return "give the gate what it lacks and run again"
	case errors.Is(e.Cause, ErrJournal):
		return "mend the journal and run again"
	case errors.Is(e.Cause, stages.ErrPanicked):
		return "report the panic to the stage's author"
	default:
		return "mend the cause and run again"
	}
}

// remedyOf returns the first remedy that there is.
func remedyOf(evidence []stages.Evidence) string {
	for _, ev := range evidence {
		if ev.Remedy != "" {
			return ev.Remedy
		}
	}
	return ""
}
