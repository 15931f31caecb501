package buildkit

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/moby/buildkit/client"

	"github.com/fairlead-dev/fairlead/stages"
)

const (
	// keptLines is how many of a step's last lines of output an error carries.
	keptLines = 20

	// maxLine bounds a reported line of output, in bytes.
	maxLine = 4 << 10
)

// tracker turns BuildKit's status records into progress, and remembers what each
// step printed last. It belongs to one goroutine at a time.
type tracker struct {
	report   func(stages.Progress)
	redactor *redactor
	steps    map[string]*step
	order    []string // of the steps' first appearance
	failed   string   // the first step that did, for a reason of its own
}

// step is a vertex of BuildKit's build graph.
type step struct {
	name     string
	started  bool
	ended    time.Time      // of its latest interval
	told     bool           // whether its end has been
	partial  map[int][]byte // by stream, what has come of an unfinished line
	skipping map[int]bool   // by stream, whether the rest of the line is dropped
	tail     []string
	// complaint is the last line of the standard error. It may arrive before what was
	// written to the standard output earlier.
	complaint string
}

func newTracker(report func(stages.Progress), r *redactor) *tracker {
	return &tracker{report: report, redactor: r, steps: make(map[string]*step)}
}

// watch handles all records until the channel is closed.
func (t *tracker) watch(records <-chan *client.SolveStatus) {
	for record := range records {
		t.handle(record)
	}
	for _, id := range t.order {
		s := t.steps[id]
		t.flush(id, s)
		if s.started && !s.ended.IsZero() && !s.told {
			t.say(id, s.name+": done")
		}
	}
}

// handle tells what begins, then what is printed, then what ends, because one
// record may hold all three.
func (t *tracker) handle(record *client.SolveStatus) {
	for _, v := range record.Vertexes {
		s := t.step(v.Digest.String())
		s.name = t.redactor.text(strings.Join(strings.Fields(v.Name), " "))
		if v.Started != nil && !s.started {
			s.started = true
			t.say(v.Digest.String(), s.name)
		}
	}
	for _, log := range record.Logs {
		t.print(log.Vertex.String(), log.Stream, log.Data)
	}
	for _, w := range record.Warnings {
		t.say(w.Vertex.String(), "warning: "+firstLine(string(w.Short)))
	}
	for _, v := range record.Vertexes {
		s := t.step(v.Digest.String())
		if v.Completed == nil || !v.Completed.After(s.ended) {
			continue
		}
		s.ended = *v.Completed
		// BuildKit ends a step in no time when it has only looked at what there is to
		// do. It then begins again, or that was all.
		if v.Error == "" && !v.Cached && elapsed(v) < time.Millisecond {
			continue
		}
		s.told = true
		if v.Error != "" && t.failed == "" && !strings.Contains(v.Error, context.Canceled.Error()) {
			t.failed = v.Digest.String()
		}
		t.flush(v.Digest.String(), s)
		t.say(v.Digest.String(), s.name+": "+outcome(v))
	}
}

func elapsed(v *client.Vertex) time.Duration {
	if v.Started == nil || v.Completed == nil {
		return 0
	}
	return v.Completed.Sub(*v.Started)
}

func outcome(v *client.Vertex) string {
	switch {
	case v.Error != "":
		return "failed: " + firstLine(shorten(v.Error))
	case v.Cached:
		return "cached"
	}
	return "done in " + elapsed(v).Round(time.Millisecond).String()
}

func (t *tracker) step(id string) *step {
	s := t.steps[id]
	if s == nil {
		s = &step{partial: make(map[int][]byte), skipping: make(map[int]bool)}
		t.steps[id] = s
		t.order = append(t.order, id)
	}
	return s
}

// standardError is the number of that stream in BuildKit's logs.
const standardError = 2

// complaint returns what the step printed last, to its standard error if it printed
// anything there.
func (t *tracker) complaint(id string) string {
	s := t.steps[id]
	switch {
	case s == nil || len(s.tail) == 0:
		return ""
	case s.complaint != "":
		return s.complaint
	}
	return s.tail[len(s.tail)-1]
}

// tail returns what the step printed last.
func (t *tracker) tail(id string) []string {
	if s := t.steps[id]; s != nil {
		return s.tail
	}
	return nil
}

// What a step's name begins with: its stage, and its place in it.
var stepPlace = regexp.MustCompile(`^\[[^\]]*\] `)

// instruction returns the instruction that a step stands for.
func (t *tracker) instruction(id string) string {
	if s := t.steps[id]; s != nil {
		return stepPlace.ReplaceAllString(s.name, "")
	}
	return ""
}

// print takes the next piece of a step's output, which ends anywhere.
func (t *tracker) print(id string, stream int, data []byte) {
	s := t.step(id)
	for len(data) > 0 {
		line, rest, ended := bytes.Cut(data, []byte{'\n'})
		t.collect(s, stream, line)
		if ended {
			t.line(id, s, stream)
		}
		data = rest
	}
}

// collect adds to an unfinished line, up to where more would not be shown: so
// far beyond maxLine that a secret which begins before it is seen whole.
func (t *tracker) collect(s *step, stream int, piece []byte) {
	room := maxLine + t.redactor.longest() - len(s.partial[stream])
	if len(piece) > room {
		s.skipping[stream] = true
		piece = piece[:max(room, 0)]
	}
	s.partial[stream] = append(s.partial[stream], piece...)
}

// line reports the finished line of a stream.
func (t *tracker) line(id string, s *step, stream int) {
	raw := string(s.partial[stream])
	cut := s.skipping[stream]
	s.partial[stream], s.skipping[stream] = s.partial[stream][:0], false

	// What a terminal would show of a line that is written over and over.
	raw = strings.TrimRight(raw, "\r")
	raw = raw[strings.LastIndexByte(raw, '\r')+1:]
	text := t.redactor.text(raw)
	if cut {
		// The end may be the first half of a secret.
		text = text[:max(0, len(text)-t.redactor.longest())]
	}
	text = strings.TrimRight(clip(text, maxLine), " \t")
	if text == "" {
		return
	}
	if stream == standardError {
		s.complaint = text
	}
	s.tail = append(s.tail, text)
	if len(s.tail) > keptLines {
		s.tail = s.tail[1:]
	}
	t.report(stages.Progress{ID: id, Message: text})
}

// flush reports lines that never got their end.
func (t *tracker) flush(id string, s *step) {
	for stream, partial := range s.partial {
		if len(partial) > 0 {
			t.line(id, s, stream)
		}
	}
}

func (t *tracker) say(id, message string) {
	t.report(stages.Progress{ID: id, Message: clip(t.redactor.text(message), maxLine)})
}

// firstLine returns s up to its first line end, marked where there is more.
func firstLine(s string) string {
	line, rest, _ := strings.Cut(strings.TrimSpace(s), "\n")
	if strings.TrimSpace(rest) != "" {
		return fmt.Sprintf("%s …", strings.TrimRight(line, " \t\r"))
	}
	return line
}

// clip shortens s to at most limit bytes, not counting the mark that says so.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}
