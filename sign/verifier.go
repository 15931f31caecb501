package sign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/stages"
)

// VerifierConfig configures a [Verifier].
type VerifierConfig struct {
	// Keys are trusted; a signature by any one of them is enough. Required.
	Keys []*PublicKey
	// Registry reaches the images' repositories, required.
	Registry *registry.Client
	// Annotations are what a signature must say beside the digest, such as the
	// environment that it is for.
	Annotations map[string]string
}

// Verifier verifies signatures as "cosign verify --key" does, without a
// transparency log.
type Verifier struct {
	keys        []*PublicKey
	registry    *registry.Client
	annotations map[string]string
}

var _ stages.SignatureVerifier = (*Verifier)(nil)

// NewVerifier returns a verifier, or an error matching [stages.ErrInvalid].
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	switch {
	case len(cfg.Keys) == 0 || slices.Contains(cfg.Keys, nil):
		return nil, fmt.Errorf("%w: sign.VerifierConfig.Keys is required; see ParsePublicKey", stages.ErrInvalid)
	case cfg.Registry == nil:
		return nil, fmt.Errorf("%w: signatures are kept in registries, so a Registry is required; see registry.New", stages.ErrInvalid)
	}
	return &Verifier{keys: slices.Clone(cfg.Keys), registry: cfg.Registry, annotations: maps.Clone(cfg.Annotations)}, nil
}

// VerifySignature returns a signature of img by one of the keys. What doesn't
// verify gives an error matching [stages.ErrSignature] that says why; a registry
// that can't be read gives another error, since nothing is known then.
func (v *Verifier) VerifySignature(ctx context.Context, img stages.Image) (stages.Signature, error) {
	if img.IsZero() {
		return stages.Signature{}, fmt.Errorf("%w: there is no image to verify", stages.ErrInvalid)
	}
	tag := signatureTag(img)
	stored, err := v.registry.Resolve(ctx, tag)
	if errors.Is(err, registry.ErrNotFound) {
		return stages.Signature{}, fmt.Errorf("%w: %s is not signed: there is no %s; sign it with one of the keys %s", stages.ErrSignature, img, tag, v.keyIDs())
	}
	if err != nil {
		return stages.Signature{}, fmt.Errorf("verify the signature of %s: %w", img, err)
	}
	layers, err := v.layers(ctx, stored)
	if err != nil {
		return stages.Signature{}, fmt.Errorf("verify the signature of %s: %w", img, err)
	}
	c := &check{verifier: v, img: img, stored: stored, payloads: map[v1.Hash]payloadResult{}}
	for i, layer := range layers {
		key, why := c.layer(ctx, layer)
		if key != nil {
			return stages.Signature{Image: img, KeyID: key.ID(), Reference: stored.String()}, nil
		}
		c.refused = append(c.refused, fmt.Sprintf("signature %d: %s", i+1, why))
	}
	return stages.Signature{}, c.failure()
}

// layers returns the signatures stored in an image.
func (v *Verifier) layers(ctx context.Context, stored stages.Image) ([]v1.Descriptor, error) {
	content, _, err := v.registry.Manifest(ctx, stored)
	if err != nil {
		return nil, err
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(content, &manifest); err != nil {
		return nil, fmt.Errorf("%w: %s is not an image manifest", stages.ErrSignature, stored)
	}
	return manifest.Layers[:min(len(manifest.Layers), maxSignatures)], nil
}

func (v *Verifier) keyIDs() string {
	ids := make([]string, len(v.keys))
	for i, k := range v.keys {
		ids[i] = k.ID()
	}
	return strings.Join(ids, ", ")
}

// check is one verification under way.
type check struct {
	verifier    *Verifier
	img, stored stages.Image
	// payloads are kept because signatures of one image mostly share theirs.
	payloads map[v1.Hash]payloadResult
	// refused says for each signature why it doesn't count.
	refused []string
	// unread is the first failure that says nothing about a signature.
	unread error
}

type payloadResult struct {
	content []byte
	err     error
}

// layer returns the trusted key that made a signature, or why there is none.
func (c *check) layer(ctx context.Context, layer v1.Descriptor) (key *PublicKey, why string) {
	sig, why := signatureOf(layer)
	if why != "" {
		return nil, why
	}
	content, err := c.payload(ctx, layer)
	if err != nil {
		if c.unread == nil && (!stages.IsPermanent(err) || errors.Is(err, registry.ErrUnauthorized)) {
			c.unread = err
		}
		return nil, err.Error()
	}
	for _, k := range c.verifier.keys {
		if !k.verifies(sig, content) {
			continue
		}
		if why := checkPayload(content, c.img, c.verifier.annotations); why != "" {
			return nil, fmt.Sprintf("by key %s, but %s", k.ID(), why)
		}
		return k, ""
	}
	if _, ok := layer.Annotations[certificateAnnotation]; ok {
		return nil, "it was made with a certificate, and only keys are trusted here"
	}
	return nil, "it is by none of the trusted keys, or the payload was changed after signing"
}

func (c *check) payload(ctx context.Context, layer v1.Descriptor) ([]byte, error) {
	if known, ok := c.payloads[layer.Digest]; ok {
		return known.content, known.err
	}
	content, err := c.verifier.registry.Blob(ctx, c.stored, layer, maxPayload)
	c.payloads[layer.Digest] = payloadResult{content, err}
	return content, err
}

// failure says why no signature counts.
func (c *check) failure() error {
	if c.unread != nil {
		return fmt.Errorf("verify the signature of %s: %w", c.img, c.unread)
	}
	const shown = 5
	refused := c.refused
	if len(refused) == 0 {
		refused = []string{"it holds none"}
	}
	more := ""
	if len(refused) > shown {
		more = fmt.Sprintf("; and %d more", len(refused)-shown)
		refused = refused[:shown]
	}
	return fmt.Errorf("%w: no signature of %s in %s is by a trusted key (%s): %s%s; sign it with a trusted key, or trust the key that signed it",
		stages.ErrSignature, c.img, c.stored, c.verifier.keyIDs(), strings.Join(refused, "; "), more)
}
