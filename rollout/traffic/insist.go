package traffic

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/rollout/internal/wait"
	"github.com/fairlead-dev/fairlead/stages"
)

// insist repeats f until it succeeds, fails for good, or the time is up. A weight
// takes effect when several objects of several kinds say so, which the router
// alone knows, so it is asked again rather than watched.
func insist(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	bounded, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %s", limit))
	defer cancel()
	for backoff := wait.FirstBackoff; ; backoff = min(2*backoff, wait.MaxBackoff) {
		err := protect(func() error { return f(bounded) })
		switch {
		case err == nil, final(err):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !wait.For(bounded, backoff):
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return errors.Join(context.Cause(bounded), err)
		}
	}
}

// momentaryError is what is wrong at one look, and may not be at the next.
type momentaryError struct{ err error }

func (e *momentaryError) Error() string { return e.err.Error() }
func (e *momentaryError) Unwrap() error { return e.err }

// final reports that repeating changes nothing.
func final(err error) bool {
	if _, momentary := errors.AsType[*momentaryError](err); momentary {
		return false
	}
	_, changed := errors.AsType[*ChangedError](err)
	return changed || stages.IsPermanent(err) || errors.Is(err, stages.ErrLockLost) || errors.Is(err, ErrStateChanged) ||
		errors.Is(err, ErrAbortAsked) || errors.Is(err, stages.ErrPanicked)
}

// protect calls f, turning a panic into an error, and an error that panics when it is
// asked what it is, as a nil pointer does.
func protect(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p, debug.Stack()}
		}
	}()
	if err = f(); err != nil {
		_ = err.Error()
	}
	return err
}

// panicError is a part of the canary that panicked.
type panicError struct {
	value any
	stack []byte
}

var _ stages.Evidencer = (*panicError)(nil)

func (e *panicError) Error() string { return fmt.Sprintf("%v: %v", stages.ErrPanicked, e.value) }
func (e *panicError) Unwrap() error { return stages.ErrPanicked }

// Evidence says where.
func (e *panicError) Evidence() []stages.Evidence {
	const lines = 20
	stack := strings.SplitN(string(e.stack), "\n", lines+1)
	return []stages.Evidence{{Subject: "canary", Reason: "Panicked", Message: fmt.Sprint(e.value), Logs: stack[:min(lines, len(stack))]}}
}

// reporter returns what reports a canary's progress to the sink of ctx, whatever
// contexts follow. A sink that panics must not end an abort.
func reporter(ctx context.Context) func(string) {
	return func(message string) {
		_ = protect(func() error {
			stages.ReportProgress(ctx, stages.Progress{ID: progressID, Message: message})
			return nil
		})
	}
}
