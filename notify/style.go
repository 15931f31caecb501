package notify

import (
	"bytes"
	"strings"
)

// ink is the colour of a piece of text, as a terminal's parameter.
type ink string

const (
	plain  ink = ""
	bold   ink = "1"
	faint  ink = "2"
	red    ink = "31"
	green  ink = "32"
	yellow ink = "33"
	cyan   ink = "36"
)

// style colours text, or doesn't.
type style struct{ colored bool }

func (s style) paint(color ink, text string) string {
	if !s.colored || color == plain || text == "" {
		return text
	}
	return "\x1b[" + string(color) + "m" + text + "\x1b[0m"
}

// page collects the lines that one event becomes.
type page struct {
	style
	out bytes.Buffer
}

// line adds a line, indented by so many steps.
func (p *page) line(indent int, parts ...string) {
	p.out.WriteString(strings.Repeat("  ", indent))
	p.out.WriteString(strings.TrimRight(strings.Join(parts, ""), " "))
	p.out.WriteByte('\n')
}

// quote adds text from outside, each line behind a bar that no text can forge.
func (p *page) quote(indent int, color ink, text string) {
	for _, l := range clean(text) {
		p.line(indent, p.paint(faint, "│ "), p.paint(color, l))
	}
}
