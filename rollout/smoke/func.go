package smoke

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// FuncConfig configures a smoke test that is a Go function; see [NewFunc].
type FuncConfig struct {
	// Name says what is tested, required.
	Name string
	// Run is the test, required. It returns what it saw, in a few words, or why the
	// release fails. It must return soon after its context is done: Verify waits for
	// it. A panic is an error.
	Run func(ctx context.Context, rel stages.Release) (message string, err error)
	// Timeout bounds Run. Default 1 minute.
	Timeout time.Duration
	// Once says that Run must not be repeated.
	Once bool
	// Redact masks secrets in what Run returns, after [rollout.Redact].
	Redact func(text string) string
}

// NewFunc returns a smoke test that calls a function. An error of the function is
// found in the failure's tree; one that matches [stages.ErrIndeterminate] says
// that the release could not be asked, and is no failure. The constructor's error
// matches [stages.ErrInvalid].
func NewFunc(c FuncConfig) (*Test, error) {
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	switch {
	case strings.TrimSpace(c.Name) == "":
		return nil, fmt.Errorf("function as smoke test: %w: Name is required", stages.ErrInvalid)
	case c.Run == nil:
		return nil, fmt.Errorf("smoke test %s: %w: Run is required", c.Name, stages.ErrInvalid)
	case c.Timeout < 0:
		return nil, fmt.Errorf("smoke test %s: %w: Timeout can't be negative", c.Name, stages.ErrInvalid)
	}
	clean := cleaner{extra: c.Redact}
	return &Test{name: "smoke test " + c.Name, timeout: c.Timeout, once: c.Once, run: func(ctx context.Context, rel stages.Release) (stages.Check, error) {
		stages.ReportProgress(ctx, stages.Progress{ID: "smoke " + c.Name, Message: "smoke test: " + c.Name})
		message, err := protect(func() (string, error) { return c.Run(ctx, rel) })
		switch {
		case err == nil && ctx.Err() == nil:
			return stages.Check{Name: "smoke " + c.Name, Message: clean.line(message)}, nil
		case errors.Is(err, stages.ErrIndeterminate):
			return stages.Check{}, err
		case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTimeout):
			return stages.Check{}, errors.Join(context.Cause(ctx), err)
		case ctx.Err() != nil:
			err = errors.Join(fmt.Errorf("did not finish within %s", c.Timeout), err)
		}
		f := failure(rel, stages.Evidence{Subject: "smoke test " + c.Name, Message: clean.line(err.Error())})
		if p, ok := errors.AsType[*panicked](err); ok {
			f.Decisive.Logs = p.lines(clean)
		}
		return stages.Check{}, &failed{f, err}
	}}, nil
}

// panicked is a function of the user's that panicked, or ended its goroutine.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("%v: %v", stages.ErrPanicked, p.value) }
func (p *panicked) Unwrap() error { return stages.ErrPanicked }

func (p *panicked) lines(clean cleaner) []string {
	var out []string
	for line := range strings.Lines(string(p.stack)) {
		if out = append(out, clean.line(line)); len(out) == 20 {
			break
		}
	}
	return out
}

// protect calls f in a goroutine of its own, so that neither a panic nor the end
// of its goroutine is the caller's, and waits for it.
func protect[T any](f func() (T, error)) (result T, err error) {
	err = &panicked{value: "the function ended its goroutine"}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if value := recover(); value != nil {
				err = &panicked{value, debug.Stack()}
			}
		}()
		result, err = f()
	}()
	<-done
	return result, err
}
