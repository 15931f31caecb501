package trivy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fairlead-dev/fairlead/stages"
)

const (
	// recheck is how long an outdated database is used before the registry is
	// asked again, which is what Trivy does too.
	recheck = time.Hour
	// lockPoll is how often another process's lock is looked at. There is no
	// portable way to be told.
	lockPoll = 50 * time.Millisecond
)

// databaseKind is what tells the two databases of Trivy apart.
type databaseKind struct {
	name      string
	mediaType string
	file      string
	schema    int
	// sub is the folder that Trivy adds to the path that it is given.
	sub   string
	check func(dir string) error
}

// metadata is the file that comes with either database.
type metadata struct {
	Version               int
	NextUpdate, UpdatedAt time.Time
}

const metadataFile = "metadata.json"

// database is a checked database in the cache.
type database struct {
	// dir is what Trivy is told; the files are in dir/kind.sub.
	dir string
	metadata
}

// pointer says which database in the cache a reference stands for.
type pointer struct {
	Digest string `json:"digest"`
	// Previous may still be in use by a process that looked before the update.
	Previous string    `json:"previous,omitempty"`
	Checked  time.Time `json:"checked"`
}

// databases is the part of a cache directory that holds one kind of database:
// a folder for each digest, and a pointer for each source.
type databases struct {
	kind    databaseKind
	scanner *Scanner
	root    string
	refs    []name.Reference
}

func (d *databases) source() string { return d.refs[0].Name() }

// current returns the database to scan with, and downloads it where needed.
func (d *databases) current(ctx context.Context) (database, error) {
	db, err := d.locked(ctx)
	if err != nil {
		switch {
		case errors.Is(err, ErrNoDatabase), errors.Is(err, ErrDatabaseCorrupt), errors.Is(err, ErrDatabaseSchema), errors.Is(err, ErrDatabaseStale):
			err = stages.Permanent(err)
		}
		return database{}, &DatabaseError{Source: d.source(), Err: err}
	}
	return db, nil
}

func (d *databases) locked(ctx context.Context) (_ database, err error) {
	if err := os.MkdirAll(d.root, 0o700); err != nil {
		return database{}, err
	}
	// A lock of this call's own excludes other goroutines and processes alike.
	lock := flock.New(filepath.Join(d.root, ".lock"))
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		return database{}, fmt.Errorf("lock the cache: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()

	p, db, err := d.local()
	switch {
	case d.scanner.cfg.Offline && errors.Is(err, os.ErrNotExist):
		return database{}, fmt.Errorf("%w %s, and Config.Offline forbids to download it", ErrNoDatabase, d.root)
	case d.scanner.cfg.Offline && err != nil:
		return database{}, err
	case !d.scanner.cfg.Offline && (err != nil || d.due(p, db)):
		if db, err = d.update(ctx, p, db, err == nil); err != nil {
			return database{}, err
		}
	}
	if limit := d.scanner.cfg.MaxDatabaseAge; limit > 0 && time.Since(db.UpdatedAt) > limit {
		return database{}, fmt.Errorf("%w: it was made on %s, allowed are %s", ErrDatabaseStale, db.UpdatedAt.UTC().Format(time.RFC3339), limit)
	}
	return db, nil
}

func (d *databases) due(p pointer, db database) bool {
	now := time.Now()
	return now.After(db.NextUpdate) && now.After(p.Checked.Add(recheck))
}

// update downloads what the reference stands for now, unless that is db. Where
// that fails and there is a usable db, it goes on with it: its date is in the
// report for the gate to judge.
func (d *databases) update(ctx context.Context, p pointer, db database, usable bool) (database, error) {
	fresh, err := d.fetch(ctx, p, usable)
	if err == nil {
		return fresh, nil
	}
	if usable && ctx.Err() == nil {
		d.scanner.cfg.Logger.WarnContext(ctx, "database not updated, going on with the cached one",
			"source", d.source(), "made", db.UpdatedAt, "error", err)
		return db, nil
	}
	return database{}, err
}

func (d *databases) fetch(ctx context.Context, p pointer, usable bool) (database, error) {
	desc, err := d.scanner.resolve(ctx, d.refs)
	if err != nil {
		return database{}, err
	}
	next := pointer{Digest: desc.Digest.String(), Previous: p.Digest, Checked: time.Now()}
	if usable && next.Digest == p.Digest {
		next.Previous = p.Previous
	} else if err := d.install(ctx, desc); err != nil {
		return database{}, err
	}
	text, err := json.Marshal(next)
	if err != nil {
		return database{}, err
	}
	if err := writeFile(d.pointerPath(), text); err != nil {
		return database{}, fmt.Errorf("record the download: %w", err)
	}
	d.prune()
	return d.read(next.Digest)
}

// install downloads desc next to its place, checks it, and moves it there.
func (d *databases) install(ctx context.Context, desc *remote.Descriptor) (err error) {
	if _, err := d.read(desc.Digest.String()); err == nil {
		return nil
	}
	stages.ReportProgress(ctx, stages.Progress{ID: "database", Message: "downloading the " + d.kind.name + " database " + d.source()})
	dir, err := os.MkdirTemp(d.root, ".new-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	inner := filepath.Join(dir, d.kind.sub)
	if err := os.MkdirAll(inner, 0o700); err != nil {
		return err
	}
	if err := unpack(desc, d.kind.mediaType, []string{d.kind.file, metadataFile}, inner); err != nil {
		return err
	}
	if _, err := d.readMetadata(inner); err != nil {
		return err
	}
	if err := d.kind.check(inner); err != nil {
		return err
	}
	place := d.place(desc.Digest.String())
	if err := os.RemoveAll(place); err != nil {
		return err
	}
	return os.Rename(dir, place)
}

// local returns the database that the last update left, or an error matching
// [os.ErrNotExist] if there was none.
func (d *databases) local() (pointer, database, error) {
	var p pointer
	text, err := os.ReadFile(d.pointerPath())
	if err != nil {
		return p, database{}, err
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return pointer{}, database{}, fmt.Errorf("%w: %s: %w", ErrDatabaseCorrupt, d.pointerPath(), err)
	}
	db, err := d.read(p.Digest)
	return p, db, err
}

func (d *databases) read(digest string) (database, error) {
	dir := d.place(digest)
	inner := filepath.Join(dir, d.kind.sub)
	if _, err := os.Stat(filepath.Join(inner, d.kind.file)); err != nil {
		return database{}, err
	}
	m, err := d.readMetadata(inner)
	return database{dir: dir, metadata: m}, err
}

func (d *databases) readMetadata(dir string) (metadata, error) {
	var m metadata
	text, err := os.ReadFile(filepath.Join(dir, metadataFile))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: %s: %w", ErrDatabaseCorrupt, metadataFile, err)
	}
	switch {
	case m.Version != d.kind.schema:
		return m, fmt.Errorf("%w: it has version %d, Trivy %s reads %d", ErrDatabaseSchema, m.Version, Version(), d.kind.schema)
	case m.UpdatedAt.IsZero():
		return m, fmt.Errorf("%w: %s does not say when it was made", ErrDatabaseCorrupt, metadataFile)
	}
	return m, nil
}

// prune deletes databases that no pointer names. Failing to is harmless: the
// next update tries again.
func (d *databases) prune() {
	keep := map[string]bool{}
	pointers, _ := filepath.Glob(filepath.Join(d.root, "*.json"))
	for _, path := range pointers {
		var p pointer
		if text, err := os.ReadFile(path); err == nil && json.Unmarshal(text, &p) == nil {
			keep[d.place(p.Digest)], keep[d.place(p.Previous)] = true, true
		}
	}
	places, _ := filepath.Glob(d.place("*"))
	for _, dir := range places {
		if !keep[dir] {
			_ = os.RemoveAll(dir)
		}
	}
}

func (d *databases) place(digest string) string {
	return filepath.Join(d.root, "sha256-"+strings.TrimPrefix(digest, "sha256:"))
}

// pointerPath names the file after the source, readable and without separators.
func (d *databases) pointerPath() string {
	return filepath.Join(d.root, strings.NewReplacer("/", "_", ":", "_", "@", "_").Replace(d.source())+".json")
}
