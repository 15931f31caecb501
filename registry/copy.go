package registry

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fairlead-dev/fairlead/stages"
)

// CopyOptions say what [Client.Copy] takes along.
type CopyOptions struct {
	// Attached also copies what is attached to the image: its referrers and
	// theirs, and what cosign keeps under tags made from the digest.
	Attached bool
}

// Copy brings an image, with all platforms if it is an index, into another
// repository, in the same registry or another, and returns it there. Its digest
// stays. Copying again is harmless.
//
// With [CopyOptions.Attached], a tag of cosign's that the destination has with
// other content is not overwritten, since it may hold signatures of others: the
// copy then fails, with the image itself in place.
func (c *Client) Copy(ctx context.Context, img stages.Image, repository string, opts CopyOptions) (stages.Image, error) {
	source, err := c.digest(img)
	if err != nil {
		return stages.Image{}, err
	}
	dest, err := c.repository(repository)
	if err != nil {
		return stages.Image{}, err
	}
	copied, err := stages.ParseImage(repository + "@" + img.Digest().String())
	if err != nil {
		return stages.Image{}, err
	}
	r := c.begin(fmt.Sprintf("copy %s to %s", img, repository))
	if err := r.started(ctx); err != nil {
		return stages.Image{}, err
	}
	puller, err := r.puller()
	if err != nil {
		return stages.Image{}, r.fail(ctx, err)
	}
	pusher, err := r.pusher()
	if err != nil {
		return stages.Image{}, r.fail(ctx, err)
	}
	t := &transfer{request: r, puller: puller, pusher: pusher, source: source.Context(), dest: dest, seen: map[v1.Hash]bool{}}
	if err := t.manifest(ctx, source); err != nil {
		return stages.Image{}, r.fail(ctx, err)
	}
	if opts.Attached && t.source != t.dest {
		if err := t.attached(ctx, source); err != nil {
			return stages.Image{}, r.fail(ctx, err)
		}
	}
	return copied, nil
}

// transfer is one copy under way.
type transfer struct {
	*request
	puller       *remote.Puller
	pusher       *remote.Pusher
	source, dest name.Repository
	// seen are the manifests that were copied as attached to something.
	seen map[v1.Hash]bool
}

func (t *transfer) manifest(ctx context.Context, source name.Digest) error {
	desc, err := t.puller.Get(ctx, source)
	if err != nil {
		return err
	}
	return t.pusher.Push(ctx, t.dest.Digest(source.DigestStr()), desc)
}

// attached copies what refers to subject, and what refers to that.
func (t *transfer) attached(ctx context.Context, subject name.Digest) error {
	referrers, err := t.referrers(ctx, subject)
	if err != nil {
		return err
	}
	for _, desc := range referrers {
		if t.seen[desc.Digest] {
			continue
		}
		t.seen[desc.Digest] = true
		referrer := t.source.Digest(desc.Digest.String())
		if err := t.manifest(ctx, referrer); err != nil {
			return err
		}
		if err := t.attached(ctx, referrer); err != nil {
			return err
		}
	}
	for _, suffix := range []string{".sig", ".att", ".sbom"} {
		if err := t.tag(ctx, strings.Replace(subject.DigestStr(), ":", "-", 1)+suffix); err != nil {
			return err
		}
	}
	return nil
}

// tag copies a tag that the source may have, unless the destination has another.
func (t *transfer) tag(ctx context.Context, tag string) error {
	desc, err := t.puller.Get(ctx, t.source.Tag(tag))
	if notFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	there, err := t.puller.Head(ctx, t.dest.Tag(tag))
	switch {
	case notFound(err):
		return t.pusher.Push(ctx, t.dest.Tag(tag), desc)
	case err != nil:
		return err
	case there.Digest != desc.Digest:
		return fmt.Errorf("%w: %s exists with other content and is left as it is", stages.ErrInvalid, t.dest.Tag(tag))
	}
	return nil
}
