package sops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"

	"github.com/fairlead-dev/fairlead/stages"
)

// PGPKeyring is one or more private keys, as gpg --export-secret-keys writes them.
type PGPKeyring struct {
	// Keys are the bytes of the export, armored or not.
	Keys []byte
	// Passphrase returns what unlocks the private key with the fingerprint, which
	// is that of the primary key in upper-case hexadecimal digits. It is required
	// if a key is locked, and called at most once per key.
	Passphrase func(ctx context.Context, fingerprint string) ([]byte, error)
}

// pgpKeys are the private keys of all keyrings.
type pgpKeys struct {
	entities     openpgp.EntityList
	passphrases  map[*openpgp.Entity]func(context.Context, string) ([]byte, error)
	allowExpired bool
	now          func() time.Time
	// turn is held while the keys are in use, because unlocking one changes it. It
	// is a channel so that waiting for it ends with the context.
	turn chan struct{}
}

func (k *pgpKeys) add(index int, ring PGPKeyring) error {
	refuse := func(reason string) error {
		return fmt.Errorf("%w: Config.PGP[%d] %s", stages.ErrInvalid, index, reason)
	}
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimSpace(ring.Keys), []byte("-----BEGIN")) {
		read = openpgp.ReadArmoredKeyRing
	}
	entities, err := read(bytes.NewReader(ring.Keys))
	if err != nil || len(entities) == 0 {
		// The cause may quote what it could not parse.
		return refuse("is not a keyring; use the output of gpg --export-secret-keys")
	}
	for _, e := range entities {
		private, locked := privateKeys(e)
		switch {
		case private == 0:
			return refuse("has no private key for " + fingerprint(e) + "; use the output of gpg --export-secret-keys")
		case locked && ring.Passphrase == nil:
			return refuse("needs a Passphrase for " + fingerprint(e))
		}
		k.entities = append(k.entities, e)
		k.passphrases[e] = ring.Passphrase
	}
	return nil
}

func privateKeys(e *openpgp.Entity) (count int, locked bool) {
	if e.PrivateKey != nil {
		count, locked = 1, e.PrivateKey.Encrypted
	}
	for _, sub := range e.Subkeys {
		if sub.PrivateKey != nil {
			count++
			locked = locked || sub.PrivateKey.Encrypted
		}
	}
	return count, locked
}

func fingerprint(e *openpgp.Entity) string { return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint) }

func (k *pgpKeys) open(ctx context.Context, r Recipient) ([]byte, error) {
	if len(k.entities) == 0 {
		return nil, errNoIdentity
	}
	block, err := armor.Decode(strings.NewReader(r.EncryptedKey))
	if err != nil {
		return nil, errKeyShape
	}
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var refused error
	message, err := openpgp.ReadMessage(block.Body, k.entities, func(keys []openpgp.Key, _ bool) ([]byte, error) {
		refused = k.unlock(ctx, keys)
		return nil, refused
	}, nil)
	switch {
	case refused != nil:
		return nil, refused
	case errors.Is(err, pgperrors.ErrKeyIncorrect):
		return nil, errNoIdentity
	case err != nil || !message.IsEncrypted || message.DecryptedWith.Entity == nil:
		return nil, errKeyShape
	}
	if err := k.valid(message.DecryptedWith); err != nil {
		return nil, err
	}
	return readKey(message.UnverifiedBody)
}

// unlock makes one of the keys usable.
func (k *pgpKeys) unlock(ctx context.Context, keys []openpgp.Key) error {
	if len(keys) == 0 {
		return errNoIdentity // it is encrypted to a passphrase only
	}
	for _, key := range keys {
		id := fingerprint(key.Entity)
		passphrase, err := k.passphrases[key.Entity](ctx, id)
		if err != nil {
			return fmt.Errorf("passphrase of PGP key %s: %w", id, err)
		}
		if key.PrivateKey.Decrypt(passphrase) == nil {
			return nil
		}
	}
	return stages.Permanent(fmt.Errorf("the passphrase of PGP key %s is wrong", fingerprint(keys[0].Entity)))
}

// valid refuses keys that must not be used any more.
func (k *pgpKeys) valid(key openpgp.Key) error {
	if k.allowExpired {
		return nil
	}
	now, e := k.now(), key.Entity
	failure := &ExpiredKeyError{Fingerprint: fingerprint(e)}
	if e.Revoked(now) || key.Revoked(now) {
		return failure
	}
	expire := func(created time.Time, lifetime *uint32) {
		if lifetime == nil || *lifetime == 0 {
			return
		}
		at := created.Add(time.Duration(*lifetime) * time.Second)
		if now.After(at) && (failure.Expired.IsZero() || at.Before(failure.Expired)) {
			failure.Expired = at
		}
	}
	if sig, _ := e.PrimarySelfSignature(); sig != nil {
		expire(e.PrimaryKey.CreationTime, sig.KeyLifetimeSecs)
	}
	if key.SelfSignature != nil {
		expire(key.PublicKey.CreationTime, key.SelfSignature.KeyLifetimeSecs)
	}
	if failure.Expired.IsZero() {
		return nil
	}
	return failure
}
