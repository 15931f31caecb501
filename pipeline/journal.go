package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Journal remembers what a run is about to change, so that a later process can
// take it back. It belongs to one pipeline. It holds no secret.
type Journal interface {
	// Open takes the journal for the exclusive use of one run or recovery until
	// the log is closed, and returns what it holds, oldest first. While another
	// has it, in this process or elsewhere, Open returns at once with an error
	// matching [ErrBusy]. A holder that was killed must not keep it.
	Open(ctx context.Context) (Log, []Entry, error)
}

// Log is a [Journal] taken for use.
type Log interface {
	// Append returns when e is certain to be in what the next Open returns, even
	// if the process is killed. After an error, the entry may be there or not.
	Append(ctx context.Context, e Entry) error
	// Close gives the journal back. It is called once, after the last Append.
	Close()
}

// EntryKind says what an [Entry] tells.
type EntryKind string

// The kinds, in the order in which a run writes them.
const (
	// EntryStarted opens a run.
	EntryStarted EntryKind = "started"
	// EntryStarting announces the side effect of a stage that can't undo it.
	EntryStarting EntryKind = "starting"
	// EntryCheckpointed announces the side effect of a stage that can.
	EntryCheckpointed EntryKind = "checkpointed"
	// EntryDone ends an announced side effect that succeeded.
	EntryDone EntryKind = "done"
	// EntryRestoring announces the restore of a checkpoint.
	EntryRestoring EntryKind = "restoring"
	// EntryRestored ends a restore whose outcome is known.
	EntryRestored EntryKind = "restored"
	// EntryFinished closes a run. With [OutcomeReleased] it is the commit: from
	// there on, nothing is taken back.
	EntryFinished EntryKind = "finished"
)

// Entry is one record of a [Journal].
type Entry struct {
	Run      string    `json:"run"`
	Pipeline string    `json:"pipeline"`
	Kind     EntryKind `json:"kind"`
	Time     time.Time `json:"time"`
	// Stage is whose side effect or checkpoint it is; empty in EntryStarted and
	// EntryFinished.
	Stage Stage `json:"stage,omitempty"`
	// Image is what the side effect is about; none for a build.
	Image stages.Image `json:"image,omitzero"`
	// Checkpoint is in EntryCheckpointed.
	Checkpoint *stages.Checkpoint `json:"checkpoint,omitempty"`
	// Restoration is in EntryRestored.
	Restoration *stages.Restoration `json:"restoration,omitempty"`
	// Outcome and Error are in EntryFinished, Error only of a failed run.
	Outcome Outcome `json:"outcome,omitempty"`
	Error   string  `json:"error,omitempty"`
}

func (e Entry) validate() error {
	switch {
	case e.Run == "":
		return fmt.Errorf("entry names no run")
	case e.Kind == EntryCheckpointed && (e.Checkpoint == nil || e.Stage == ""):
		return fmt.Errorf("entry of kind %s has no checkpoint or no stage", e.Kind)
	case e.Kind == EntryRestored && (e.Restoration == nil || e.Stage == ""):
		return fmt.Errorf("entry of kind %s has no restoration or no stage", e.Kind)
	}
	switch e.Kind {
	case EntryStarted, EntryStarting, EntryCheckpointed, EntryDone, EntryRestoring, EntryRestored, EntryFinished:
		return nil
	default:
		return fmt.Errorf("entry has the unknown kind %q", e.Kind)
	}
}

// encodeEntry returns e as one line of JSON.
func encodeEntry(e Entry) ([]byte, error) {
	if err := e.validate(); err != nil {
		return nil, err
	}
	line, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return append(line, '\n'), nil
}

// decodeEntries reads lines of JSON, and returns how many bytes of data the
// entries take. What follows them is one torn line: the append that wrote it
// never returned, so nothing that it announced has happened. A line that is
// damaged elsewhere is an error, and so is one that is whole and not understood, as
// a newer version may have written it.
func decodeEntries(data []byte) (entries []Entry, size int64, err error) {
	for number := 1; len(data) > 0; number++ {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			break
		}
		var e Entry
		err := json.Unmarshal(line, &e)
		if err != nil && len(rest) == 0 && !json.Valid(line) {
			break
		}
		if err == nil {
			err = e.validate()
		}
		if err != nil {
			return nil, 0, fmt.Errorf("%w: line %d: %w", ErrJournal, number, err)
		}
		entries = append(entries, e)
		size += int64(len(line)) + 1
		data = rest
	}
	return entries, size, nil
}

// journalLimit is the size in bytes at which a journal starts anew, provided that
// no run in it is unfinished: nobody needs the others any more.
const journalLimit = 64 << 10

// spent reports whether a journal of this size and content can start anew.
func spent(size int64, entries []Entry) bool {
	return size > journalLimit && !slices.ContainsFunc(replay(entries), func(h *history) bool { return !h.finished })
}

// MemoryJournal is a [Journal] that ends with the process. Shared by successive
// pipelines, it refuses a second run at the same time and remembers what a
// restore couldn't finish. It forgets finished runs from time to time.
type MemoryJournal struct {
	inUse sync.Mutex

	mu   sync.Mutex
	data []byte
}

var _ Journal = (*MemoryJournal)(nil)

// NewMemoryJournal returns an empty journal.
func NewMemoryJournal() *MemoryJournal { return &MemoryJournal{} }

// Open takes the journal.
func (j *MemoryJournal) Open(context.Context) (Log, []Entry, error) {
	if !j.inUse.TryLock() {
		return nil, nil, fmt.Errorf("%w: wait for the other run or recovery to end", ErrBusy)
	}
	entries, err := j.Entries()
	if err != nil {
		j.inUse.Unlock()
		return nil, nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if spent(int64(len(j.data)), entries) {
		j.data, entries = nil, nil
	}
	return &memoryLog{j}, entries, nil
}

// Entries returns what the journal holds, oldest first. It can be called while
// the journal is in use.
func (j *MemoryJournal) Entries() ([]Entry, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	entries, _, err := decodeEntries(j.data)
	return entries, err
}

type memoryLog struct{ journal *MemoryJournal }

// Append encodes, so that what can't be written to a file fails here, too.
func (l *memoryLog) Append(_ context.Context, e Entry) error {
	line, err := encodeEntry(e)
	if err != nil {
		return err
	}
	l.journal.mu.Lock()
	defer l.journal.mu.Unlock()
	l.journal.data = append(l.journal.data, line...)
	return nil
}

// Close gives the journal back.
func (l *memoryLog) Close() { l.journal.inUse.Unlock() }
