package stagestest

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// BuilderHarness is a builder with sources to try it on.
type BuilderHarness struct {
	// Builder is the implementation.
	Builder stages.Builder
	// Source builds.
	Source stages.Source
	// Broken is a source whose build fails however often it is tried. Its zero
	// value leaves that check out.
	Broken stages.Source
}

// TestBuilder checks that an implementation keeps the contract of
// [stages.Builder].
func TestBuilder(t *testing.T, newHarness func(*testing.T) BuilderHarness) {
	runChecks(t, newHarness, builderChecks)
}

var builderChecks = []check[BuilderHarness]{
	{"returns an image", func(t T, h BuilderHarness) {
		img, err := h.Builder.Build(t.Context(), h.Source)
		require.NoError(t, err)
		assert.False(t, img.IsZero(), "a build without error must return an image")
	}},
	{"building again is harmless", func(t T, h BuilderHarness) {
		first, err := h.Builder.Build(t.Context(), h.Source)
		require.NoError(t, err)
		second, err := h.Builder.Build(t.Context(), h.Source)
		require.NoError(t, err)
		assert.Equal(t, first.Repository(), second.Repository())
	}},
	{"refuses a source without a directory", func(t T, h BuilderHarness) {
		src := h.Source.Clone()
		src.Dir = ""
		_, err := h.Builder.Build(t.Context(), src)
		requireInvalid(t, err, "a source without a directory")
	}},
	{"refuses a malformed tag", func(t T, h BuilderHarness) {
		src := h.Source.Clone()
		src.Tags = []string{"not a tag"}
		_, err := h.Builder.Build(t.Context(), src)
		requireInvalid(t, err, "a malformed tag")
	}},
	{"stops when cancelled", func(t T, h BuilderHarness) {
		requireCancelled(t, func(ctx context.Context) error {
			_, err := h.Builder.Build(ctx, h.Source)
			return err
		})
	}},
	{"a broken source fails for good", func(t T, h BuilderHarness) {
		if h.Broken.Dir == "" {
			return
		}
		img, err := h.Builder.Build(t.Context(), h.Broken)
		require.Error(t, err)
		assert.True(t, img.IsZero(), "a failed build must not return an image")
		assert.True(t, stages.IsPermanent(err), "a source that can't build is not mended by a retry: %v", err)
	}},
	{"is safe for concurrent use", func(t T, h BuilderHarness) {
		require.NoError(t, inParallel(func() error {
			img, err := h.Builder.Build(t.Context(), h.Source)
			if err == nil && img.IsZero() {
				return errors.New("no image and no error")
			}
			return err
		}))
	}},
}
