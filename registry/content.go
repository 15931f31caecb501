package registry

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// Manifest returns the manifest or index that img is, as bytes with its digest
// and with its media type.
func (c *Client) Manifest(ctx context.Context, img stages.Image) (content []byte, desc v1.Descriptor, err error) {
	target, err := c.digest(img)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	d, err := c.begin("read the manifest of "+img.String()).get(ctx, target)
	if err != nil {
		return nil, v1.Descriptor{}, err
	}
	return d.Manifest, d.Descriptor, nil
}

// Blob returns the content that desc describes, out of img's repository. It
// refuses content of more than limit bytes and content with another digest.
func (c *Client) Blob(ctx context.Context, img stages.Image, desc v1.Descriptor, limit int64) ([]byte, error) {
	target, err := c.digest(img)
	if err != nil {
		return nil, err
	}
	if _, err := stages.ParseDigest(desc.Digest.String()); err != nil {
		return nil, fmt.Errorf("read a blob of %s: %w", img, err)
	}
	r := c.begin(fmt.Sprintf("read blob %s of %s", desc.Digest, img))
	if err := r.started(ctx); err != nil {
		return nil, err
	}
	if desc.Size > limit {
		return nil, r.fail(ctx, fmt.Errorf("%w: it has %d bytes, no more than %d are accepted", errTooLarge, desc.Size, limit))
	}
	puller, err := r.puller()
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	layer, err := puller.Layer(ctx, target.Context().Digest(desc.Digest.String()))
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	body, err := layer.Compressed()
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	content, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, r.fail(ctx, err)
	}
	if int64(len(content)) > limit {
		return nil, r.fail(ctx, fmt.Errorf("%w: it has more than the %d bytes that are accepted", errTooLarge, limit))
	}
	return content, nil
}

// Update reads the image behind a tag, nil if there is none, and pushes what
// change makes of it under the same tag. If change returns the image that it
// was given, nothing is pushed. It returns the image that the tag then names.
//
// Updates of one tag by one client wait for each other. Registries offer no way
// to exclude those of others, so a caller that must not lose its change reads it
// back.
func (c *Client) Update(ctx context.Context, ref string, change func(current v1.Image) (v1.Image, error)) (stages.Image, error) {
	repo, tag, pinned, err := splitReference(ref)
	if err != nil {
		return stages.Image{}, err
	}
	if !pinned.IsZero() {
		return stages.Image{}, fmt.Errorf("%w: %s is pinned by digest and can't be changed", stages.ErrInvalid, pinned)
	}
	named, err := c.repository(repo)
	if err != nil {
		return stages.Image{}, err
	}
	r := c.begin("update " + ref)
	release, err := c.updates.lock(ctx, ref)
	if err != nil {
		return stages.Image{}, r.fail(ctx, err)
	}
	defer release()

	current, err := r.current(ctx, named.Tag(tag))
	if err != nil {
		return stages.Image{}, err
	}
	next, err := change(current)
	if err != nil {
		return stages.Image{}, err
	}
	digest, err := next.Digest()
	if err != nil {
		return stages.Image{}, r.fail(ctx, err)
	}
	if next == current {
		return pin(repo, digest)
	}
	pusher, err := r.pusher()
	if err != nil {
		return stages.Image{}, r.fail(ctx, err)
	}
	if err := pusher.Push(ctx, named.Tag(tag), next); err != nil {
		return stages.Image{}, r.fail(ctx, err)
	}
	return pin(repo, digest)
}

// current returns the image behind a tag, or nil.
func (r *request) current(ctx context.Context, tag name.Tag) (v1.Image, error) {
	desc, err := r.get(ctx, tag)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if desc.MediaType.IsIndex() {
		return nil, r.fail(ctx, fmt.Errorf("%w: the tag names an index, not an image", stages.ErrInvalid))
	}
	img, err := desc.Image()
	if err != nil {
		return nil, r.fail(ctx, err)
	}
	return img, nil
}
