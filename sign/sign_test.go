package sign_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"sync"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/sign"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func TestConformance(t *testing.T) {
	stagestest.TestSigner(t, func(t *testing.T) stagestest.SignerHarness {
		b, key := newBench(t), newKey(t)
		return stagestest.SignerHarness{
			Signer:   newSigner(t, b, key, nil),
			Verifier: newVerifier(t, b, key.Public()),
			Stranger: newVerifier(t, b, newKey(t).Public()),
			Image:    b.img,
		}
	})
}

func TestSignIsIdempotentAndKeepsOthers(t *testing.T) {
	ctx, b := context.Background(), newBench(t)
	first, second := newKey(t), newKey(t)
	a := newSigner(t, b, first, nil)
	assert.True(t, a.Idempotent())
	signed, err := a.Sign(ctx, b.img)
	require.NoError(t, err)
	again, err := a.Sign(ctx, b.img)
	require.NoError(t, err)
	assert.Equal(t, signed, again)
	assert.Equal(t, 1, b.count(t))
	assert.Equal(t, stages.Signature{Image: b.img, KeyID: first.Public().ID(), Reference: signed.Reference}, signed)
	assert.True(t, strings.HasPrefix(signed.Reference, b.img.Repository()+"@sha256:"))

	_, err = newSigner(t, b, second, nil).Sign(ctx, b.img)
	require.NoError(t, err)
	_, err = newSigner(t, b, first, map[string]string{"env": "prod"}).Sign(ctx, b.img)
	require.NoError(t, err)
	assert.Equal(t, 3, b.count(t))
	for _, key := range []*sign.PrivateKey{first, second} {
		found, err := newVerifier(t, b, key.Public()).VerifySignature(ctx, b.img)
		require.NoError(t, err)
		assert.Equal(t, key.Public().ID(), found.KeyID)
	}
	one, err := newVerifier(t, b, newKey(t).Public(), second.Public()).VerifySignature(ctx, b.img)
	require.NoError(t, err)
	assert.Equal(t, second.Public().ID(), one.KeyID)
}

func TestConcurrentSignersLoseNothing(t *testing.T) {
	b := newBench(t)
	keys := []*sign.PrivateKey{newKey(t), newKey(t), newKey(t)}
	var wg sync.WaitGroup
	for i := range 9 {
		wg.Go(func() {
			_, err := newSigner(t, b, keys[i%3], nil).Sign(context.Background(), b.img)
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	assert.Equal(t, 3, b.count(t))
}

func TestAnnotations(t *testing.T) {
	ctx, b, key := context.Background(), newBench(t), newKey(t)
	_, err := newSigner(t, b, key, map[string]string{"env": "staging"}).Sign(ctx, b.img)
	require.NoError(t, err)
	for want, ok := range map[string]bool{"staging": true, "prod": false} {
		v, err := sign.NewVerifier(sign.VerifierConfig{Keys: []*sign.PublicKey{key.Public()}, Registry: b.client, Annotations: map[string]string{"env": want}})
		require.NoError(t, err)
		_, err = v.VerifySignature(ctx, b.img)
		if ok {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, stages.ErrSignature)
		require.ErrorContains(t, err, "env=prod")
	}
}

func TestVerifyAcceptsOtherKeys(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		key  crypto.Signer
		opts []signature.LoadOption
	}{
		"RSA":                   {rsaKey, nil},
		"P-384 with SHA-256":    {p384, nil},
		"P-384 with SHA-384":    {p384, []signature.LoadOption{options.WithHash(crypto.SHA384)}},
		"Ed25519":               {edKey, nil},
		"Ed25519 of the digest": {edKey, []signature.LoadOption{options.WithED25519ph()}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			signIt, public := signerOf(t, tc.key, tc.opts...)
			content := b.claim(t, b.img.Digest().String())
			b.store(t, content, signatureAnnotation(signIt(content)))
			found, err := newVerifier(t, b, public).VerifySignature(context.Background(), b.img)
			require.NoError(t, err)
			assert.Equal(t, public.ID(), found.KeyID)
		})
	}
}

func TestNewRefuses(t *testing.T) {
	client, err := registry.New(registry.Config{})
	require.NoError(t, err)
	_, err = sign.NewSigner(sign.SignerConfig{Registry: client})
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = sign.NewSigner(sign.SignerConfig{Key: newKey(t)})
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = sign.NewVerifier(sign.VerifierConfig{Registry: client})
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = sign.NewVerifier(sign.VerifierConfig{Registry: client, Keys: []*sign.PublicKey{nil}})
	require.ErrorIs(t, err, stages.ErrInvalid)
}
