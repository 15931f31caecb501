package trivy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"

	"github.com/fairlead-dev/fairlead/stages"
)

// errContent is a layer that is not what the image's configuration says.
var errContent = errors.New("content does not match its digest")

// maxConfig bounds an image's configuration, in bytes.
const maxConfig = 32 << 20

// pinnedImage is what Trivy reads an image through. Trivy takes a registry's word
// for a layer's content; this compares each layer with its digest while it is
// read, and remembers which ones held.
type pinnedImage struct {
	v1.Image
	image    stages.Image
	configID string

	mu       sync.Mutex
	verified map[string]bool
}

var _ ftypes.Image = (*pinnedImage)(nil)

// open reads manifest and configuration of image. Both are verified by the
// registry client, because they are asked for by digest.
func (s *Scanner) open(ctx context.Context, image stages.Image) (*pinnedImage, error) {
	ref, err := s.cfg.parse(image.String())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", stages.ErrInvalid, err)
	}
	desc, err := remote.Get(ref, append(s.remoteOptions(ctx), remote.WithPlatform(s.cfg.platform))...)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", classify(err))
	}
	if desc.Digest.String() != image.Digest().String() {
		return nil, fmt.Errorf("%w: the registry answered with %s", stages.ErrSubjectMismatch, desc.Digest)
	}
	if err := s.requireOnePlatform(desc); err != nil {
		return nil, err
	}
	img, err := desc.Image()
	if err != nil {
		return nil, fmt.Errorf("read manifest for %s: %w", s.cfg.platform.String(), classify(err))
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", classify(err))
	}
	// It is read whole, as far as the manifest says that it goes.
	if size := manifest.Config.Size; size < 0 || size > maxConfig {
		return nil, stages.Permanent(fmt.Errorf("the image's configuration has %d bytes, no more than %d are accepted", size, maxConfig))
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", classify(err))
	}
	if len(manifest.Layers) != len(config.RootFS.DiffIDs) {
		return nil, stages.Permanent(fmt.Errorf("the manifest has %d layers, the configuration names %d, so some could not be scanned",
			len(manifest.Layers), len(config.RootFS.DiffIDs)))
	}
	return &pinnedImage{
		Image: img, image: image, configID: manifest.Config.Digest.String(),
		verified: make(map[string]bool),
	}, nil
}

// requireOnePlatform refuses an index for several platforms, unless the
// configuration has chosen one.
func (s *Scanner) requireOnePlatform(desc *remote.Descriptor) error {
	if s.cfg.chosen || !desc.MediaType.IsIndex() {
		return nil
	}
	index, err := desc.ImageIndex()
	if err != nil {
		return fmt.Errorf("read index: %w", classify(err))
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return fmt.Errorf("read index: %w", classify(err))
	}
	var platforms []string
	for _, m := range manifest.Manifests {
		// An attestation has no platform, or "unknown".
		if m.MediaType.IsImage() && m.Platform != nil && m.Platform.OS != "unknown" {
			platforms = append(platforms, m.Platform.String())
		}
	}
	if len(platforms) > 1 {
		return fmt.Errorf("%w: the image is for %s, and a scan is of one of them: name it with Config.Platform, and deliver an image for that platform only",
			stages.ErrInvalid, strings.Join(platforms, ", "))
	}
	return nil
}

func (p *pinnedImage) Name() string          { return p.image.String() }
func (p *pinnedImage) ID() (string, error)   { return p.configID, nil }
func (p *pinnedImage) RepoTags() []string    { return nil }
func (p *pinnedImage) RepoDigests() []string { return []string{p.image.String()} }

// LayerByDiffID returns the layer with verification wrapped around its content.
func (p *pinnedImage) LayerByDiffID(diffID v1.Hash) (v1.Layer, error) {
	layer, err := p.Image.LayerByDiffID(diffID)
	if err != nil {
		return nil, err
	}
	return &pinnedLayer{Layer: layer, diffID: diffID, image: p}, nil
}

func (p *pinnedImage) isVerified(diffID string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.verified[diffID]
}

type pinnedLayer struct {
	v1.Layer
	diffID v1.Hash
	image  *pinnedImage
}

func (l *pinnedLayer) Uncompressed() (io.ReadCloser, error) {
	rc, err := l.Layer.Uncompressed()
	if err != nil {
		return nil, classify(err)
	}
	return &verifyingReader{ReadCloser: rc, layer: l, hash: sha256.New()}, nil
}

type verifyingReader struct {
	io.ReadCloser
	layer *pinnedLayer
	hash  hash.Hash
}

func (r *verifyingReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	r.hash.Write(b[:n])
	if errors.Is(err, io.EOF) {
		want := r.layer.diffID
		if hex.EncodeToString(r.hash.Sum(nil)) != want.Hex || want.Algorithm != "sha256" {
			return n, fmt.Errorf("layer %s: %w", want, errContent)
		}
		r.layer.image.mu.Lock()
		r.layer.image.verified[want.String()] = true
		r.layer.image.mu.Unlock()
	}
	return n, err
}
