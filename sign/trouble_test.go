package sign_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/stages"
)

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
		"broken":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, false},
		"unauthorized": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, true},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
		}, false},
		"gone": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false},
	} {
		for _, path := range []string{"/manifests/sha256-", "/blobs/"} {
			t.Run(name+path, func(t *testing.T) {
				b, key := newBench(t), newKey(t)
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
	_, err = newSigner(t, b, newKey(t), nil).Sign(context.Background(), missing)
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
	s := newSigner(t, b, newKey(t), nil)
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
	_, err := newSigner(t, b, newKey(t), nil).Sign(ctx, b.img)
	require.ErrorIs(t, err, cause)
}
