package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/stages"
)

func newClient(t testing.TB, cfg registry.Config) *registry.Client {
	t.Helper()
	c, err := registry.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

func digestOf(t testing.TB, d interface{ Digest() (v1.Hash, error) }) stages.Digest {
	t.Helper()
	h, err := d.Digest()
	require.NoError(t, err)
	return stages.Digest(h.String())
}

func TestResolveAndTag(t *testing.T) {
	ctx := context.Background()
	s := serve(t, registry.Options{})
	c := newClient(t, registry.Config{})
	first := push(t, s.Addr()+"/team/app:v1")

	img, err := c.Resolve(ctx, s.Addr()+"/team/app:v1")
	require.NoError(t, err)
	assert.Equal(t, digestOf(t, first), img.Digest())
	assert.Equal(t, s.Addr()+"/team/app", img.Repository())

	push(t, s.Addr()+"/team/app:v1") // the tag moves; what it was resolved to doesn't
	same, err := c.Resolve(ctx, img.String())
	require.NoError(t, err)
	assert.Equal(t, img, same)
	moved, err := c.Resolve(ctx, s.Addr()+"/team/app:v1")
	require.NoError(t, err)
	assert.NotEqual(t, img, moved)

	require.NoError(t, c.Tag(ctx, img, "stable", "2026.11"))
	require.NoError(t, c.Tag(ctx, img))
	for _, tag := range []string{"stable", "2026.11"} {
		tagged, err := c.Resolve(ctx, s.Addr()+"/team/app:"+tag)
		require.NoError(t, err)
		assert.Equal(t, img, tagged)
	}
}

func TestResolveIndex(t *testing.T) {
	ctx := context.Background()
	s := serve(t, registry.Options{})
	c := newClient(t, registry.Config{})
	idx, err := random.Index(64, 1, 2)
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(ref(t, s.Addr()+"/app:multi"), idx))
	img, err := c.Resolve(ctx, s.Addr()+"/app:multi")
	require.NoError(t, err)
	assert.Equal(t, digestOf(t, idx), img.Digest(), "the index, not one of its platforms")
	require.NoError(t, c.Tag(ctx, img, "again"))
}

func TestResolveRefusesMalformed(t *testing.T) {
	c := newClient(t, registry.Config{})
	for _, tc := range []struct{ ref, text string }{
		{"", "registry host"},
		{"nginx:1", "registry host"},
		{"localhost:5000/app", "neither a tag nor a digest"},
		{"localhost:5000/App:v1", "lower-case"},
		{"localhost:5000/app:", "tag"},
		{"localhost:5000/app@sha256:short", "64"},
		{"robot:hunter2@localhost:5000/app:v1", "Config.Auth"},
		{"https://robot:hunter2@localhost:5000/app:v1", "Config.Auth"},
	} {
		_, err := c.Resolve(context.Background(), tc.ref)
		require.ErrorIs(t, err, stages.ErrInvalid, tc.ref)
		require.ErrorContains(t, err, tc.text)
		assert.NotContains(t, err.Error(), "hunter2")
	}
}

func TestZeroAndMissingImages(t *testing.T) {
	ctx := context.Background()
	s := serve(t, registry.Options{})
	c := newClient(t, registry.Config{})
	missing, err := stages.ParseImage(s.Addr() + "/app@sha256:" + fmt.Sprintf("%064d", 1))
	require.NoError(t, err)
	for name, call := range map[string]func(context.Context, stages.Image) error{
		"Tag":  func(ctx context.Context, i stages.Image) error { return c.Tag(ctx, i, "v1") },
		"Head": func(ctx context.Context, i stages.Image) error { _, err := c.Head(ctx, i); return err },
		"Copy": func(ctx context.Context, i stages.Image) error {
			_, err := c.Copy(ctx, i, s.Addr()+"/b", registry.CopyOptions{})
			return err
		},
		"Attach": func(ctx context.Context, i stages.Image) error {
			_, err := c.Attach(ctx, i, registry.Artifact{Type: "a/b"})
			return err
		},
		"Manifest": func(ctx context.Context, i stages.Image) error { _, _, err := c.Manifest(ctx, i); return err },
		"Blob": func(ctx context.Context, i stages.Image) error {
			_, err := c.Blob(ctx, i, v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%064d", 2)}}, 1)
			return err
		},
		"Referrers": func(ctx context.Context, i stages.Image) error { _, err := c.Referrers(ctx, i, ""); return err },
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, call(ctx, stages.Image{}), stages.ErrInvalid)
			err := call(ctx, missing)
			if name == "Referrers" {
				require.NoError(t, err) // a subject need not exist
				return
			}
			require.ErrorIs(t, err, registry.ErrNotFound)
			assert.True(t, stages.IsPermanent(err))
			assert.ErrorContains(t, err, s.Addr())
			ended, cancel := context.WithCancelCause(context.Background())
			cause := errors.New("the run was stopped")
			cancel(cause)
			err = call(ended, missing)
			require.ErrorIs(t, err, cause)
			require.ErrorIs(t, err, context.Canceled)
		})
	}
	exists, err := c.Exists(ctx, missing)
	require.NoError(t, err)
	assert.False(t, exists)
}

func TestCopyTakesEverythingAlong(t *testing.T) {
	ctx := context.Background()
	from, to := serve(t, registry.Options{}), serve(t, registry.Options{})
	c := newClient(t, registry.Config{})
	idx, err := random.Index(512, 2, 2)
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(ref(t, from.Addr()+"/app:v1"), idx))
	img, err := c.Resolve(ctx, from.Addr()+"/app:v1")
	require.NoError(t, err)
	sbom, err := c.Attach(ctx, img, registry.Artifact{Type: "application/spdx+json", Files: []registry.File{{MediaType: "application/spdx+json", Content: []byte(`{}`)}}})
	require.NoError(t, err)
	_, err = c.Attach(ctx, sbom, registry.Artifact{Type: "application/vnd.example.signature", Annotations: map[string]string{"of": "sbom"}})
	require.NoError(t, err)
	sigTag := "sha256-" + img.Digest().String()[7:] + ".sig"
	push(t, from.Addr()+"/app:"+sigTag)

	for _, dest := range []string{to.Addr() + "/mirror/app", from.Addr() + "/other"} {
		for range 2 { // again is harmless
			copied, err := c.Copy(ctx, img, dest, registry.CopyOptions{Attached: true})
			require.NoError(t, err)
			assert.Equal(t, dest+"@"+img.Digest().String(), copied.String())
			pulled, err := remote.Index(ref(t, copied.String()))
			require.NoError(t, err)
			require.NoError(t, validate.Index(pulled))
			refs, err := c.Referrers(ctx, copied, "")
			require.NoError(t, err)
			require.Len(t, refs, 1)
			assert.Equal(t, sbom.Digest(), refs[0].Image.Digest())
			refs, err = c.Referrers(ctx, refs[0].Image, "")
			require.NoError(t, err)
			require.Len(t, refs, 1)
			_, err = c.Resolve(ctx, dest+":"+sigTag)
			require.NoError(t, err)
		}
	}
	other := push(t, to.Addr()+"/mirror/app:"+sigTag)
	_, err = c.Copy(ctx, img, to.Addr()+"/mirror/app", registry.CopyOptions{Attached: true})
	require.ErrorIs(t, err, stages.ErrInvalid)
	kept, err := c.Resolve(ctx, to.Addr()+"/mirror/app:"+sigTag)
	require.NoError(t, err)
	assert.Equal(t, digestOf(t, other), kept.Digest(), "signatures of others are not overwritten")
}

func TestAttachAndReferrers(t *testing.T) {
	ctx := context.Background()
	s := serve(t, registry.Options{})
	c := newClient(t, registry.Config{})
	push(t, s.Addr()+"/app:v1")
	img, err := c.Resolve(ctx, s.Addr()+"/app:v1")
	require.NoError(t, err)

	none, err := c.Referrers(ctx, img, "")
	require.NoError(t, err)
	assert.Empty(t, none)

	sbom := registry.Artifact{
		Type:        "application/spdx+json",
		Files:       []registry.File{{MediaType: "application/spdx+json", Content: []byte(`{"spdxVersion":"SPDX-2.3"}`)}},
		Annotations: map[string]string{"made.by": "test"},
	}
	attached, err := c.Attach(ctx, img, sbom)
	require.NoError(t, err)
	again, err := c.Attach(ctx, img, sbom)
	require.NoError(t, err)
	assert.Equal(t, attached, again)
	_, err = c.Attach(ctx, img, registry.Artifact{Type: "application/vnd.example.other"})
	require.NoError(t, err)

	all, err := c.Referrers(ctx, img, "")
	require.NoError(t, err)
	assert.Len(t, all, 2)
	found, err := c.Referrers(ctx, img, "application/spdx+json")
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Equal(t, registry.Referrer{Image: attached, Type: sbom.Type, Annotations: sbom.Annotations}, found[0])

	manifest, desc, err := c.Manifest(ctx, attached)
	require.NoError(t, err)
	assert.Equal(t, attached.Digest().String(), desc.Digest.String())
	assert.Contains(t, string(manifest), img.Digest().String())

	_, err = c.Attach(ctx, img, registry.Artifact{})
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func TestUpdateSerializesCallers(t *testing.T) {
	ctx := context.Background()
	s := serve(t, registry.Options{})
	c := newClient(t, registry.Config{})
	const callers = 8
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			_, err := c.Update(ctx, s.Addr()+"/app:shared", func(current v1.Image) (v1.Image, error) {
				if current == nil {
					current = empty.Image
				}
				return annotated(t, current, fmt.Sprint(i)), nil
			})
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	last, err := c.Update(ctx, s.Addr()+"/app:shared", func(current v1.Image) (v1.Image, error) {
		m, err := current.Manifest()
		require.NoError(t, err)
		assert.Len(t, m.Annotations, callers, "no update was lost")
		return current, nil
	})
	require.NoError(t, err)
	resolved, err := c.Resolve(ctx, s.Addr()+"/app:shared")
	require.NoError(t, err)
	assert.Equal(t, resolved, last)

	refused := errors.New("refused")
	_, err = c.Update(ctx, s.Addr()+"/app:shared", func(v1.Image) (v1.Image, error) { return nil, refused })
	require.ErrorIs(t, err, refused)
	_, err = c.Update(ctx, last.String(), func(v1.Image) (v1.Image, error) { return nil, refused })
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []registry.Config{
		{Insecure: []string{"http://host"}},
		{Insecure: []string{"host/path"}},
		{Insecure: []string{""}},
		{Insecure: []string{"user:hunter2@host"}},
		{UserAgent: "a\r\nAuthorization: x"},
	} {
		_, err := registry.New(cfg)
		require.ErrorIs(t, err, stages.ErrInvalid)
		assert.NotContains(t, err.Error(), "hunter2")
	}
	for _, host := range []string{"registry", "registry:5000", "10.0.0.1", "[fd00::1]:5000", "[fd00::1]"} {
		_, err := registry.New(registry.Config{Insecure: []string{host}})
		require.NoError(t, err, host)
	}
}
