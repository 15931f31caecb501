package sops

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"

	"github.com/fairlead-dev/fairlead/stages"
)

// maxKeySize is more than any data key or share of one.
const maxKeySize = 256

var (
	// errNoIdentity means that a recipient is simply somebody else.
	errNoIdentity = errors.New("no identity for it")
	errKeyShape   = errors.New("its data key is malformed")
)

// dataKey opens as many key groups as a file needs.
func (d *Decrypter) dataKey(ctx context.Context, file string, meta *metadata) ([]byte, error) {
	failure := &NoKeyError{File: file, Recipients: meta.recipients(), Needed: meta.threshold}
	var shares [][]byte
	for _, group := range meta.groups {
		if len(shares) == meta.threshold {
			break
		}
		share, err := d.openGroup(ctx, group, failure)
		if err != nil {
			return nil, err
		}
		if share != nil {
			shares = append(shares, share)
		}
	}
	if failure.Opened = len(shares); len(shares) < meta.threshold {
		return nil, failure
	}
	key := shares[0]
	if len(meta.groups) > 1 {
		var err error
		if key, err = combine(shares); err != nil {
			return nil, &FileError{File: file, Reason: err.Error(), Class: ErrTampered}
		}
	}
	if len(key) != dataKeySize {
		return nil, &FileError{File: file, Reason: errKeyShape.Error(), Class: ErrMalformed}
	}
	return key, nil
}

// openGroup returns what the first recipient that can be opened holds, or nil
// after adding the causes to failure. Recipients are in the order of trying.
func (d *Decrypter) openGroup(ctx context.Context, group []Recipient, failure *NoKeyError) ([]byte, error) {
	for _, r := range group {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("decrypting %q: %w", failure.File, context.Cause(ctx))
		}
		var share []byte
		var err error
		switch {
		case r.Type == Age:
			share, err = openAge(r, d.age)
		case r.Type == PGP:
			share, err = d.pgp.open(ctx, r)
		case d.source == nil:
			err = errNoIdentity
		default:
			share, err = d.source.DecryptDataKey(ctx, r)
			if err != nil && !stages.IsPermanent(err) {
				failure.transient = true
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("decrypting %q: %w", failure.File, context.Cause(ctx))
		case err == nil && len(share) > 0:
			return share, nil
		case err == nil:
			err = errKeyShape
		case errors.Is(err, errNoIdentity):
			continue
		}
		failure.Causes = append(failure.Causes, fmt.Errorf("%s: %w", r, err))
	}
	return nil, nil
}

// parseAge reads identities in the form that age-keygen writes, or an SSH private key.
// Its errors don't repeat them.
func parseAge(index int, data []byte) ([]age.Identity, error) {
	if bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		id, problem := parseSSH(data)
		if problem != "" {
			return nil, fmt.Errorf("%w: Config.Age[%d] is an SSH private key %s", stages.ErrInvalid, index, problem)
		}
		return []age.Identity{id}, nil
	}
	ids, err := age.ParseIdentities(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: Config.Age[%d] is neither a list of age identities, each line of which begins with AGE-SECRET-KEY-, nor an SSH private key", stages.ErrInvalid, index)
	}
	return ids, nil
}

// parseSSH returns an identity for what is encrypted to an SSH key's public half, or
// what is wrong with the key.
func parseSSH(data []byte) (id age.Identity, problem string) {
	data = bytes.TrimSpace(data)
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, "that is malformed"
	}
	if !bytes.HasPrefix(data, []byte("-----BEGIN ")) || len(bytes.TrimSpace(rest)) > 0 {
		return nil, "with something beside it; give each key as an element of its own"
	}
	id, err := agessh.ParseIdentity(data)
	_, locked := errors.AsType[*ssh.PassphraseMissingError](err)
	switch {
	case locked, block.Type == "ENCRYPTED PRIVATE KEY":
		return nil, "that is locked by a passphrase, which is not supported; unlock a copy of it (ssh-keygen -p), or encrypt the file to an age key as well (sops updatekeys)"
	case err != nil:
		return nil, "that is malformed, or of another type than ssh-ed25519 and ssh-rsa"
	}
	return id, ""
}

func openAge(r Recipient, ids []age.Identity) ([]byte, error) {
	if len(ids) == 0 {
		return nil, errNoIdentity
	}
	message, err := age.Decrypt(armor.NewReader(strings.NewReader(r.EncryptedKey)), ids...)
	if _, none := errors.AsType[*age.NoIdentityMatchError](err); none {
		return nil, errNoIdentity
	}
	if err != nil {
		return nil, errKeyShape
	}
	return readKey(message)
}

func readKey(r io.Reader) ([]byte, error) {
	// One byte more than allowed shows that there is too much, and reading to the
	// end is what authenticates the message.
	key, err := io.ReadAll(io.LimitReader(r, maxKeySize+1))
	if err != nil || len(key) > maxKeySize {
		return nil, errKeyShape
	}
	return key, nil
}
