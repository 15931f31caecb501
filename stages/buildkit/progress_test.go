package buildkit

import (
	"encoding/base64"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/moby/buildkit/client"
	"github.com/stretchr/testify/assert"

	"github.com/fairlead-dev/fairlead/stages"
)

func TestStepsEnd(t *testing.T) {
	var told []string
	steps := newTracker(func(p stages.Progress) { told = append(told, p.Message) }, new(redactor))
	records := make(chan *client.SolveStatus)
	go func() {
		defer close(records)
		for _, v := range []client.Vertex{
			{Digest: "sha256:a", Name: "a"},
			{Digest: "sha256:a", Name: "a", Started: timeAt(0)},
			{Digest: "sha256:a", Name: "a", Started: timeAt(0), Completed: timeAt(1.5)},
			{Digest: "sha256:a", Name: "a", Started: timeAt(0), Completed: timeAt(1.5)},
			{Digest: "sha256:b", Name: "b", Started: timeAt(2), Completed: timeAt(2.1), Cached: true},
			{Digest: "sha256:c", Name: "looked at", Started: timeAt(3), Completed: timeAt(3)},
			{Digest: "sha256:c", Name: "looked at", Started: timeAt(4), Completed: timeAt(6)},
			{Digest: "sha256:d", Name: "only looked at", Started: timeAt(7), Completed: timeAt(7)},
		} {
			records <- &client.SolveStatus{Vertexes: []*client.Vertex{&v}}
		}
	}()
	steps.watch(records)
	assert.Equal(t, []string{
		"a", "a: done in 1.5s", "b", "b: cached", "looked at", "looked at: done in 2s", "only looked at", "only looked at: done",
	}, told)
}

func TestTailIsBounded(t *testing.T) {
	steps := newTracker(func(stages.Progress) {}, new(redactor))
	steps.print("x", 1, []byte(strings.Repeat("line\n", 100)+"last\n"))
	assert.Len(t, steps.tail("x"), keptLines)
	assert.Equal(t, "last", steps.tail("x")[keptLines-1])
}

func TestRedact(t *testing.T) {
	for _, test := range []struct{ name, secret, text, want string }{
		{"plain", "hunter2", "the password is hunter2.", "the password is [redacted]."},
		{"with a line end", "hunter2\n", "hunter2", "[redacted]"},
		{"line of many", "-----KEY-----\nabcdef\n}\n", "abcdef }", "[redacted] }"},
		{"base64", "hunter2", base64.StdEncoding.EncodeToString([]byte("hunter2")), "[redacted]=="},
		{"coloured", "hunter2", "hunt\x1b[1mer2", "[redacted]"},
		{"terminal sequences", "", "a\x1b]0;title\x07b\x1b[2Kc\x00", "abc"},
		{"none", "", "text", "text"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := new(redactor)
			r.add(test.secret)
			assert.Equal(t, test.want, r.text(test.text))
		})
	}
}

func TestRedactPrefersTheLongest(t *testing.T) {
	r := new(redactor)
	r.add("abc")
	r.add("abcdef")
	assert.Equal(t, "[redacted] [redacted]", r.text("abcdef abc"))
}

// However output is cut into pieces, and however long its lines, no secret shows.
func FuzzPrint(f *testing.F) {
	const secret = "s3cr3t-canary"
	f.Add([]byte("a s3cr3t-canary b"), 5, 0)
	f.Add([]byte("s3cr3t-canary\r\nx"), 1, maxLine-3)
	f.Add([]byte("\x1b[0ms3cr3t-canary"), 3, maxLine+len(secret)-3)
	f.Fuzz(func(t *testing.T, output []byte, piece, padding int) {
		if piece < 1 || padding < 0 || padding > 3*maxLine {
			return
		}
		output = append([]byte(strings.Repeat("p", padding)), output...)
		r := new(redactor)
		r.add(secret)
		steps := newTracker(func(p stages.Progress) {
			assert.NotContains(t, p.Message, secret)
			assert.NotContains(t, p.Message, "\n")
			assert.LessOrEqual(t, len(p.Message), maxLine+utf8.UTFMax)
			// At the end of a line that was cut, not even a part of it.
			cut, was := strings.CutSuffix(p.Message, "…")
			assert.False(t, was && strings.HasSuffix(cut, secret[:8]), "%q", cut)
		}, r)
		for len(output) > 0 {
			n := min(piece, len(output))
			steps.print("x", 1, output[:n])
			output = output[n:]
		}
		steps.flush("x", steps.step("x"))
	})
}
