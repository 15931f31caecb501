package releaseset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// restoreAll undoes what was begun, the last first, every member and whatever
// happens. ctx must not end with the run that failed.
func (a *application) restoreAll(ctx context.Context) {
	var undos []undo
	for _, i := range slices.Backward(a.finished) {
		if a.checkpoints[i] != nil {
			undos = append(undos, undo{i, *a.checkpoints[i]})
		}
	}
	a.set.restoreEach(ctx, a.req.Run, undos, a.results, a.restoreLocked)
}

// recordTimeout bounds the writing down of why a release failed.
const recordTimeout = 10 * time.Second

// restoreLocked restores one member under the lock that it has, and gives that back:
// a namespace that is to go must not hold it. Why the set failed is recorded first,
// where the deployer can do that.
func (a *application) restoreLocked(ctx context.Context, d Deployer, i int, f func() error) error {
	defer a.unlock(ctx, i)
	m := a.set.members[i]
	cause := a.results[i].Err
	if cause == nil {
		// In words only: the evidence is about the other one.
		cause = errors.New("another release of the set failed: " + a.causes[0].Error())
	}
	return a.held(ctx, d, i, func() error {
		if recorder, ok := d.(stages.FailureRecorder); ok && !m.Remove {
			bound, cancel := context.WithTimeout(ctx, recordTimeout)
			defer cancel()
			if err := protect(func() error { return recorder.RecordFailure(bound, a.req.Run, cause) }); err != nil {
				report(ctx, stages.Progress{Message: fmt.Sprintf("warning: the record of %s does not say why it failed: %v", m.id, err)})
			}
		}
		return f()
	})
}

// undo is a member to restore.
type undo struct {
	member int
	to     stages.Checkpoint
}

// restoreEach restores in the order given, and then once more what differed: it
// may have been the other members that were in the way, such as those in a
// namespace that the set has made. What ctx leaves no time for is [Unknown].
func (s *Set) restoreEach(ctx context.Context, run string, undos []undo, results []MemberResult, locked locking) {
	for _, u := range undos {
		s.restore(ctx, run, u.member, u.to, &results[u.member], locked)
	}
	for _, u := range undos {
		result := &results[u.member]
		if result.Outcome != Diverged || ctx.Err() != nil {
			continue
		}
		s.restore(ctx, run, u.member, u.to, result, locked)
		if result.Outcome == Unchanged { // Since the first time, which has changed it.
			result.Outcome = Restored
		}
	}
	s.verifyRestored(ctx, results)
}

// verifyRestored has the members' verifiers that can do so prove that what was
// restored runs, several at a time.
func (s *Set) verifyRestored(ctx context.Context, results []MemberResult) {
	_ = s.each(ctx, func(ctx context.Context, i int) error {
		m, result := s.members[i], &results[i]
		verifier, ok := m.Verify.(stages.RestoreVerifier)
		if !ok || result.Restoration.Release == nil || result.Outcome != Restored && result.Outcome != Unchanged {
			return nil
		}
		report(ctx, stages.Progress{Message: "waiting until " + m.id + " runs again"})
		ctx, cancel := context.WithTimeoutCause(stages.WithProgress(ctx, m.progress(ctx)), s.rollback, fmt.Errorf("it is not seen to run within %s", s.rollback))
		defer cancel()
		if err := protect(func() error { _, err := verifier.VerifyRestored(ctx, *result.Restoration.Release); return err }); err != nil {
			result.Outcome, result.RestoreErr = NotReady, &MemberError{m.id, "verify the restored", err}
		}
		return nil
	})
}

// locking calls f while the member is locked.
type locking func(ctx context.Context, d Deployer, i int, f func() error) error

// restore undoes one member within its time.
func (s *Set) restore(ctx context.Context, run string, i int, cp stages.Checkpoint, result *MemberResult, locked locking) {
	m := s.members[i]
	ctx, cancel := context.WithTimeoutCause(ctx, s.rollback, fmt.Errorf("the restore took longer than %s", s.rollback))
	defer cancel()
	result.Outcome = Unknown
	if ctx.Err() != nil {
		result.RestoreErr = &MemberError{m.id, "restore", context.Cause(ctx)}
		return
	}
	err := m.use(ctx, func(ctx context.Context, d Deployer) error {
		report(ctx, stages.Progress{Message: "restoring " + m.id})
		var restored stages.Restoration
		err := locked(ctx, d, i, func() error {
			return protect(func() (err error) { restored, err = d.Restore(ctx, run, cp); return err })
		})
		if err != nil {
			return err
		}
		outcome, ok := outcomeOf(restored.Outcome)
		if !ok {
			return fmt.Errorf("%w: the restore reported %q", stages.ErrIndeterminate, restored.Outcome)
		}
		result.Restoration, result.Outcome = restored, outcome
		return nil
	})
	if err != nil {
		result.RestoreErr = &MemberError{m.id, "restore", err}
	}
}

// Restore undoes what an Apply left whose process was killed. The checkpoints are
// those that [ApplyRequest.Checkpointed] was told of, in that order, and run is
// that of the request. Like every restore it looks first and can be repeated. If a
// member is not as before, the error is an [*Error] matching
// [stages.ErrRollbackFailed]; members that an ended ctx left no time for are
// [Unknown].
func (s *Set) Restore(ctx context.Context, run string, checkpoints []MemberCheckpoint) (Result, error) {
	result := Result{Run: run, Members: make([]MemberResult, len(s.members))}
	for i, m := range s.members {
		result.Members[i] = MemberResult{Member: m.id, Outcome: NotStarted}
	}
	var problems []error
	if run == "" {
		problems = append(problems, errors.New("it needs a Run"))
	}
	seen := map[string]bool{}
	for _, cp := range checkpoints {
		switch {
		case s.find(cp.Member) < 0:
			problems = append(problems, fmt.Errorf("there is a checkpoint of %q, which is no member", cp.Member))
		case seen[cp.Member]:
			problems = append(problems, fmt.Errorf("there are two checkpoints of %s; the earlier is the one to restore", cp.Member))
		}
		seen[cp.Member] = true
	}
	if len(problems) > 0 {
		return Result{}, fmt.Errorf("%w: restore the release set: %w", stages.ErrInvalid, errors.Join(problems...))
	}
	failed := &Error{}
	var undos []undo
	for _, cp := range slices.Backward(checkpoints) {
		undos = append(undos, undo{s.find(cp.Member), cp.Checkpoint})
	}
	s.restoreEach(ctx, run, undos, result.Members, func(ctx context.Context, d Deployer, i int, f func() error) error {
		return s.members[i].locked(ctx, d, run, f)
	})
	for _, u := range undos {
		switch m := result.Members[u.member]; m.Outcome {
		case NotReady, Diverged, Impossible, Unknown:
			failed.Causes = append(failed.Causes, fmt.Errorf("restore %s", m.describe()))
		case Restored, Unchanged, NotStarted, Deployed, Removed:
		}
	}
	if len(failed.Causes) > 0 {
		failed.Result = result
		return result, failed
	}
	return result, nil
}
