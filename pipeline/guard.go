package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// stallInterval is how often an observer is told of a stage that was cancelled
// and goes on.
const stallInterval = 10 * time.Second

// guard calls f and returns when f has, however long that takes: whatever runs
// may still be changing something. A panic becomes an error. While f goes on
// after ctx is done, stalled is called every [stallInterval].
func guard[T any](ctx context.Context, stalled func(time.Duration), f func(context.Context) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		// What is left if f ends the goroutine without returning or panicking.
		o := outcome{err: fmt.Errorf("%w: it called runtime.Goexit", stages.ErrPanicked)}
		defer func() {
			if p := recover(); p != nil {
				o = outcome{err: newPanicError(p)}
			}
			done <- o
		}()
		value, err := f(ctx)
		if err != nil {
			_ = err.Error() // It must not panic where nobody expects it.
		}
		o = outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
	}
	since := time.Now()
	ticker := time.NewTicker(stallInterval)
	defer ticker.Stop()
	for {
		select {
		case o := <-done:
			return o.value, o.err
		case <-ticker.C:
			stalled(time.Since(since))
		}
	}
}

// protect calls f, turning a panic into an error, and an error that panics when it is
// asked what it is, as a nil pointer does.
func protect(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = newPanicError(p)
		}
	}()
	if err = f(); err != nil {
		_ = err.Error()
	}
	return err
}

// PanicError is a stage that panicked. It matches [stages.ErrPanicked].
type PanicError struct {
	// Value is what the stage panicked with.
	Value any
	// Stack is where, as [debug.Stack] prints it.
	Stack string
}

func newPanicError(value any) *PanicError {
	return &PanicError{Value: value, Stack: strings.TrimSpace(string(debug.Stack()))}
}

// Error names the value; the stack is in the detail of the run's [Error].
func (e *PanicError) Error() string { return fmt.Sprintf("%v: %v", stages.ErrPanicked, e.Value) }

// Unwrap returns [stages.ErrPanicked], and the value if it is an error.
func (e *PanicError) Unwrap() []error {
	if err, ok := e.Value.(error); ok {
		return []error{stages.ErrPanicked, err}
	}
	return []error{stages.ErrPanicked}
}

// interruption is work that a context ended.
type interruption struct {
	done  error // ctx.Err()
	cause error // context.Cause(ctx)
	err   error // what the work returned; nil if it never began
}

// interrupted describes work under a context that is done. It matches
// ctx.Err() and the context's cause, even where the work's own error hides them.
func interrupted(ctx context.Context, err error) error {
	return &interruption{done: ctx.Err(), cause: context.Cause(ctx), err: err}
}

func (e *interruption) Error() string {
	what := "interrupted"
	if errors.Is(e.done, context.Canceled) {
		what = "cancelled"
	}
	var timeout *timeoutError
	switch {
	case errors.As(e.cause, &timeout):
		what = e.cause.Error()
	case e.cause.Error() != e.done.Error():
		what += ": " + e.cause.Error()
	case !errors.Is(e.done, context.Canceled):
		what += ": " + e.done.Error()
	}
	if e.err == nil || e.err.Error() == e.cause.Error() || e.err.Error() == e.done.Error() {
		return what
	}
	return what + ": " + e.err.Error()
}

func (e *interruption) Unwrap() []error {
	if e.err == nil {
		return []error{e.done, e.cause}
	}
	return []error{e.done, e.cause, e.err}
}
