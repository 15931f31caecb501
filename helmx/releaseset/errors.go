package releaseset

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

// CycleError is a set whose members need each other.
type CycleError struct {
	// Members are the IDs along the cycle; the first is the last again.
	Members []string
}

// Error shows the cycle.
func (e *CycleError) Error() string {
	return "the needs go round in a circle: " + strings.Join(e.Members, " needs ") + "; drop one of them"
}

// NeedError is a need that names no member.
type NeedError struct{ Member, Need string }

// Error names both.
func (e *NeedError) Error() string {
	return fmt.Sprintf("member %s needs %q, which is no member of the set; write namespace/name, or name for one in the same namespace", e.Member, e.Need)
}

// RemovedNeedError is a member that stays and needs one that is to be removed.
type RemovedNeedError struct{ Member, Need string }

// Error names both.
func (e *RemovedNeedError) Error() string {
	return fmt.Sprintf("member %s needs %s, which is to be removed; remove it as well, or drop the need", e.Member, e.Need)
}

// DuplicateError is a release that is in the set twice.
type DuplicateError struct{ Member string }

// Error names it.
func (e *DuplicateError) Error() string { return "member " + e.Member + " is in the set twice" }

// MemberError is what went wrong with one member.
type MemberError struct {
	// Member is its ID.
	Member string
	// Doing is what was being done: "open", "plan", "lock", "checkpoint", "deploy",
	// "verify", "remove", "restore" or "verify the restored".
	Doing string
	// Err is why it failed.
	Err error
}

// Error says what failed and why.
func (e *MemberError) Error() string { return fmt.Sprintf("%s %s: %v", e.Doing, e.Member, e.Err) }

// Unwrap returns the cause.
func (e *MemberError) Unwrap() error { return e.Err }

// Error is a set that could not be applied. It matches [stages.ErrRolledBack] if
// every member that may have been changed is as it was, [stages.ErrRollbackFailed]
// if one is not, with [stages.ErrNotReady] if one is as it was and doesn't run, with
// [stages.ErrIndeterminate] if that is not known of one, and none of them if no
// member was touched.
type Error struct {
	// Causes are what failed, the first first. A member that was interrupted
	// because another one failed is not among them.
	Causes []error
	// Result is what became of each member.
	Result Result
}

// Error tells in one text what failed, what state is left, and what to do.
func (e *Error) Error() string {
	causes := make([]string, len(e.Causes))
	for i, cause := range e.Causes {
		causes[i] = cause.Error()
	}
	return fmt.Sprintf("release set, run %s: %s; %s", e.Result.Run, strings.Join(causes, "; "), e.state())
}

func (e *Error) state() string {
	touched, bad := 0, []string{}
	for _, m := range e.Result.Members {
		switch m.Outcome {
		case NotStarted:
		case Restored, Unchanged, Deployed, Removed:
			touched++
		case NotReady, Diverged, Impossible, Unknown:
			touched++
			bad = append(bad, m.describe())
		}
	}
	switch {
	case touched == 0:
		return "no release was touched"
	case len(bad) == 0:
		return fmt.Sprintf("rolled back: all %d touched releases are as before; mend the cause and apply again", touched)
	default:
		return fmt.Sprintf("rollback failed for %d of %d touched releases: %s; look at them before applying again", len(bad), touched, strings.Join(bad, "; "))
	}
}

// Unwrap returns the classes, the causes and the errors of the rollback.
func (e *Error) Unwrap() []error {
	var touched, failed, notReady, unknown bool
	var restores []error
	for _, m := range e.Result.Members {
		touched = touched || m.Outcome != NotStarted
		notReady = notReady || m.Outcome == NotReady
		failed = failed || m.Outcome == NotReady || m.Outcome == Diverged || m.Outcome == Impossible || m.Outcome == Unknown
		unknown = unknown || m.Outcome == Unknown
		if m.RestoreErr != nil {
			restores = append(restores, m.RestoreErr)
		}
	}
	var all []error
	switch {
	case failed:
		all = append(all, stages.ErrRollbackFailed)
	case touched:
		all = append(all, stages.ErrRolledBack)
	}
	if notReady {
		all = append(all, stages.ErrNotReady)
	}
	if unknown {
		all = append(all, stages.ErrIndeterminate)
	}
	all = append(all, e.Causes...)
	return append(all, restores...)
}

// Evidence returns what was observed about the first failure that has evidence.
func (e *Error) Evidence() []stages.Evidence { return stages.EvidenceOf(errors.Join(e.Causes...)) }
