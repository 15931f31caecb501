package notify

import (
	"bytes"
	"encoding/json"
	"io"
	"sync"

	"github.com/fairlead-dev/fairlead/pipeline"
)

// NDJSON writes each event as a JSON object on a line of its own, in the form
// that [pipeline.Event] has in JSON.
//
// Lines are whole: what a failing writer took only a part of is completed before
// anything else is written, and until then later events are lost. They leave a
// gap in the sequence numbers of their run.
type NDJSON struct {
	mu      sync.Mutex
	w       io.Writer
	pending []byte // the rest of a line that was written in part
	err     error
}

var _ pipeline.Observer = (*NDJSON)(nil)

// NewNDJSON returns an observer that writes lines of JSON to w, each by one call
// of w's Write.
func NewNDJSON(w io.Writer) *NDJSON { return &NDJSON{w: w} }

// Observe writes e.
func (n *NDJSON) Observe(e pipeline.Event) {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	encodeErr := encoder.Encode(e)

	n.mu.Lock()
	defer n.mu.Unlock()
	if encodeErr != nil {
		n.fail(encodeErr)
		return
	}
	if len(n.pending) > 0 && !n.write(n.pending) {
		return
	}
	n.write(line.Bytes())
}

// write writes a line or the rest of one, and remembers what is left of it.
func (n *NDJSON) write(line []byte) bool {
	written, err := n.w.Write(line)
	if err == nil && written < len(line) {
		err = io.ErrShortWrite
	}
	rest := line[min(max(written, 0), len(line)):]
	if len(rest) == len(line) && len(n.pending) == 0 {
		rest = nil // nothing of this line is out, so it can be lost as a whole
	}
	n.pending = bytes.Clone(rest)
	n.fail(err)
	return err == nil
}

func (n *NDJSON) fail(err error) {
	if n.err == nil {
		n.err = err
	}
}

// Err returns the first error of writing, if there was one.
func (n *NDJSON) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}
