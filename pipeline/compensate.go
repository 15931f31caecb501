package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// undoable is a side effect that may have happened, and how to take it back.
type undoable struct {
	stage       Stage
	compensator stages.Compensator
	checkpoint  stages.Checkpoint
}

// mutate runs a step that changes something. Before it does, the journal knows,
// with a checkpoint if stage can take one.
func mutate[T any](ctx context.Context, r *run, s step, stage any, img stages.Image, f func(context.Context) (T, error)) (T, error) {
	s.before = func(ctx context.Context) error {
		compensator, ok := stage.(stages.Compensator)
		if !ok {
			return r.write(ctx, Entry{Kind: EntryStarting, Stage: s.name, Image: img})
		}
		cp, _, err := attempt(ctx, r, s, func(ctx context.Context) (stages.Checkpoint, error) {
			return compensator.Checkpoint(ctx, stages.CheckpointRequest{Run: r.id, Image: img})
		})
		if err != nil {
			return fmt.Errorf("take the checkpoint: %w", err)
		}
		if err := r.write(ctx, Entry{Kind: EntryCheckpointed, Stage: s.name, Image: img, Checkpoint: &cp}); err != nil {
			return err
		}
		r.undo = append(r.undo, undoable{s.name, compensator, cp})
		r.emit(Event{Stage: s.name, Kind: KindCheckpointed, Subject: cp.Subject})
		return nil
	}
	s.after = func(ctx context.Context) error {
		return r.write(context.WithoutCancel(ctx), Entry{Kind: EntryDone, Stage: s.name, Image: img})
	}
	return perform(ctx, r, s, f)
}

// recordTime bounds the writing down of why a release failed.
const recordTime = 10 * time.Second

// recordFailure has the deployer keep why the release failed, before a restore makes
// another revision of it. That it can't changes no outcome.
func (r *run) recordFailure(ctx context.Context, subject string, cause error, within time.Duration) error {
	recorder, ok := r.config.Deployer.(stages.FailureRecorder)
	begun := r.deploy != noDeploy || slices.ContainsFunc(r.undo, func(u undoable) bool { return u.stage == StageDeploy })
	if !ok || !begun {
		return nil
	}
	s := step{name: StageDeploy, subject: subject, policy: Retry{Timeout: within}}
	_, err := once(ctx, r, s, 1, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, recorder.RecordFailure(ctx, r.id, cause)
	})
	e := Event{Stage: StageDeploy, Kind: KindFailureRecorded, Subject: subject}
	if err != nil {
		e.Kind, e.Error = KindFailureNotRecorded, err.Error()
		err = fmt.Errorf("record why the release failed: %w", err)
	}
	r.emit(e)
	return err
}

// restore takes back r.undo in reverse order, each once, whatever happens. ctx
// must not end with the run that failed.
func (r *run) restore(ctx context.Context) []Restoration {
	var all []Restoration
	for _, u := range slices.Backward(r.undo) {
		all = append(all, r.restoreOne(ctx, u))
	}
	r.undo = nil
	return all
}

func (r *run) restoreOne(ctx context.Context, u undoable) Restoration {
	start := time.Now()
	// A journal that can't be written doesn't stop a restore: it can be repeated.
	r.note(ctx, Entry{Kind: EntryRestoring, Stage: u.stage})
	r.emit(Event{Stage: u.stage, Kind: KindRestoring, Subject: u.checkpoint.Subject})
	s := step{name: u.stage, subject: u.checkpoint.Subject, policy: Retry{Timeout: r.config.RollbackTimeout}}
	restored, err := once(ctx, r, s, 1, func(ctx context.Context) (stages.Restoration, error) {
		restored, err := u.compensator.Restore(ctx, r.id, u.checkpoint)
		if err == nil && !known(restored.Outcome) {
			err = fmt.Errorf("%w: restore reported %q", stages.ErrIndeterminate, restored.Outcome)
		}
		return restored, err
	})
	if restored.Subject == "" {
		restored.Subject = u.checkpoint.Subject
	}
	if err != nil {
		restored.Outcome, restored.Message = "", err.Error()
	} else {
		r.note(ctx, Entry{Kind: EntryRestored, Stage: u.stage, Restoration: &restored})
	}
	result := Restoration{Stage: u.stage, Restoration: restored, Elapsed: time.Since(start), Err: err}
	e := Event{Stage: u.stage, Kind: KindRestored, Subject: restored.Subject, Message: restored.Message, Elapsed: result.Elapsed, Restoration: &restored}
	if err != nil {
		e.Kind, e.Error, e.Evidence = KindRestoreFailed, err.Error(), evidenceOf(err)
	}
	r.emit(e)
	return result
}

func known(o stages.RestoreOutcome) bool {
	switch o {
	case stages.Restored, stages.Unchanged, stages.Diverged, stages.Impossible:
		return true
	default:
		return false
	}
}

// close ends a failed run in the journal, unless a restore, or a cancelled look at
// what it has restored, has to be repeated.
func (r *run) close(ctx context.Context, outcome Outcome, restorations []Restoration, cause error) {
	for _, restoration := range restorations {
		if restoration.Err != nil || restoration.NotReady != nil && ctx.Err() != nil {
			return
		}
	}
	r.note(ctx, Entry{Kind: EntryFinished, Outcome: outcome, Error: cause.Error()})
}

// write appends to the journal.
func (r *run) write(ctx context.Context, e Entry) error {
	e.Run, e.Pipeline, e.Time = r.id, r.config.Name, time.Now().UTC()
	if err := protect(func() error { return r.log.Append(ctx, e) }); err != nil {
		return fmt.Errorf("write %s to the journal: %w", e.Kind, errors.Join(ErrJournal, err))
	}
	return nil
}

// note writes what no side effect waits for, and keeps the error for the end.
func (r *run) note(ctx context.Context, e Entry) {
	if err := r.write(ctx, e); err != nil {
		r.later = append(r.later, err)
	}
}
