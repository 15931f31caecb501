package diff

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fairlead-dev/fairlead/stages"
)

// TextOptions say how [Text] writes.
type TextOptions struct {
	// Color adds the commands by which terminals show colours.
	Color bool
}

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
	bold   = "1"
)

// Text writes the plan for people: each change with its unified difference, what
// has drifted, notes, and the summary.
func Text(w io.Writer, plan stages.Plan, o TextOptions) error {
	p := &printer{w: bufio.NewWriter(w), color: o.Color}
	for _, c := range plan.Changes {
		p.line(yellow, title(c.Object)+" "+phrase(c.Action)+":")
		p.difference(c.Diff)
		for _, remark := range remarks(c) {
			p.line(red, "! "+remark)
		}
		p.line("", "")
	}
	for _, c := range plan.Hooks {
		p.line(yellow, "hook "+title(c.Object)+" "+phrase(c.Action)+":")
		p.difference(c.Diff)
		p.line("", "")
	}
	for _, d := range plan.Drift {
		p.line(yellow, title(d.Object)+" has drifted:")
		for _, text := range drifts(d) {
			p.line("", "~ "+text)
		}
		p.line("", "")
	}
	for _, d := range plan.Dangers {
		p.line(red, inline(fmt.Sprintf("! danger (%s): %s: %s", d.Class, d.Object, d.Why)))
	}
	for _, n := range plan.Notes {
		p.line("", inline(noteText(n)))
	}
	p.line(bold, "Plan of "+inline(plan.Release)+": "+Count(plan).String())
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("write the plan of release %s: %w", inline(plan.Release), err)
	}
	return nil
}

func noteText(n stages.Note) string {
	if n.Object == (stages.Object{}) {
		return fmt.Sprintf("note (%s): %s", n.Kind, n.Message)
	}
	return fmt.Sprintf("note (%s): %s: %s", n.Kind, n.Object, n.Message)
}

// printer remembers the first error, as its writer does.
type printer struct {
	w     *bufio.Writer
	color bool
}

func (p *printer) line(color, text string) {
	if p.color && color != "" && text != "" {
		text = "\x1b[" + color + "m" + text + "\x1b[0m"
	}
	fmt.Fprintln(p.w, text) //nolint:errcheck // Flush tells.
}

func (p *printer) difference(diff string) {
	for line := range strings.Lines(diff) {
		text := inline(strings.TrimSuffix(line, "\n"))
		p.line(lineColor(text), text)
	}
}

func lineColor(line string) string {
	switch {
	case strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "):
		return bold
	case strings.HasPrefix(line, "@@"):
		return cyan
	case strings.HasPrefix(line, "+"):
		return green
	case strings.HasPrefix(line, "-"):
		return red
	}
	return ""
}

// inline makes text from outside one line that does nothing to a terminal: what
// is invisible, or turns the direction of writing, is replaced by U+FFFD.
func inline(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029', r == '\ufeff':
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(text, string(utf8.RuneError)))
}
