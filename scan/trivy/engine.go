package trivy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	bolt "go.etcd.io/bbolt"
	_ "modernc.org/sqlite" // the driver that Trivy's Java index is read with

	trivydb "github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy/pkg/db"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/javadb"
	xos "github.com/aquasecurity/trivy/pkg/x/os"
)

// opened names the databases that Trivy's package variables refer to.
type opened struct{ vulnerabilities, java string }

// engine gives one scan at a time Trivy's package variables: the open
// vulnerability database, the Java index, the folder for temporary files, and the
// analyzers, which every scan sets up anew.
type engine struct {
	turn chan struct{} // held by the scan that runs

	mu    sync.Mutex
	state opened
	// scanners counts what is open; with the last one, Trivy's state goes too.
	scanners int
}

var trivyState = newEngine()

func newEngine() *engine { return &engine{turn: make(chan struct{}, 1)} }

// acquire waits for its turn, opens want, and returns a function that ends the
// turn.
func (e *engine) acquire(ctx context.Context, want opened) (release func(), err error) {
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	release = func() { <-e.turn }
	if err := e.prepare(want); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func (e *engine) prepare(want opened) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state != want {
		if err := e.open(want); err != nil {
			return err
		}
	}
	// Trivy makes this folder once; the last Close may have removed it.
	if err := os.MkdirAll(xos.TempDir(), 0o700); err != nil {
		return fmt.Errorf("make folder for temporary files: %w", err)
	}
	return nil
}

func (e *engine) open(want opened) error {
	if err := db.Close(); err != nil {
		return fmt.Errorf("close the previous database: %w", err)
	}
	e.state = opened{}
	if err := db.Init(want.vulnerabilities); err != nil {
		return fmt.Errorf("%w: %w", ErrDatabaseCorrupt, err)
	}
	// Skipping the update keeps Trivy from downloading by itself, past context
	// and credentials.
	javadb.Init(want.java, nil, true, true, ftypes.RegistryOptions{})
	e.state = want
	return nil
}

func (e *engine) scannerOpened() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.scanners++
}

func (e *engine) scannerClosed() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.scanners--; e.scanners > 0 {
		return nil
	}
	e.state = opened{}
	if err := db.Close(); err != nil {
		return fmt.Errorf("close Trivy's database: %w", err)
	}
	if err := xos.Cleanup(); err != nil {
		return fmt.Errorf("remove Trivy's temporary files: %w", err)
	}
	return nil
}

// checkVulnerabilities reports why the file in dir is no vulnerability database.
func checkVulnerabilities(dir string) (err error) {
	// The file is mapped into memory, where bytes that make no sense show up as
	// panics and faults.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrDatabaseCorrupt, r)
		}
	}()
	file, err := bolt.Open(trivydb.Path(dir), 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDatabaseCorrupt, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return file.View(func(tx *bolt.Tx) error {
		details := tx.Bucket([]byte("vulnerability"))
		if details == nil {
			return fmt.Errorf("%w: it describes no vulnerability", ErrDatabaseCorrupt)
		}
		if key, _ := details.Cursor().First(); key == nil {
			return fmt.Errorf("%w: it describes no vulnerability", ErrDatabaseCorrupt)
		}
		return nil
	})
}

// checkJava reports why the file in dir is no index of Java archives.
func checkJava(dir string) (err error) {
	const magic = "SQLite format 3\x00"
	f, err := os.Open(filepath.Join(dir, javaFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head := make([]byte, len(magic))
	if _, err := f.Read(head); err != nil || string(head) != magic {
		return fmt.Errorf("%w: %s is not an SQLite database", ErrDatabaseCorrupt, javaFile)
	}
	return nil
}
