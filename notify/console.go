package notify

import (
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// Color says when a [Console] uses colours.
type Color int

// The choices. A program that honours NO_COLOR passes [ColorNever] when that
// variable is set and not empty.
const (
	// ColorAuto uses colours if the writer is a terminal.
	ColorAuto Color = iota
	// ColorAlways uses colours.
	ColorAlways
	// ColorNever uses none.
	ColorNever
)

// DefaultDiffLines is how many lines of each change's diff a [Console] shows.
const DefaultDiffLines = 40

// Console writes what happens in a run as lines for people: each stage with its
// time and, below it, its progress; gates with their reasons; what a deployment
// would change; failures with their evidence; what was restored; and how the run
// ended. It only ever appends lines, so that its output reads the same in a log.
type Console struct {
	style     style
	progress  bool
	diffLines int

	mu   sync.Mutex
	w    io.Writer
	err  error
	runs map[string]*runView
}

var _ pipeline.Observer = (*Console)(nil)

// runView is what is remembered of a run between its events.
type runView struct {
	// decisions are those of gates whose end has not come yet.
	decisions map[pipeline.Stage]*stages.Decision
	// explained is set once evidence was shown.
	explained bool
}

// ConsoleOption changes a [Console].
type ConsoleOption func(*Console)

// WithColor says when to use colours, by default [ColorAuto].
func WithColor(color Color) ConsoleOption {
	return func(c *Console) {
		switch color {
		case ColorAlways:
			c.style.colored = true
		case ColorNever:
			c.style.colored = false
		default:
			c.style.colored = isTerminal(c.w)
		}
	}
}

// WithProgress says whether to show the progress inside stages, as by default.
func WithProgress(show bool) ConsoleOption {
	return func(c *Console) { c.progress = show }
}

// WithDiffLines says how many lines of each change's diff to show, by default
// [DefaultDiffLines]; 0 shows only what changes, not how.
func WithDiffLines(n int) ConsoleOption {
	return func(c *Console) { c.diffLines = max(n, 0) }
}

// NewConsole returns an observer that writes lines to w. Each event is one call
// of w's Write.
func NewConsole(w io.Writer, options ...ConsoleOption) *Console {
	c := &Console{
		style: style{colored: isTerminal(w)}, progress: true, diffLines: DefaultDiffLines,
		w: w, runs: map[string]*runView{},
	}
	for _, option := range options {
		option(c)
	}
	return c
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Observe writes what e tells, if anything.
func (c *Console) Observe(e pipeline.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	run := c.runs[e.Run]
	if run == nil {
		run = &runView{decisions: map[pipeline.Stage]*stages.Decision{}}
		c.runs[e.Run] = run
	}
	text := c.render(run, e)
	switch e.Kind {
	case pipeline.KindRunSucceeded, pipeline.KindRunFailed, pipeline.KindRecoveryFinished:
		delete(c.runs, e.Run)
	}
	if len(text) == 0 {
		return
	}
	if _, err := c.w.Write(text); err != nil && c.err == nil {
		c.err = err
	}
}

// Err returns the first error of writing, if there was one.
func (c *Console) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
