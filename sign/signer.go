package sign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/stages"
)

// SignerConfig configures a [Signer].
type SignerConfig struct {
	// Key signs, required.
	Key *PrivateKey
	// Registry reaches the images' repositories and may write to them, required.
	Registry *registry.Client
	// Annotations are signed along with the digest, such as the commit. They are
	// public.
	Annotations map[string]string
}

// Signer signs images as "cosign sign --key" does.
type Signer struct {
	key         *PrivateKey
	registry    *registry.Client
	annotations map[string]string
	// own verifies what the signer itself signs.
	own *Verifier
}

var (
	_ stages.Signer            = (*Signer)(nil)
	_ stages.SignatureVerifier = (*Signer)(nil)
	_ stages.Idempotent        = (*Signer)(nil)
)

// NewSigner returns a signer, or an error matching [stages.ErrInvalid].
func NewSigner(cfg SignerConfig) (*Signer, error) {
	if cfg.Key == nil {
		return nil, fmt.Errorf("%w: sign.SignerConfig.Key is required; see LoadPrivateKey and FromEnv", stages.ErrInvalid)
	}
	own, err := NewVerifier(VerifierConfig{Keys: []*PublicKey{cfg.Key.Public()}, Registry: cfg.Registry, Annotations: cfg.Annotations})
	if err != nil {
		return nil, err
	}
	return &Signer{key: cfg.Key, registry: cfg.Registry, annotations: maps.Clone(cfg.Annotations), own: own}, nil
}

// Sign adds a signature of img to those that its repository has, unless the same
// key has made the same one before, and reads it back as a verifier would.
func (s *Signer) Sign(ctx context.Context, img stages.Image) (stages.Signature, error) {
	if img.IsZero() {
		return stages.Signature{}, fmt.Errorf("%w: there is no image to sign", stages.ErrInvalid)
	}
	content, err := newPayload(img, s.annotations)
	if err != nil {
		return stages.Signature{}, err
	}
	// A signature of what isn't there would be waiting for whoever pushes it.
	if _, err := s.registry.Head(ctx, img); err != nil {
		return stages.Signature{}, fmt.Errorf("sign %s: %w", img, err)
	}
	_, err = s.registry.Update(ctx, signatureTag(img), func(current v1.Image) (v1.Image, error) {
		if current != nil {
			if signed, err := holds(current, s.key.Public(), content); signed || err != nil {
				return current, err
			}
		}
		sig, err := s.key.signer.SignMessage(bytes.NewReader(content), options.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		return withSignature(current, content, sig)
	})
	if err != nil {
		return stages.Signature{}, fmt.Errorf("sign %s: %w", img, err)
	}
	signed, err := s.own.VerifySignature(ctx, img)
	if errors.Is(err, stages.ErrSignature) {
		// Not of that class: it was written, so trying again can mend it.
		return stages.Signature{}, fmt.Errorf("sign %s: the signature was written but is not there when read back; another writer may have replaced it: %s", img, err.Error())
	}
	if err != nil {
		return stages.Signature{}, fmt.Errorf("sign %s: read back: %w", img, err)
	}
	return signed, nil
}

// VerifySignature returns the signature that this signer made of img.
func (s *Signer) VerifySignature(ctx context.Context, img stages.Image) (stages.Signature, error) {
	return s.own.VerifySignature(ctx, img)
}

// Idempotent reports that signing again changes nothing.
func (s *Signer) Idempotent() bool { return true }
