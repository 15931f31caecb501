package sops

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// The classes of failure. Match them with [errors.Is].
var (
	// ErrNotEncrypted is a file without SOPS metadata.
	ErrNotEncrypted = errors.New("not encrypted by SOPS")
	// ErrMalformed is a file that SOPS can't have written.
	ErrMalformed = errors.New("malformed SOPS file")
	// ErrUnsupported is a file in a format that this package doesn't read.
	ErrUnsupported = errors.New("unsupported SOPS format")
	// ErrTampered is a file that was changed after it was encrypted.
	ErrTampered = errors.New("SOPS file was changed after it was encrypted")
	// ErrNoKey is a file whose data key none of the given keys opens.
	ErrNoKey = errors.New("no key opens the SOPS file")
	// ErrKeyExpired is a PGP key that opens the file but is past its expiry or revoked.
	ErrKeyExpired = errors.New("PGP key is expired or revoked")
)

// FileError is a file that was refused. It says where and why, and never repeats
// a value: what stands in the wrong place of an encrypted file may be a secret.
type FileError struct {
	// File is the name given to [Decrypter.Decrypt].
	File string
	// Path holds the keys that lead to the offending value, joined by colons;
	// empty if it is about the file as a whole.
	Path string
	// Line is the line of the file, or 0.
	Line int
	// Reason says what is wrong and what would mend it.
	Reason string
	// Class is one of the sentinels of this package.
	Class error
}

// Error says which file was refused, where and why.
func (e *FileError) Error() string {
	var where strings.Builder
	if e.Path != "" {
		fmt.Fprintf(&where, " at %q", e.Path)
	}
	if e.Line > 0 {
		fmt.Fprintf(&where, " in line %d", e.Line)
	}
	return fmt.Sprintf("decrypting %q%s: %s: %s", e.File, where.String(), e.Class, e.Reason)
}

// Unwrap returns the class and [stages.ErrInvalid].
func (e *FileError) Unwrap() []error { return []error{e.Class, stages.ErrInvalid} }

// NoKeyError is a file whose data key could not be opened. It satisfies
// [stages.IsPermanent] unless a [KeySource] failed, which may pass with time.
type NoKeyError struct {
	// File is the name given to [Decrypter.Decrypt].
	File string
	// Recipients are those that the file is encrypted to.
	Recipients []Recipient
	// Needed is how many key groups must be opened, and Opened how many were;
	// 1 and 0 for a file without key groups.
	Needed, Opened int
	// Causes say why recipients failed for which there was a key.
	Causes []error

	transient bool
}

// Error names the recipients of which one has to be held.
func (e *NoKeyError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "decrypting %q: %s", e.File, ErrNoKey)
	if e.Needed > 1 {
		fmt.Fprintf(&b, " (%d of %d key groups opened)", e.Opened, e.Needed)
	}
	b.WriteString(": give an identity for one of its recipients")
	separator := " "
	for _, r := range e.Recipients {
		b.WriteString(separator + r.String())
		separator = ", "
	}
	for _, cause := range e.Causes {
		b.WriteString("; " + cause.Error())
	}
	return b.String()
}

// Unwrap returns [ErrNoKey] and the causes.
func (e *NoKeyError) Unwrap() []error {
	errs := append([]error{ErrNoKey}, e.Causes...)
	if !e.transient {
		errs = append(errs, stages.ErrInvalid)
	}
	return errs
}

// ExpiredKeyError is a PGP key that would open the file but may not be used any
// more. See [Config.AllowExpiredPGP].
type ExpiredKeyError struct {
	// Fingerprint is that of the primary key.
	Fingerprint string
	// Expired is since when; the zero time for a key that was revoked.
	Expired time.Time
}

// Error names the key and what to do.
func (e *ExpiredKeyError) Error() string {
	what := "is revoked"
	if !e.Expired.IsZero() {
		what = "expired at " + e.Expired.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("PGP key %s %s: extend it, encrypt the file to another key (sops updatekeys), or allow expired keys", e.Fingerprint, what)
}

// Unwrap returns [ErrKeyExpired].
func (e *ExpiredKeyError) Unwrap() error { return ErrKeyExpired }
