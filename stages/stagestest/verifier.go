package stagestest

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// VerifierHarness is a verifier with releases to try it on.
type VerifierHarness struct {
	// Verifier is the implementation. If it is a [stages.RestoreVerifier], that
	// contract is checked too.
	Verifier stages.Verifier
	// Good is a release that runs.
	Good stages.Release
	// Bad is a release that never will.
	Bad stages.Release
}

// TestVerifier checks that an implementation keeps the contract of
// [stages.Verifier], and that of [stages.RestoreVerifier] if it has that ability.
func TestVerifier(t *testing.T, newHarness func(*testing.T) VerifierHarness) {
	runChecks(t, newHarness, verifierChecks)
}

var verifierChecks = []check[VerifierHarness]{
	{"a good release verifies", func(t T, h VerifierHarness) {
		v, err := h.Verifier.Verify(t.Context(), h.Good)
		require.NoError(t, err)
		assert.Equal(t, h.Good.Image, v.Image, "the verification must be about the released image")
		assert.NotEmpty(t, v.Checks, "a verification without checks proves nothing")
	}},
	{"a bad release fails with evidence", func(t T, h VerifierHarness) {
		v, err := h.Verifier.Verify(t.Context(), h.Bad)
		require.Error(t, err)
		assert.True(t, v.Image.IsZero(), "a failed verification must not name an image as verified")
		evidence := stages.EvidenceOf(err)
		require.NotEmpty(t, evidence, "the error must carry evidence")
		for _, e := range evidence {
			assert.NotEmpty(t, e.Subject, "evidence must name its subject")
			assert.NotEmpty(t, e.Reason, "evidence must name a reason")
		}
	}},
	{"a restored release verifies", verifiesRestored(func(t T, h VerifierHarness, v stages.RestoreVerifier) {
		for _, image := range []stages.Image{h.Good.Image, {}} {
			rel := h.Good
			rel.Image = image
			proof, err := v.VerifyRestored(t.Context(), rel)
			require.NoError(t, err)
			assert.Equal(t, image, proof.Image)
			assert.NotEmpty(t, proof.Checks, "a verification without checks proves nothing")
		}
	})},
	{"a restored release that doesn't run fails with evidence", verifiesRestored(func(t T, h VerifierHarness, v stages.RestoreVerifier) {
		_, err := v.VerifyRestored(t.Context(), h.Bad)
		require.Error(t, err)
		assert.NotEmpty(t, stages.EvidenceOf(err), "the error must carry evidence")
		_, err = v.VerifyRestored(t.Context(), stages.Release{})
		requireInvalid(t, err, "no release")
		requireCancelled(t, func(ctx context.Context) error {
			_, err := v.VerifyRestored(ctx, h.Good)
			return err
		})
	})},
	{"refuses no release", func(t T, h VerifierHarness) {
		_, err := h.Verifier.Verify(t.Context(), stages.Release{})
		requireInvalid(t, err, "no release")
	}},
	{"stops when cancelled", func(t T, h VerifierHarness) {
		requireCancelled(t, func(ctx context.Context) error {
			_, err := h.Verifier.Verify(ctx, h.Good)
			return err
		})
	}},
	{"is safe for concurrent use", func(t T, h VerifierHarness) {
		require.NoError(t, inParallel(func() error {
			v, err := h.Verifier.Verify(t.Context(), h.Good)
			if err == nil && v.Image != h.Good.Image {
				return fmt.Errorf("verified %q", v.Image)
			}
			return err
		}))
	}},
}

func verifiesRestored(run func(t T, h VerifierHarness, v stages.RestoreVerifier)) func(T, VerifierHarness) {
	return func(t T, h VerifierHarness) {
		if v, ok := h.Verifier.(stages.RestoreVerifier); ok {
			run(t, h, v)
		}
	}
}
