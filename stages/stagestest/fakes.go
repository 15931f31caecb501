package stagestest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Image returns an image whose digest is that of name, the same every time.
func Image(name string) stages.Image {
	sum := sha256.Sum256([]byte(name))
	img, err := stages.ParseImage("registry.example/fake/app@sha256:" + hex.EncodeToString(sum[:]))
	if err != nil {
		panic(err)
	}
	return img
}

// Builder is a fake that makes an image of the source's revision.
type Builder struct {
	// Err, if not nil, fails every build.
	Err error
}

// Build implements [stages.Builder].
func (b *Builder) Build(ctx context.Context, src stages.Source) (stages.Image, error) {
	if err := ready(ctx, b.Err); err != nil {
		return stages.Image{}, err
	}
	if err := src.Validate(); err != nil {
		return stages.Image{}, err
	}
	return Image(src.Revision), nil
}

// Scanner is a fake that finds what it is told to.
type Scanner struct {
	// Findings are reported for every image, ordered as a report demands.
	Findings []stages.Finding
	// Err, if not nil, fails every scan.
	Err error
}

// Scan implements [stages.Scanner].
func (s *Scanner) Scan(ctx context.Context, img stages.Image) (stages.Report, error) {
	if err := ready(ctx, s.Err); err != nil {
		return stages.Report{}, err
	}
	if err := requireImage(img); err != nil {
		return stages.Report{}, err
	}
	return stages.Report{
		Image: img, Scanner: "fake", Database: time.Unix(1_700_000_000, 0).UTC(),
		Packages: 1, Findings: s.Findings,
	}, nil
}

// Signer is a fake that remembers what it signed, and verifies it. Its zero
// value is ready to use.
type Signer struct {
	// Key names the key; signers with different keys don't trust each other.
	Key string
	// Store holds the signatures; signers that share one see each other's.
	Store *SignatureStore
	// Err, if not nil, fails every signing.
	Err error

	own SignatureStore
}

// SignatureStore is where fake signers keep signatures, in place of a registry.
type SignatureStore struct {
	mu     sync.Mutex
	signed map[stages.Image][]string
}

func (s *Signer) store() *SignatureStore {
	if s.Store != nil {
		return s.Store
	}
	return &s.own
}

func (s *Signer) signature(img stages.Image) stages.Signature {
	return stages.Signature{Image: img, KeyID: "key-" + s.Key, Reference: img.String()}
}

// Sign implements [stages.Signer].
func (s *Signer) Sign(ctx context.Context, img stages.Image) (stages.Signature, error) {
	if err := ready(ctx, s.Err); err != nil {
		return stages.Signature{}, err
	}
	if err := requireImage(img); err != nil {
		return stages.Signature{}, err
	}
	store := s.store()
	store.mu.Lock()
	defer store.mu.Unlock()
	if store.signed == nil {
		store.signed = make(map[stages.Image][]string)
	}
	store.signed[img] = append(store.signed[img], s.Key)
	return s.signature(img), nil
}

// VerifySignature implements [stages.SignatureVerifier].
func (s *Signer) VerifySignature(ctx context.Context, img stages.Image) (stages.Signature, error) {
	if err := ready(ctx, nil); err != nil {
		return stages.Signature{}, err
	}
	if err := requireImage(img); err != nil {
		return stages.Signature{}, err
	}
	store := s.store()
	store.mu.Lock()
	defer store.mu.Unlock()
	for _, key := range store.signed[img] {
		if key == s.Key {
			return s.signature(img), nil
		}
	}
	return stages.Signature{}, fmt.Errorf("%w: %s has no signature by key %q", stages.ErrSignature, img, s.Key)
}

// Verifier is a fake that verifies every release but those of one image.
type Verifier struct {
	// Bad is the image that does not start.
	Bad stages.Image
}

// Verify implements [stages.Verifier].
func (v *Verifier) Verify(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	if err := ready(ctx, nil); err != nil {
		return stages.Verification{}, err
	}
	if rel.Image.IsZero() {
		return stages.Verification{}, fmt.Errorf("%w: no release to verify", stages.ErrInvalid)
	}
	if rel.Image == v.Bad {
		return stages.Verification{}, stages.Permanent(&brokenRelease{rel})
	}
	return stages.Verification{Image: rel.Image, Checks: []stages.Check{{Name: "fake", Message: "runs"}}}, nil
}

// VerifyRestored implements [stages.RestoreVerifier].
func (v *Verifier) VerifyRestored(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	if rel.Name != "" && rel.Image.IsZero() {
		return stages.Verification{Checks: []stages.Check{{Name: "fake", Message: "runs"}}}, ready(ctx, nil)
	}
	return v.Verify(ctx, rel)
}

type brokenRelease struct{ rel stages.Release }

func (e *brokenRelease) Error() string {
	return fmt.Sprintf("release %s/%s does not start", e.rel.Namespace, e.rel.Name)
}

// Evidence implements [stages.Evidencer].
func (e *brokenRelease) Evidence() []stages.Evidence {
	return []stages.Evidence{{Subject: "pod " + e.rel.Namespace + "/" + e.rel.Name + "-0", Reason: "CrashLoopBackOff"}}
}

func ready(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func requireImage(img stages.Image) error {
	if img.IsZero() {
		return fmt.Errorf("%w: no image", stages.ErrInvalid)
	}
	return nil
}

var (
	_ stages.Builder           = (*Builder)(nil)
	_ stages.Scanner           = (*Scanner)(nil)
	_ stages.Signer            = (*Signer)(nil)
	_ stages.SignatureVerifier = (*Signer)(nil)
	_ stages.Verifier          = (*Verifier)(nil)
	_ stages.RestoreVerifier   = (*Verifier)(nil)
)
