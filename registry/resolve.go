package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fairlead-dev/fairlead/stages"
)

// Resolve asks the registry once what ref names, and returns it pinned by the
// digest of the bytes that it answered with. A reference that is pinned already
// is checked to be there. The tag must be spelled out.
//
// What isn't there gives an error matching [ErrNotFound].
func (c *Client) Resolve(ctx context.Context, ref string) (stages.Image, error) {
	repo, tag, img, err := splitReference(ref)
	if err != nil {
		return stages.Image{}, err
	}
	named, err := c.repository(repo)
	if err != nil {
		return stages.Image{}, err
	}
	var target name.Reference = named.Tag(tag)
	if !img.IsZero() {
		target = named.Digest(img.Digest().String())
	}
	r := c.begin("resolve " + ref)
	desc, err := r.get(ctx, target)
	if err != nil {
		return stages.Image{}, err
	}
	return pin(repo, desc.Digest)
}

// Head describes img: its media type and size. It doesn't read the content.
func (c *Client) Head(ctx context.Context, img stages.Image) (v1.Descriptor, error) {
	target, err := c.digest(img)
	if err != nil {
		return v1.Descriptor{}, err
	}
	r := c.begin("look for " + img.String())
	if err := r.started(ctx); err != nil {
		return v1.Descriptor{}, err
	}
	puller, err := r.puller()
	if err != nil {
		return v1.Descriptor{}, r.fail(ctx, err)
	}
	desc, err := puller.Head(ctx, target)
	if err != nil {
		return v1.Descriptor{}, r.fail(ctx, err)
	}
	return *desc, nil
}

// Exists reports whether the registry has img. An error says that this could
// not be found out.
func (c *Client) Exists(ctx context.Context, img stages.Image) (bool, error) {
	_, err := c.Head(ctx, img)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Tag gives tags to an image that is in its repository, without uploading it
// again. Where it fails, some of the tags may have been set; setting them again
// is harmless.
func (c *Client) Tag(ctx context.Context, img stages.Image, tags ...string) error {
	target, err := c.digest(img)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if err := stages.ValidateTag(tag); err != nil {
			return fmt.Errorf("tag %s: %w", img, err)
		}
	}
	r := c.begin("tag " + img.String())
	desc, err := r.get(ctx, target)
	if err != nil {
		return err
	}
	pusher, err := r.pusher()
	if err != nil {
		return r.fail(ctx, err)
	}
	for _, tag := range tags {
		r.what = fmt.Sprintf("tag %s as %s", img, tag)
		if err := pusher.Put(ctx, target.Context().Tag(tag), desc); err != nil {
			return r.fail(ctx, err)
		}
	}
	return nil
}

// get reads the manifest behind a reference.
func (r *request) get(ctx context.Context, ref name.Reference) (*remote.Descriptor, error) {
	if err := r.started(ctx); err != nil {
		return nil, err
	}
	puller, err := r.puller()
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	desc, err := puller.Get(ctx, ref)
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	if !desc.MediaType.IsImage() && !desc.MediaType.IsIndex() {
		return nil, r.fail(ctx, fmt.Errorf("%w: the registry has something of type %.100q there, which is neither an image nor an index", stages.ErrInvalid, desc.MediaType))
	}
	return desc, nil
}

func pin(repo string, digest v1.Hash) (stages.Image, error) {
	return stages.ParseImage(repo + "@" + digest.String())
}
