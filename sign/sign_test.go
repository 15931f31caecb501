package sign_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/sign"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

const simpleSigning = types.MediaType("application/vnd.dev.cosign.simplesigning.v1+json")

// bench is a registry with an unsigned image.
type bench struct {
	client *registry.Client
	img    stages.Image
	// before, if set, sees every request and reports whether it answered it.
	before func(w http.ResponseWriter, r *http.Request) bool
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{}
	inner := registry.Handler(t.TempDir())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.before == nil || !b.before(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	client, err := registry.New(registry.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	b.client = client
	b.img = b.push(t, strings.TrimPrefix(s.URL, "http://")+"/team/app:v1")
	return b
}

func (b *bench) push(t testing.TB, ref string) stages.Image {
	t.Helper()
	made, err := random.Image(256, 1)
	require.NoError(t, err)
	img, err := b.client.Update(context.Background(), ref, func(v1.Image) (v1.Image, error) { return made, nil })
	require.NoError(t, err)
	return img
}

func (b *bench) tag() string {
	return b.img.Repository() + ":" + strings.Replace(b.img.Digest().String(), ":", "-", 1) + ".sig"
}

// store puts a signature where cosign keeps them, as it is given.
func (b *bench) store(t testing.TB, content []byte, annotations map[string]string) {
	t.Helper()
	_, err := b.client.Update(context.Background(), b.tag(), func(current v1.Image) (v1.Image, error) {
		if current == nil {
			current = mutate.MediaType(empty.Image, types.OCIManifestSchema1)
		}
		return mutate.Append(current, mutate.Addendum{Layer: static.NewLayer(content, simpleSigning), Annotations: annotations})
	})
	require.NoError(t, err)
}

func (b *bench) count(t testing.TB) int {
	t.Helper()
	ref, err := name.ParseReference(b.tag())
	require.NoError(t, err)
	img, err := remote.Image(ref)
	require.NoError(t, err)
	layers, err := img.Layers()
	require.NoError(t, err)
	return len(layers)
}

func (b *bench) claim(t testing.TB, digest string) []byte {
	t.Helper()
	content, err := json.Marshal(map[string]any{
		"critical": map[string]any{
			"identity": map[string]string{"docker-reference": b.img.Repository()},
			"image":    map[string]string{"docker-manifest-digest": digest},
			"type":     "cosign container image signature",
		},
		"optional": nil,
	})
	require.NoError(t, err)
	return content
}

func signatureAnnotation(sig []byte) map[string]string {
	return map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)}
}

// signerOf returns a way to sign anything, and the key that verifies it.
func signerOf(t testing.TB, key crypto.Signer, opts ...signature.LoadOption) (func([]byte) []byte, *sign.PublicKey) {
	t.Helper()
	raw, err := signature.LoadSignerWithOpts(key, opts...)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	public, err := sign.ParsePublicKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	require.NoError(t, err)
	return func(content []byte) []byte {
		sig, err := raw.SignMessage(bytes.NewReader(content))
		require.NoError(t, err)
		return sig
	}, public
}

func ecdsaKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// loadedKeys are shared, because deriving a key from a password takes a while.
var loadedKeys = sync.OnceValues(func() (keys [3]*sign.PrivateKey, err error) {
	for i := range keys {
		pair, err := sign.GenerateKeyPair([]byte(password))
		if err != nil {
			return keys, err
		}
		if keys[i], err = sign.LoadPrivateKey(pair.Private, []byte(password)); err != nil {
			return keys, err
		}
	}
	return keys, nil
})

func keys(t testing.TB) [3]*sign.PrivateKey {
	t.Helper()
	k, err := loadedKeys()
	require.NoError(t, err)
	return k
}

func newSigner(t testing.TB, b *bench, key *sign.PrivateKey, annotations map[string]string) *sign.Signer {
	t.Helper()
	s, err := sign.NewSigner(sign.SignerConfig{Key: key, Registry: b.client, Annotations: annotations})
	require.NoError(t, err)
	return s
}

func newVerifier(t testing.TB, b *bench, keys ...*sign.PublicKey) *sign.Verifier {
	t.Helper()
	v, err := sign.NewVerifier(sign.VerifierConfig{Keys: keys, Registry: b.client})
	require.NoError(t, err)
	return v
}

func TestConformance(t *testing.T) {
	stagestest.TestSigner(t, func(t *testing.T) stagestest.SignerHarness {
		b, key := newBench(t), keys(t)[0]
		return stagestest.SignerHarness{
			Signer:   newSigner(t, b, key, nil),
			Verifier: newVerifier(t, b, key.Public()),
			Stranger: newVerifier(t, b, keys(t)[1].Public()),
			Image:    b.img,
		}
	})
}

func TestSignIsIdempotentAndKeepsOthers(t *testing.T) {
	ctx, b := context.Background(), newBench(t)
	first, second := keys(t)[0], keys(t)[1]
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
	one, err := newVerifier(t, b, keys(t)[2].Public(), second.Public()).VerifySignature(ctx, b.img)
	require.NoError(t, err)
	assert.Equal(t, second.Public().ID(), one.KeyID)
}

func TestConcurrentSignersLoseNothing(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	for i := range 9 {
		wg.Go(func() {
			_, err := newSigner(t, b, keys(t)[i%3], nil).Sign(context.Background(), b.img)
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	assert.Equal(t, 3, b.count(t))
}

func TestAnnotations(t *testing.T) {
	ctx, b, key := context.Background(), newBench(t), keys(t)[0]
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

func TestVerifyRefuses(t *testing.T) {
	other := "sha256:" + strings.Repeat("ab", 32)
	for name, tc := range map[string]struct {
		store func(t *testing.T, b *bench, signIt func([]byte) []byte)
		want  string
	}{
		"unsigned": {func(*testing.T, *bench, func([]byte) []byte) {}, "is not signed"},
		"another digest": {func(t *testing.T, b *bench, signIt func([]byte) []byte) {
			content := b.claim(t, other)
			b.store(t, content, signatureAnnotation(signIt(content)))
		}, "about another digest"},
		"changed payload": {func(t *testing.T, b *bench, signIt func([]byte) []byte) {
			b.store(t, b.claim(t, b.img.Digest().String()), signatureAnnotation(signIt(b.claim(t, other))))
		}, "changed after signing"},
		"no claim": {func(t *testing.T, b *bench, signIt func([]byte) []byte) {
			b.store(t, []byte("not JSON"), signatureAnnotation(signIt([]byte("not JSON"))))
		}, "not a cosign claim"},
		"claim of another type": {func(t *testing.T, b *bench, signIt func([]byte) []byte) {
			content := bytes.Replace(b.claim(t, b.img.Digest().String()), []byte("cosign container"), []byte("another"), 1)
			b.store(t, content, signatureAnnotation(signIt(content)))
		}, "of type"},
		"no signature": {func(t *testing.T, b *bench, _ func([]byte) []byte) {
			b.store(t, b.claim(t, b.img.Digest().String()), nil)
		}, "it has no signature"},
		"no base64": {func(t *testing.T, b *bench, _ func([]byte) []byte) {
			b.store(t, b.claim(t, b.img.Digest().String()), map[string]string{"dev.cosignproject.cosign/signature": "***"})
		}, "not base64"},
		"certificate": {func(t *testing.T, b *bench, _ func([]byte) []byte) {
			content := b.claim(t, b.img.Digest().String())
			foreign, _ := signerOf(t, ecdsaKey(t))
			annotations := signatureAnnotation(foreign(content))
			annotations["dev.sigstore.cosign/certificate"] = string(certificate(t))
			b.store(t, content, annotations)
		}, "with a certificate"},
		"huge payload": {func(t *testing.T, b *bench, signIt func([]byte) []byte) {
			content := bytes.Repeat([]byte(" "), 1<<20)
			b.store(t, content, signatureAnnotation(signIt(content)))
		}, "too large"},
		"ordinary image under the tag": {func(t *testing.T, b *bench, _ func([]byte) []byte) {
			b.push(t, b.tag())
		}, "not a cosign signature"},
		"many": {func(t *testing.T, b *bench, _ func([]byte) []byte) {
			for i := range 7 {
				b.store(t, fmt.Appendf(nil, "%d", i), signatureAnnotation([]byte("x")))
			}
		}, "and 2 more"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			signIt, public := signerOf(t, ecdsaKey(t))
			tc.store(t, b, signIt)
			found, err := newVerifier(t, b, public).VerifySignature(context.Background(), b.img)
			require.ErrorIs(t, err, stages.ErrSignature)
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, public.ID())
			require.ErrorContains(t, err, b.img.String())
			assert.True(t, stages.IsPermanent(err))
			assert.Zero(t, found)
		})
	}
}

// TestRegistryTrouble: where the registry doesn't tell, nothing is known about
// the signature, so the error must not say that there is none.
func TestRegistryTrouble(t *testing.T) {
	for name, tc := range map[string]struct {
		answer    func(w http.ResponseWriter, r *http.Request)
		permanent bool
	}{
		"broken":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, false},
		"unauthorized": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, true},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
		}, false},
		"gone": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false},
	} {
		for _, path := range []string{"/manifests/sha256-", "/blobs/"} {
			t.Run(name+path, func(t *testing.T) {
				b, key := newBench(t), keys(t)[0]
				_, err := newSigner(t, b, key, nil).Sign(context.Background(), b.img)
				require.NoError(t, err)
				b.before = func(w http.ResponseWriter, r *http.Request) bool {
					if strings.Contains(r.URL.Path, path) {
						tc.answer(w, r)
						return true
					}
					return false
				}
				_, err = newVerifier(t, b, key.Public()).VerifySignature(context.Background(), b.img)
				require.Error(t, err)
				assert.NotErrorIs(t, err, stages.ErrSignature)
				assert.Equal(t, tc.permanent, stages.IsPermanent(err), err)
			})
		}
	}
}

func TestSignWhatIsNotThere(t *testing.T) {
	b := newBench(t)
	missing, err := stages.ParseImage(b.img.Repository() + "@sha256:" + strings.Repeat("0", 64))
	require.NoError(t, err)
	_, err = newSigner(t, b, keys(t)[0], nil).Sign(context.Background(), missing)
	require.ErrorIs(t, err, registry.ErrNotFound)
	assert.True(t, stages.IsPermanent(err))
}

// TestSignatureReplacedByAnotherWriter has somebody else overwrite the tag
// between writing and reading back, which only a retry can mend.
func TestSignatureReplacedByAnotherWriter(t *testing.T) {
	b := newBench(t)
	put := false
	b.before = func(w http.ResponseWriter, r *http.Request) bool {
		isTag := strings.Contains(r.URL.Path, "/manifests/sha256-")
		if isTag && r.Method == http.MethodPut {
			put = true
		} else if isTag && put {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	}
	s := newSigner(t, b, keys(t)[0], nil)
	_, err := s.Sign(context.Background(), b.img)
	require.ErrorContains(t, err, "another writer")
	assert.False(t, stages.IsPermanent(err))
	b.before = nil
	_, err = s.Sign(context.Background(), b.img)
	require.NoError(t, err)
}

func TestCancelWhileSigning(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("the run was stopped")
	b.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			cancel(cause)
			<-r.Context().Done()
			return true
		}
		return false
	}
	_, err := newSigner(t, b, keys(t)[0], nil).Sign(ctx, b.img)
	require.ErrorIs(t, err, cause)
}

func TestNewRefuses(t *testing.T) {
	client, err := registry.New(registry.Config{})
	require.NoError(t, err)
	_, err = sign.NewSigner(sign.SignerConfig{Registry: client})
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = sign.NewSigner(sign.SignerConfig{Key: keys(t)[0]})
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = sign.NewVerifier(sign.VerifierConfig{Registry: client})
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = sign.NewVerifier(sign.VerifierConfig{Registry: client, Keys: []*sign.PublicKey{nil}})
	require.ErrorIs(t, err, stages.ErrInvalid)
}
