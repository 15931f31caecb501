package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// step is one call of a stage, as it appears in events, results and errors.
type step struct {
	name    Stage
	subject string
	policy  Retry
	// before and after, where set, bracket the call. They are not retried here.
	before func(ctx context.Context) error
	after  func(ctx context.Context) error
	// examine, where set, adds to the evidence of a final error.
	examine func(ctx context.Context) []stages.Evidence
	// tolerate, where set, lets the run go on in spite of a final error.
	tolerate func(err error) bool
}

// perform runs a step. Its error is an [*Error], with the evidence.
func perform[T any](ctx context.Context, r *run, s step, f func(context.Context) (T, error)) (value T, _ error) {
	if ctx.Err() != nil {
		return value, &Error{Stage: s.name, Subject: s.subject, Cause: interrupted(ctx, nil)}
	}
	start := time.Now()
	timing := r.begin(s, start)
	var attempts int
	err := protect(func() (err error) {
		if s.before != nil {
			if err := s.before(ctx); err != nil {
				return err
			}
		}
		if value, attempts, err = attempt(ctx, r, s, f); err != nil || s.after == nil {
			return err
		}
		return s.after(ctx)
	})
	end := Event{Stage: s.name, Kind: KindStageDone, Subject: s.subject, Attempt: attempts, Elapsed: time.Since(start)}
	tolerated := err != nil && ctx.Err() == nil && s.tolerate != nil && s.tolerate(err)
	var failure error
	if err != nil {
		end.Error = err.Error()
	}
	if err != nil && !tolerated {
		end.Kind, end.Evidence = KindStageFailed, evidenceOf(err)
		switch {
		case ctx.Err() != nil:
			end.Kind = KindStageCancelled
		case s.examine != nil:
			end.Evidence = append(end.Evidence, s.examine(ctx)...)
		}
		failure = &Error{Stage: s.name, Subject: s.subject, Attempts: attempts, Cause: err, Evidence: end.Evidence}
	}
	r.end(timing, end)
	return value, failure
}

func (r *run) begin(s step, start time.Time) (timing int) {
	r.record(func(res *Result) {
		timing = len(res.Timings)
		res.Timings = append(res.Timings, Timing{Stage: s.name, Started: start})
	})
	r.emit(Event{Stage: s.name, Kind: KindStageStarted, Subject: s.subject})
	return timing
}

func (r *run) end(timing int, e Event) {
	r.record(func(res *Result) {
		t := &res.Timings[timing]
		t.Elapsed, t.Attempts, t.Status = e.Elapsed, e.Attempt, e.Kind
	})
	r.emit(e)
}

// evidenceOf collects what an error carries, whatever that error's code does.
func evidenceOf(err error) (evidence []stages.Evidence) {
	if failed := protect(func() error { evidence = stages.EvidenceOf(err); return nil }); failed != nil {
		return []stages.Evidence{{Subject: "evidence", Reason: "Unavailable", Message: failed.Error()}}
	}
	return evidence
}

// reporting returns a context whose progress becomes events.
func (r *run) reporting(ctx context.Context, s step, attempt int) context.Context {
	return stages.WithProgress(ctx, func(p stages.Progress) {
		r.emit(Event{Stage: s.name, Kind: KindProgress, Attempt: attempt, Subject: s.subject, ID: p.ID, Message: p.Message})
	})
}

// stalled returns what tells observers of a stage that doesn't stop.
func (r *run) stalled(s step, attempt int) func(time.Duration) {
	return func(d time.Duration) {
		r.emit(Event{Stage: s.name, Kind: KindWaiting, Attempt: attempt, Subject: s.subject, Elapsed: d,
			Message: fmt.Sprintf("%s has not stopped %s after it was cancelled", s.name, round(d))})
	}
}

// siblingError is why work stops beside work that failed.
type siblingError struct{ stage Stage }

func (e *siblingError) Error() string { return fmt.Sprintf("%s failed", e.stage) }
func (e *siblingError) Unwrap() error { return context.Canceled }

// overlap runs branches side by side. The first that fails cancels the others;
// overlap returns its error once all have ended.
func overlap(ctx context.Context, branches ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	for _, branch := range branches {
		wg.Go(func() {
			err := protect(func() error { return branch(ctx) })
			if err == nil {
				return
			}
			once.Do(func() {
				first = err
				sibling := &siblingError{stage: "another stage"}
				if e, ok := errors.AsType[*Error](err); ok {
					sibling.stage = e.Stage
				}
				cancel(sibling)
			})
		})
	}
	wg.Wait()
	return first
}
