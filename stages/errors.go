package stages

import "errors"

// The classes of failure. Match them with [errors.Is]; the error that carries
// one says what was being done, to what, why it failed and what to do.
var (
	// ErrInvalid is bad input: nothing was changed, and a retry can't help.
	ErrInvalid = errors.New("invalid input")
	// ErrNotPinned is an image reference without a digest.
	ErrNotPinned = errors.New("image is not pinned by digest")
	// ErrSubjectMismatch is a value made for another image than the run's.
	ErrSubjectMismatch = errors.New("not about the image being delivered")
	// ErrGateRefused is a gate that said Fail.
	ErrGateRefused = errors.New("gate refused")
	// ErrInconclusive is a gate that could not decide, which is never a pass.
	ErrInconclusive = errors.New("gate inconclusive")
	// ErrNotCleared is a deploy asked for without a valid [Clearance].
	ErrNotCleared = errors.New("image is not cleared for deployment")
	// ErrPlanStale is a deployment bound to a plan that is not true any more:
	// nothing was changed, and a new plan is needed.
	ErrPlanStale = errors.New("the plan is stale")
	// ErrSignature is an image without a signature that the key verifies.
	ErrSignature = errors.New("signature does not verify")
	// ErrLocked is a release that somebody else is working on.
	ErrLocked = errors.New("locked")
	// ErrLockLost is a lock that may be somebody else's by now: nothing more was
	// changed since.
	ErrLockLost = errors.New("lock lost")
	// ErrRetryExhausted is a stage that failed at its last permitted attempt.
	ErrRetryExhausted = errors.New("retries exhausted")
	// ErrRolledBack is a failed run after which every checkpoint was restored, and
	// what was restored runs, as far as somebody could look.
	ErrRolledBack = errors.New("rolled back")
	// ErrRollbackFailed is a failed run whose restore failed, left differences, or
	// brought back what doesn't run.
	ErrRollbackFailed = errors.New("rollback failed")
	// ErrNotReady is the last of these: all is as it was before, but what was restored
	// is not seen to run. It always comes with ErrRollbackFailed.
	ErrNotReady = errors.New("restored but not ready")
	// ErrIndeterminate is an outcome that could not be observed: look before acting.
	ErrIndeterminate = errors.New("outcome unknown")
	// ErrPanicked is a stage that panicked.
	ErrPanicked = errors.New("stage panicked")
)

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks err as one that a retry can't mend. It returns nil for nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err was marked by [Permanent] or belongs to a
// class that a retry can't mend: invalid input, a missing digest or clearance,
// a foreign subject, a refusing gate, a stale plan, a signature that doesn't verify.
func IsPermanent(err error) bool {
	if _, ok := errors.AsType[*permanentError](err); ok {
		return true
	}
	for _, class := range []error{ErrInvalid, ErrNotPinned, ErrSubjectMismatch, ErrGateRefused, ErrNotCleared, ErrSignature, ErrPlanStale} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}
