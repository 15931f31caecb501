package stagestest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// SignerHarness is a signer, with verifiers and images to try it on.
type SignerHarness struct {
	// Signer is the implementation.
	Signer stages.Signer
	// Verifier trusts the signer's key.
	Verifier stages.SignatureVerifier
	// Stranger trusts another key only.
	Stranger stages.SignatureVerifier
	// Image can be signed and is not signed yet.
	Image stages.Image
}

// TestSigner checks that an implementation keeps the contracts of
// [stages.Signer] and [stages.SignatureVerifier].
func TestSigner(t *testing.T, newHarness func(*testing.T) SignerHarness) {
	runChecks(t, newHarness, signerChecks)
}

var signerChecks = []check[SignerHarness]{
	{"signs the image it was given", func(t T, h SignerHarness) {
		sig, err := h.Signer.Sign(t.Context(), h.Image)
		require.NoError(t, err)
		assert.Equal(t, h.Image, sig.Image, "the signature must be about the image that was asked for")
		assert.NotEmpty(t, sig.KeyID, "the signature must name its key")
		assert.Contains(t, sig.Reference, "@sha256:", "the signature's location must be pinned")
	}},
	{"what is signed verifies", func(t T, h SignerHarness) {
		signed, err := h.Signer.Sign(t.Context(), h.Image)
		require.NoError(t, err)
		verified, err := h.Verifier.VerifySignature(t.Context(), h.Image)
		require.NoError(t, err)
		assert.Equal(t, h.Image, verified.Image)
		assert.Equal(t, signed.KeyID, verified.KeyID)
	}},
	{"signing again is harmless", func(t T, h SignerHarness) {
		for range 2 {
			_, err := h.Signer.Sign(t.Context(), h.Image)
			require.NoError(t, err)
		}
		_, err := h.Verifier.VerifySignature(t.Context(), h.Image)
		require.NoError(t, err)
	}},
	{"an unsigned image does not verify", func(t T, h SignerHarness) {
		requireUnsigned(t, h.Verifier, h.Image)
	}},
	{"another key's signature does not verify", func(t T, h SignerHarness) {
		_, err := h.Signer.Sign(t.Context(), h.Image)
		require.NoError(t, err)
		requireUnsigned(t, h.Stranger, h.Image)
	}},
	{"a signature is of one image only", func(t T, h SignerHarness) {
		_, err := h.Signer.Sign(t.Context(), h.Image)
		require.NoError(t, err)
		// Its neighbour, which differs in the digest alone and need not exist.
		neighbour, err := stages.ParseImage(fmt.Sprintf("%s@sha256:%x", h.Image.Repository(), sha256.Sum256([]byte(h.Image.String()))))
		require.NoError(t, err)
		requireUnsigned(t, h.Verifier, neighbour)
	}},
	{"refuses no image", func(t T, h SignerHarness) {
		_, err := h.Signer.Sign(t.Context(), stages.Image{})
		requireInvalid(t, err, "no image to sign")
		_, err = h.Verifier.VerifySignature(t.Context(), stages.Image{})
		requireInvalid(t, err, "no image to verify")
	}},
	{"stops when cancelled", func(t T, h SignerHarness) {
		requireCancelled(t, func(ctx context.Context) error {
			_, err := h.Signer.Sign(ctx, h.Image)
			return err
		})
		requireCancelled(t, func(ctx context.Context) error {
			_, err := h.Verifier.VerifySignature(ctx, h.Image)
			return err
		})
		requireUnsigned(t, h.Verifier, h.Image)
	}},
	{"is safe for concurrent use", func(t T, h SignerHarness) {
		require.NoError(t, inParallel(func() error {
			if _, err := h.Signer.Sign(t.Context(), h.Image); err != nil {
				return err
			}
			_, err := h.Verifier.VerifySignature(t.Context(), h.Image)
			return err
		}))
	}},
}

func requireUnsigned(t T, verifier stages.SignatureVerifier, img stages.Image) {
	sig, err := verifier.VerifySignature(t.Context(), img)
	require.Error(t, err)
	assert.ErrorIs(t, err, stages.ErrSignature)
	assert.True(t, stages.IsPermanent(err), "a retry doesn't make a signature verify")
	assert.True(t, sig.Image.IsZero(), "a failed verification must not return a signature")
}
