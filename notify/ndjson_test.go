package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func TestNDJSONGolden(t *testing.T) {
	var out bytes.Buffer
	observer := NewNDJSON(&out)
	for i, e := range rolledBack() {
		e.Run, e.Pipeline, e.Seq = "r-1", "shop", int64(i+1)
		observer.Observe(e)
	}
	require.NoError(t, observer.Err())
	golden(t, "rolled-back.ndjson", out.Bytes())
}

func TestNDJSONKeepsEventsWhole(t *testing.T) {
	var out bytes.Buffer
	observer := NewNDJSON(&out)
	events := append(hostile(), delivered()...)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for _, e := range events {
				e.Run = fmt.Sprint(i)
				observer.Observe(e)
			}
		})
	}
	wg.Wait()
	counts := map[string]int{}
	for line := range bytes.Lines(out.Bytes()) {
		var e pipeline.Event
		require.NoError(t, json.Unmarshal(line, &e))
		counts[e.Run]++
	}
	n := len(events)
	assert.Equal(t, map[string]int{"0": n, "1": n, "2": n, "3": n}, counts)
}

func TestNDJSONCompletesALineBeforeTheNext(t *testing.T) {
	full := errors.New("disk full")
	var out bytes.Buffer
	room := 10 // bytes taken before the writer fails
	observer := NewNDJSON(writerFunc(func(b []byte) (int, error) {
		n := min(room, len(b))
		room -= n
		out.Write(b[:n])
		if n < len(b) {
			return n, full
		}
		return n, nil
	}))
	send := func(run string) { observer.Observe(pipeline.Event{Run: run, Kind: pipeline.KindProgress}) }

	send("a") // in part
	send("b") // lost: a's line is still open
	room = 20
	send("c") // lost: a's line is a little longer
	room = 1 << 20
	send("d")
	room = 0
	send("e") // lost as a whole
	room = 1 << 20
	send("f")

	require.ErrorIs(t, observer.Err(), full)
	var runs []string
	for line := range strings.Lines(out.String()) {
		var e pipeline.Event
		require.NoError(t, json.Unmarshal([]byte(line), &e), line)
		runs = append(runs, e.Run)
	}
	assert.Equal(t, []string{"a", "d", "f"}, runs)
}

func TestNDJSONNotesAShortWrite(t *testing.T) {
	observer := NewNDJSON(writerFunc(func(b []byte) (int, error) { return len(b) - 1, nil }))
	observer.Observe(pipeline.Event{})
	require.Error(t, observer.Err())
}

func TestNDJSONNotesWhatHasNoJSON(t *testing.T) {
	var out bytes.Buffer
	observer := NewNDJSON(&out)
	observer.Observe(pipeline.Event{Decision: &stages.Decision{Verdict: 99}})
	require.ErrorIs(t, observer.Err(), stages.ErrInvalid)
	assert.Empty(t, out.Bytes())
}

// TestObserversOfARun has both observe the engine itself.
func TestObserversOfARun(t *testing.T) {
	var lines, text bytes.Buffer
	ndjson, console := NewNDJSON(&lines), NewConsole(&text)
	p, err := pipeline.New(pipeline.Config{
		Name: "shop", Builder: &stagestest.Builder{}, Scanner: &stagestest.Scanner{}, Signer: &stagestest.Signer{},
		Deployer: &stagestest.Deployer{}, Verifiers: []stages.Verifier{&stagestest.Verifier{}},
		ScanGates: []stages.Gate[stages.Report]{stages.GateFunc[stages.Report](func(_ context.Context, _ stages.Report) (stages.Decision, error) {
			return stages.Decision{Gate: "vulnerabilities", Verdict: stages.Pass}, nil
		})},
		Observers: []pipeline.Observer{ndjson, console},
	})
	require.NoError(t, err)
	_, err = p.Run(t.Context(), stages.Source{Dir: "examples/app"})
	require.NoError(t, err)
	require.NoError(t, p.Close())

	seq := int64(0)
	for line := range bytes.Lines(lines.Bytes()) {
		var e pipeline.Event
		require.NoError(t, json.Unmarshal(line, &e))
		seq++
		assert.Equal(t, seq, e.Seq)
	}
	assert.Greater(t, seq, int64(10))
	assert.Contains(t, text.String(), "✓ shop released after")
	assert.Contains(t, text.String(), "vulnerabilities: pass")
}
