package sign_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
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
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/sign"
	"github.com/fairlead-dev/fairlead/stages"
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

func newKey(t testing.TB) *sign.PrivateKey {
	t.Helper()
	key, err := sign.NewPrivateKey(ecdsaKey(t))
	require.NoError(t, err)
	return key
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
