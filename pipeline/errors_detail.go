package pipeline

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

// Format prints [Error.Detail] for %+v, and the line of [Error.Error] otherwise.
func (e *Error) Format(f fmt.State, verb rune) {
	switch {
	case verb == 'v' && f.Flag('+'):
		_, _ = io.WriteString(f, e.Detail())
	case verb == 'q':
		_, _ = fmt.Fprintf(f, "%q", e.Error())
	default:
		_, _ = io.WriteString(f, e.Error())
	}
}

// Detail tells the whole failure in several lines, for people: the cause, the
// evidence with its logs and events, a panic's stack, and what was undone.
func (e *Error) Detail() string {
	var b strings.Builder
	line := func(indent int, format string, args ...any) {
		text := strings.TrimRight(fmt.Sprintf(format, args...), "\n")
		for l := range strings.SplitSeq(text, "\n") {
			b.WriteString(strings.Repeat("  ", indent) + l + "\n")
		}
	}
	line(0, "pipeline %s, run %s: %s failed", e.Pipeline, e.Run, e.Stage)
	if e.Subject != "" {
		line(1, "subject: %s", e.Subject)
	}
	if e.Attempts > 1 {
		line(1, "attempts: %d", e.Attempts)
	}
	line(1, "cause: %v", e.Cause)
	if gate, ok := errors.AsType[*GateError](e.Cause); ok {
		for _, r := range gate.Decision.Reasons {
			line(2, "%s", reasonText(r))
		}
	}
	for _, ev := range e.Evidence {
		detailEvidence(line, 1, ev)
	}
	if p, ok := errors.AsType[*PanicError](e.Cause); ok {
		line(1, "stack:")
		line(2, "%s", p.Stack)
	}
	line(1, "state: %s", e.state())
	for _, r := range e.Restorations {
		line(2, "%s: %s, %s", r.Stage, r.text(), round(r.Elapsed))
		if p, ok := errors.AsType[*PanicError](r.Err); ok {
			line(3, "%s", p.Stack)
		}
		for _, ev := range r.Evidence {
			detailEvidence(line, 3, ev)
		}
	}
	for _, err := range e.Later {
		line(1, "also: %v", err)
	}
	line(1, "next: %s", e.advice())
	return b.String()
}

func detailEvidence(line func(int, string, ...any), indent int, ev stages.Evidence) {
	text := ev.Subject
	if ev.Container != "" {
		text += ", container " + ev.Container
	}
	text += ": " + ev.Reason
	if ev.ExitCode != nil {
		text += fmt.Sprintf(" (exit code %d)", *ev.ExitCode)
	}
	if ev.Message != "" {
		text += ": " + ev.Message
	}
	line(indent, "evidence: %s", text)
	if len(ev.Owners) > 0 {
		line(indent+1, "of %s", strings.Join(ev.Owners, ", of "))
	}
	if ev.Field != "" {
		line(indent+1, "field: %s", ev.Field)
	}
	for _, list := range []struct {
		name  string
		lines []string
	}{{"log", ev.Logs}, {"event", ev.Events}} {
		for _, l := range list.lines {
			line(indent+1, "%s: %s", list.name, l)
		}
	}
	if ev.Command != "" {
		line(indent+1, "look closer: %s", ev.Command)
	}
	if ev.Remedy != "" {
		line(indent+1, "remedy: %s", ev.Remedy)
	}
}
