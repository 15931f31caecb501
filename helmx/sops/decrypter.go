package sops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/fairlead-dev/fairlead/stages"
)

// Config says which keys a [Decrypter] holds. At least one is required.
type Config struct {
	// Age are age identities, each element one or more lines as age-keygen writes
	// them: AGE-SECRET-KEY-1…, the post-quantum kind, blank lines and comments. The
	// value of SOPS_AGE_KEY can be passed as it is. Or an element is an SSH private key,
	// ssh-ed25519 or ssh-rsa, such as the content of ~/.ssh/id_ed25519; one that is
	// locked by a passphrase is refused.
	Age [][]byte
	// PGP are private keys.
	PGP []PGPKeyring
	// KeySource opens what neither of them does. It is asked last.
	KeySource KeySource
	// AllowExpiredPGP uses PGP keys that are expired or revoked, as gpg and sops do.
	// Without it, they give an [ExpiredKeyError].
	AllowExpiredPGP bool
}

// Decrypter decrypts files. Its methods may be called from several goroutines at
// once.
type Decrypter struct {
	age    []age.Identity
	pgp    *pgpKeys
	source KeySource
}

// New returns a decrypter, or an error matching [stages.ErrInvalid] if a key is
// malformed, locked without a passphrase or not private, or if there is none.
func New(cfg Config) (*Decrypter, error) {
	d := &Decrypter{source: cfg.KeySource, pgp: &pgpKeys{
		passphrases:  map[*openpgp.Entity]func(context.Context, string) ([]byte, error){},
		allowExpired: cfg.AllowExpiredPGP,
		now:          time.Now,
		turn:         make(chan struct{}, 1),
	}}
	for i, data := range cfg.Age {
		ids, err := parseAge(i, data)
		if err != nil {
			return nil, err
		}
		d.age = append(d.age, ids...)
	}
	for i, ring := range cfg.PGP {
		if err := d.pgp.add(i, ring); err != nil {
			return nil, err
		}
	}
	if len(d.age) == 0 && len(d.pgp.entities) == 0 && d.source == nil {
		return nil, fmt.Errorf("%w: a SOPS decrypter needs an age identity, a PGP keyring or a KeySource", stages.ErrInvalid)
	}
	return d, nil
}

// format is a notation that sops knows.
type format struct {
	read func([]byte) ([]mapping, error)
	// write returns what `sops decrypt` prints.
	write func([]mapping) ([]byte, error)
	// flat is whether metadata is spread over variables.
	flat bool
}

// formatOf chooses by the extension, as sops does.
func formatOf(name string) (format, error) {
	switch path.Ext(name) {
	case ".yaml", ".yml":
		return format{read: readYAML, write: writeYAML}, nil
	case ".json":
		return format{read: readJSON, write: writeJSON}, nil
	case ".env":
		return format{read: readDotenv, write: writeDotenv, flat: true}, nil
	case ".ini":
		return format{}, &FileError{File: name, Reason: "INI files are not read; use YAML, JSON or dotenv", Class: ErrUnsupported}
	default:
		return format{read: readJSON, write: writeBinary}, nil
	}
}

// Decrypt returns the plaintext of data as `sops decrypt` prints it. The format
// follows from the extension of name, which is otherwise only used in errors:
// .yaml, .yml, .json and .env; anything else is binary.
//
// Nothing is returned unless every value and the MAC have been authenticated.
// Files that are refused give a [FileError], and those that no key opens a
// [NoKeyError]. Once ctx ends, so does Decrypt, with an error matching its cause.
func (d *Decrypter) Decrypt(ctx context.Context, name string, data []byte) ([]byte, error) {
	f, err := formatOf(name)
	if err != nil {
		return nil, err
	}
	docs, err := f.read(data)
	if err != nil {
		return nil, inFile(name, err)
	}
	docs, meta, err := takeMetadata(docs, f.flat)
	if err != nil {
		return nil, inFile(name, err)
	}
	if meta == nil {
		return nil, &FileError{File: name, Reason: "it has no SOPS metadata; encrypt it first, or use it as it is", Class: ErrNotEncrypted}
	}
	key, err := d.dataKey(ctx, name, meta)
	if err != nil {
		return nil, err
	}
	if err := decryptDocuments(ctx, name, docs, meta, key); err != nil {
		return nil, err
	}
	out, err := f.write(docs)
	if err != nil {
		return nil, inFile(name, err)
	}
	return out, nil
}

// inFile names the file that an error of a reader or writer is about.
func inFile(name string, err error) error {
	failure := &FileError{File: name, Reason: err.Error(), Class: ErrMalformed}
	if bad, ok := errors.AsType[*syntaxError](err); ok {
		failure.Line = bad.line
	}
	return failure
}

// IsEncrypted reports whether data carries SOPS metadata, in any format that
// [Decrypter.Decrypt] reads. Of data that doesn't parse it says so if there are
// traces of encryption, lest a damaged file be taken for plaintext.
func IsEncrypted(data []byte) bool {
	if !bytes.Contains(data, []byte(metadataKey)) {
		return false
	}
	parsed := false
	for _, f := range []format{{read: readJSON}, {read: readYAML}, {read: readDotenv, flat: true}} {
		docs, err := f.read(data)
		if err != nil {
			continue
		}
		parsed = true
		if hasMetadata(docs, f.flat) {
			return true
		}
	}
	return !parsed && bytes.Contains(data, []byte(valuePrefix))
}

func hasMetadata(docs []mapping, flat bool) bool {
	if len(docs) == 0 {
		return false
	}
	if flat {
		for _, e := range docs[0] {
			if strings.HasPrefix(e.key, metadataPrefix+"mac") || strings.HasPrefix(e.key, metadataPrefix+"lastmodified") {
				return true
			}
		}
		return false
	}
	_, value, _ := docs[0].take(metadataKey)
	meta, _ := value.(mapping)
	for _, e := range meta {
		if e.key == "mac" || e.key == "lastmodified" {
			return true
		}
	}
	return false
}
