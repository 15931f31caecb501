package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/stages"
)

// FileJournal returns a [Journal] of newline-delimited JSON in the file at path,
// which is made if it doesn't exist, readable by its owner only. Each entry is on
// the disk before its Append returns. A lock of the operating system keeps other
// processes out and ends with the process that holds it, so the file must be on
// a file system that has locks.
//
// A run adds about a kilobyte and its checkpoints. The file starts anew at 64 KiB,
// and may be removed, whenever no run is unfinished.
func FileJournal(path string) Journal { return &fileJournal{path: path} }

type fileJournal struct{ path string }

func (j *fileJournal) validate() error {
	if j.path == "" {
		return errors.New("the journal's path is empty")
	}
	return nil
}

// Open takes the file's lock, reads the file, and drops a torn last line.
func (j *fileJournal) Open(context.Context) (Log, []Entry, error) {
	if err := j.validate(); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", stages.ErrInvalid, err)
	}
	file, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	log, entries, err := j.take(file)
	if err != nil {
		_ = file.Close()
		return nil, nil, fmt.Errorf("journal %s: %w", j.path, err)
	}
	return log, entries, nil
}

func (j *fileJournal) take(file *os.File) (*fileLog, []Entry, error) {
	if err := lockFile(file); err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, nil, err
	}
	entries, size, err := decodeEntries(data)
	if err != nil {
		return nil, nil, err
	}
	if spent(size, entries) {
		entries, size = nil, 0
	}
	if size < int64(len(data)) {
		if err := file.Truncate(size); err != nil {
			return nil, nil, fmt.Errorf("drop what is torn or spent: %w", err)
		}
	}
	if len(entries) == 0 {
		// Without this, a file that was just made could vanish with the power.
		if err := syncDir(filepath.Dir(j.path)); err != nil {
			return nil, nil, err
		}
	}
	return &fileLog{file: file, size: size}, entries, nil
}

type fileLog struct {
	file *os.File
	size int64
	err  error
}

// Append writes one line and waits for the disk. After a failure nothing more is
// written, as what a disk holds after a failed sync can't be known.
func (l *fileLog) Append(_ context.Context, e Entry) error {
	if l.err != nil {
		return fmt.Errorf("an earlier write failed: %w", l.err)
	}
	line, err := encodeEntry(e)
	if err != nil {
		return err
	}
	if _, err = l.file.WriteAt(line, l.size); err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		// Best effort: a torn line that stays is dropped by the next Open.
		_ = l.file.Truncate(l.size)
		l.err = err
		return err
	}
	l.size += int64(len(line))
	return nil
}

// Close gives up the lock with the file. Everything is on the disk already.
func (l *fileLog) Close() { _ = l.file.Close() }
