package trivy

import (
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/fairlead-dev/fairlead/stages"
)

// What can be wrong with a database. Each comes in a [DatabaseError].
var (
	// ErrNoDatabase is offline mode without a database in the cache directory.
	ErrNoDatabase = errors.New("no database in the cache")
	// ErrDatabaseCorrupt is a database that can't be read or is empty.
	ErrDatabaseCorrupt = errors.New("database is corrupt")
	// ErrDatabaseSchema is a database for another version of Trivy.
	ErrDatabaseSchema = errors.New("database has another schema version")
	// ErrDatabaseStale is a database older than Config.MaxDatabaseAge.
	ErrDatabaseStale = errors.New("database is too old")
	// ErrClosed is a scan asked of a closed scanner.
	ErrClosed = errors.New("scanner is closed")
)

// DatabaseError is a scan that did not begin, because there was no database to
// compare the image with. All but a failed download is permanent in the sense of
// [stages.IsPermanent].
type DatabaseError struct {
	// Source is the reference of the database.
	Source string
	// Err is what is wrong with it.
	Err error
}

// Error says what is wrong with which database.
func (e *DatabaseError) Error() string { return fmt.Sprintf("Trivy database %s: %v", e.Source, e.Err) }

// Unwrap returns what is wrong.
func (e *DatabaseError) Unwrap() error { return e.Err }

// classify marks what a registry will answer the same way next time, such as
// a missing manifest or refused credentials.
func classify(err error) error {
	if answer, ok := errors.AsType[*transport.Error](err); ok && !answer.Temporary() && answer.StatusCode >= 400 && answer.StatusCode < 500 {
		return stages.Permanent(err)
	}
	return err
}
