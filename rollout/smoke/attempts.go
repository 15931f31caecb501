package smoke

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/internal/wait"
	"github.com/fairlead-dev/fairlead/stages"
)

// attempt is one request that was counted.
type attempt struct {
	Answer
	subject string // who was asked, such as "pod shop/shop-x"
	err     error  // why there is no answer
}

// tally is what the counted requests came to.
type tally struct {
	expect   expectation
	what     string // what was asked, such as "GET /healthz"
	unit     string // "request" or "run"
	remedy   string
	clean    cleaner
	attempts []attempt
	passed   int
	problems []problem
}

type problem struct {
	number  int
	text    string
	attempt attempt
}

// requests is a tally of requests, runs one of runs of a program.
func requests(e expectation, what string, clean cleaner) *tally {
	return &tally{expect: e, what: what, unit: "request", remedy: "see the response: service, port, path and network policies", clean: clean}
}

func runs(e expectation, what string, clean cleaner) *tally {
	return &tally{expect: e, what: what, unit: "run", remedy: "see what the program wrote", clean: clean}
}

// add judges one more request.
func (t *tally) add(a attempt) {
	t.attempts = append(t.attempts, a)
	text := t.expect.judge(a.Answer, t.clean.mask)
	if a.err != nil {
		text = a.err.Error()
	}
	if text == "" {
		t.passed++
		return
	}
	t.problems = append(t.problems, problem{len(t.attempts), t.clean.line(text), a})
}

// decided reports whether more requests can't change the verdict.
func (t *tally) decided() bool {
	e := t.expect
	return len(t.attempts) >= e.Attempts || t.passed >= e.Successes || len(t.problems) > e.Attempts-e.Successes
}

func (t *tally) pass() bool { return t.passed >= t.expect.Successes }

// check says what was observed of a test that has passed.
func (t *tally) check() stages.Check {
	last := t.attempts[len(t.attempts)-1]
	slowest := slices.MaxFunc(t.attempts, func(a, b attempt) int { return int(a.Latency - b.Latency) }).Latency
	var parts []string
	if t.expect.Attempts > 1 {
		parts = append(parts, fmt.Sprintf("%d of %d %ss passed", t.passed, len(t.attempts), t.unit))
	}
	if last.Status != 0 {
		parts = append(parts, fmt.Sprintf("status %d", last.Status))
	}
	if last.Message != "" {
		parts = append(parts, t.clean.line(last.Message))
	}
	if len(last.Body) > 0 {
		parts = append(parts, fmt.Sprintf("%d bytes", len(last.Body)))
	}
	if slowest > 0 {
		parts = append(parts, rounded(slowest).String())
	}
	c := stages.Check{Name: "smoke " + t.what, Message: strings.Join(parts, ", ")}
	if n := len(t.problems); n > 0 {
		c.Message += fmt.Sprintf("; %s %d failed: %s", t.unit, t.problems[n-1].number, t.problems[n-1].text)
	}
	return c
}

const (
	maxProblems    = 8
	maxBodyExcerpt = 300
)

// failure tells which requests failed, and how.
func (t *tally) failure(rel stages.Release) error {
	var message string
	var logs []string
	var causes []error
	for i, p := range t.problems {
		if p.attempt.err != nil {
			causes = append(causes, p.attempt.err)
		}
		if i < maxProblems {
			logs = append(logs, t.describe(p)...)
		}
	}
	evidence := stages.Evidence{Subject: workload(rel).String(), Remedy: t.remedy}
	if len(t.problems) == 0 {
		message = fmt.Sprintf("%s: %d of %d %ss passed within the test's timeout, %d required", t.what, t.passed, t.expect.Attempts, t.unit, t.expect.Successes)
	}
	if n := len(t.problems); n > 0 {
		p := t.problems[n-1]
		if t.expect.Attempts == 1 {
			message = t.what + ": " + p.text
		} else {
			message = fmt.Sprintf("%s: %d of %d %ss passed, %d required; %s %d: %s",
				t.what, t.passed, len(t.attempts), t.unit, t.expect.Successes, t.unit, p.number, p.text)
		}
		if p.attempt.subject != "" {
			evidence.Subject = p.attempt.subject
		}
		if hidden := n - maxProblems; hidden > 0 {
			logs = append(logs, fmt.Sprintf("(%d more failed)", hidden))
		}
	}
	evidence.Message, evidence.Logs = t.clean.line(message), logs
	return &failed{failure(rel, evidence), errors.Join(causes...)}
}

// describe tells one request that failed, in a line or two.
func (t *tally) describe(p problem) []string {
	a := p.attempt
	line := fmt.Sprintf("%s %d", t.unit, p.number)
	if a.subject != "" {
		line += " to " + a.subject
	}
	if a.Status != 0 {
		line += fmt.Sprintf(": status %d", a.Status)
	}
	if a.Latency > 0 {
		line += fmt.Sprintf(" after %s", rounded(a.Latency))
	}
	lines := []string{t.clean.line(line + ": " + p.text)}
	if len(a.Body) > 0 {
		lines = append(lines, "  body: "+shorten(t.clean.line(string(a.Body)), maxBodyExcerpt))
	}
	return lines
}

// failed is a failure together with what caused it.
type failed struct {
	*rollout.Failure
	cause error
}

// Unwrap returns the failure, and the cause if there is one.
func (f *failed) Unwrap() []error {
	if f.cause == nil {
		return []error{f.Failure}
	}
	return []error{f.Failure, f.cause}
}

// unreachable is an error of a request that says nothing about the release: the
// cluster could not be asked.
type unreachable struct{ err error }

func (e *unreachable) Error() string { return e.err.Error() }
func (e *unreachable) Unwrap() error { return e.err }

// repeat makes requests until the verdict is known. Those before the first answer
// are not counted, up to the number of retries. One whose pod went away meanwhile,
// or for which the cluster could not be asked, is repeated as well.
func (t *tally) repeat(ctx context.Context, once func(context.Context) (a attempt, gone bool)) error {
	retries, reached := t.expect.Retries, false
	for {
		a, gone := once(ctx)
		_, unasked := errors.AsType[*unreachable](a.err)
		switch {
		case ctx.Err() != nil:
			return t.interrupted(ctx, a)
		case stages.IsPermanent(a.err):
			return a.err
		case retries > 0 && (gone || unasked || !reached && !t.expect.reached(a)):
			retries--
			t.progress(ctx, fmt.Sprintf("not reached yet: %v", a.reason()))
			if !wait.For(ctx, t.expect.Interval) {
				return t.interrupted(ctx, a)
			}
			continue
		case unasked:
			return fmt.Errorf("%w: %w", stages.ErrIndeterminate, a.err)
		}
		reached = true
		t.add(a)
		if t.expect.Attempts > 1 {
			t.progress(ctx, fmt.Sprintf("%d of %d %ss passed", t.passed, len(t.attempts), t.unit))
		}
		if t.decided() {
			return nil
		}
	}
}

// interrupted is the end of a test whose context has ended. If that was the test's
// own timeout, the release has not answered as it should, unless it could not be
// asked.
func (t *tally) interrupted(ctx context.Context, last attempt) error {
	cause := context.Cause(ctx)
	if _, unasked := errors.AsType[*unreachable](last.err); unasked || !errors.Is(cause, errTimeout) {
		return errors.Join(cause, last.err)
	}
	if errors.Is(last.err, context.DeadlineExceeded) || errors.Is(last.err, errTimeout) {
		last.err = errors.New("no answer within the test's timeout")
	}
	t.add(last)
	return nil
}

func (t *tally) progress(ctx context.Context, message string) {
	stages.ReportProgress(ctx, stages.Progress{ID: "smoke " + t.what, Message: t.clean.line("smoke test: " + t.what + ": " + message)})
}

// reached reports whether something answers, and with no status that is an error
// unless one is expected.
func (e expectation) reached(a attempt) bool {
	return a.err == nil && (a.Status < 400 || e.wantsError())
}

func (a attempt) reason() error {
	if a.err != nil {
		return a.err
	}
	return fmt.Errorf("status %d", a.Status)
}
