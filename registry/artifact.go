package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fairlead-dev/fairlead/stages"
)

// Artifact is something that belongs to an image, such as an SBOM.
type Artifact struct {
	// Type is the media type that tells what it is, required.
	Type string
	// Files are its content; there may be none.
	Files []File
	// Annotations are for those who look for it.
	Annotations map[string]string
}

// File is one piece of an artifact's content.
type File struct {
	// MediaType is required.
	MediaType   string
	Content     []byte
	Annotations map[string]string
}

// Attach pushes an artifact whose subject is img, so that img's referrers list
// it, and returns the artifact. Attaching the same again changes nothing.
func (c *Client) Attach(ctx context.Context, img stages.Image, artifact Artifact) (stages.Image, error) {
	target, err := c.digest(img)
	if err != nil {
		return stages.Image{}, err
	}
	if artifact.Type == "" || slices.ContainsFunc(artifact.Files, func(f File) bool { return f.MediaType == "" }) {
		return stages.Image{}, fmt.Errorf("%w: an artifact for %s, and each of its files, needs a media type", stages.ErrInvalid, img)
	}
	r := c.begin(fmt.Sprintf("attach %s to %s", clean(artifact.Type), img))
	desc, err := r.get(ctx, target)
	if err != nil {
		return stages.Image{}, err
	}
	made, err := artifact.image(v1.Descriptor{MediaType: desc.MediaType, Size: desc.Size, Digest: desc.Digest})
	if err != nil {
		return stages.Image{}, r.fail(ctx, err)
	}
	digest, err := made.Digest()
	if err != nil {
		return stages.Image{}, r.fail(ctx, err)
	}
	pusher, err := r.pusher()
	if err != nil {
		return stages.Image{}, r.fail(ctx, err)
	}
	if err := pusher.Push(ctx, target.Context().Digest(digest.String()), made); err != nil {
		return stages.Image{}, r.fail(ctx, err)
	}
	return pin(img.Repository(), digest)
}

// Referrer is an artifact as a registry lists it. Only what is read by its
// Image is sure; the rest is the registry's word.
type Referrer struct {
	// Image is the artifact, in its subject's repository.
	Image stages.Image
	// Type is the artifact's media type.
	Type string
	// Annotations are the artifact's.
	Annotations map[string]string
}

// Referrers lists the artifacts whose subject is img, ordered by digest; only
// those of one type unless artifactType is empty. A registry without the
// referrers API is asked for the tag that stands in for it.
func (c *Client) Referrers(ctx context.Context, img stages.Image, artifactType string) ([]Referrer, error) {
	target, err := c.digest(img)
	if err != nil {
		return nil, err
	}
	r := c.begin("list the referrers of " + img.String())
	if err := r.started(ctx); err != nil {
		return nil, err
	}
	referrers, err := r.referrers(ctx, target)
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	var found []Referrer
	for _, desc := range referrers {
		if artifactType != "" && desc.ArtifactType != artifactType {
			continue
		}
		artifact, err := pin(img.Repository(), desc.Digest)
		if err != nil {
			return nil, r.fail(ctx, err)
		}
		found = append(found, Referrer{Image: artifact, Type: desc.ArtifactType, Annotations: desc.Annotations})
	}
	slices.SortFunc(found, func(a, b Referrer) int { return cmp.Compare(a.Image.Digest(), b.Image.Digest()) })
	return found, nil
}

func (r *request) referrers(ctx context.Context, subject name.Digest) ([]v1.Descriptor, error) {
	index, err := remote.Referrers(subject, append(slices.Clip(r.opts), remote.WithContext(ctx))...)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	return manifest.Manifests, nil
}

// emptyConfig is what the image specification has artifacts without a
// configuration point to.
var emptyConfig = file{v1.Descriptor{MediaType: "application/vnd.oci.empty.v1+json"}, []byte("{}")}

// image makes the manifest by which a registry stores the artifact.
func (a Artifact) image(subject v1.Descriptor) (v1.Image, error) {
	config, err := emptyConfig.described()
	if err != nil {
		return nil, err
	}
	made := &artifactImage{files: map[v1.Hash]file{config.desc.Digest: config}}
	manifest := v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  a.Type,
		Config:        config.desc,
		Subject:       &subject,
		Annotations:   a.Annotations,
	}
	for _, f := range a.Files {
		layer, err := file{v1.Descriptor{MediaType: types.MediaType(f.MediaType), Annotations: f.Annotations}, f.Content}.described()
		if err != nil {
			return nil, err
		}
		made.files[layer.desc.Digest] = layer
		manifest.Layers = append(manifest.Layers, layer.desc)
	}
	if len(a.Files) == 0 {
		// The specification wants at least one layer.
		manifest.Layers = []v1.Descriptor{config.desc}
	}
	if made.manifest, err = json.Marshal(manifest); err != nil {
		return nil, err
	}
	return partial.CompressedToImage(made)
}

// artifactImage implements [partial.CompressedImageCore].
type artifactImage struct {
	manifest []byte
	files    map[v1.Hash]file
}

// MediaType is that of every artifact's manifest.
func (a *artifactImage) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// RawManifest returns the manifest, whose digest is the artifact's.
func (a *artifactImage) RawManifest() ([]byte, error) { return a.manifest, nil }

// RawConfigFile returns the empty configuration.
func (a *artifactImage) RawConfigFile() ([]byte, error) { return emptyConfig.content, nil }

// LayerByDigest returns a file, or the empty configuration, which is pushed too.
func (a *artifactImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	return a.files[h], nil
}

// file implements [partial.CompressedLayer].
type file struct {
	desc    v1.Descriptor
	content []byte
}

func (f file) described() (file, error) {
	var err error
	f.desc.Digest, f.desc.Size, err = v1.SHA256(bytes.NewReader(f.content))
	return f, err
}

// Digest is that of the content.
func (f file) Digest() (v1.Hash, error) { return f.desc.Digest, nil }

// Size is that of the content, in bytes.
func (f file) Size() (int64, error) { return f.desc.Size, nil }

// MediaType is what the caller said the content is.
func (f file) MediaType() (types.MediaType, error) { return f.desc.MediaType, nil }

// Compressed returns the content as it is; whether it is compressed is not known.
func (f file) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(f.content)), nil
}
