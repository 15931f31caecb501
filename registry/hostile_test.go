package registry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/stages"
)

const manifestJSON = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}`

// hostile serves every manifest request with answer, and says "here" to a ping.
func hostile(t testing.TB, answer http.HandlerFunc) (addr string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			w.WriteHeader(http.StatusOK)
			return
		}
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// write sends a body, as far as the client wants it.
func write(w http.ResponseWriter, body string) { _, _ = io.WriteString(w, body) }

func writef(w http.ResponseWriter, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format, args...)
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		write(w, body)
	}
}

func TestHostileRegistries(t *testing.T) {
	ociError := func(code, message string) string {
		return fmt.Sprintf(`{"errors":[{"code":%q,"message":"%s","detail":{"Authorization":"not repeated"}}]}`, code, message)
	}
	for name, tc := range map[string]struct {
		answer    http.HandlerFunc
		permanent bool
		is        error
		text      string
	}{
		"unauthorized":     {status(401, ociError("UNAUTHORIZED", "authentication required")), true, registry.ErrUnauthorized, "credentials"},
		"denied":           {status(403, ociError("DENIED", "requested access is denied")), true, registry.ErrUnauthorized, "right"},
		"not found":        {status(404, ociError("MANIFEST_UNKNOWN", "manifest unknown")), true, registry.ErrNotFound, "push it first"},
		"bad request":      {status(400, ociError("NAME_INVALID", "bad name")), true, nil, "bad name"},
		"too many":         {status(429, ociError("TOOMANYREQUESTS", "slow down")), false, nil, "slow down"},
		"too many by code": {status(403, ociError("TOOMANYREQUESTS", "slow down")), false, nil, "slow down"},
		"broken":           {status(500, "<html>stack trace</html>"), false, nil, "internal server error (HTTP 500)"},
		"unavailable":      {status(503, ""), false, nil, "HTTP 503"},
		"lying digest": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			write(w, manifestJSON)
		}, true, registry.ErrDigestMismatch, "does not match"},
		"giant manifest": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			chunk := bytes.Repeat([]byte(" "), 1<<20)
			for range 64 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, true, nil, "too large"},
		"truncated manifest": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4096")
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			write(w, manifestJSON)
		}, false, nil, "EOF"},
		"no manifest at all": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			write(w, "<html>log in to the wifi</html>")
		}, true, stages.ErrInvalid, "neither an image nor an index"},
		"redirect to plain HTTP elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://registry.example/v2/app/manifests/v1", http.StatusTemporaryRedirect)
		}, true, nil, "Config.Insecure"},
		"terminal escapes": {status(400, ociError("X", `\u001b[31mred`)), true, nil, "X: [31mred"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			addr := hostile(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); tc.answer(w, r) })
			_, err := newClient(t, registry.Config{}).Resolve(context.Background(), addr+"/app:v1")
			require.ErrorContains(t, err, tc.text)
			require.ErrorContains(t, err, "could not resolve "+addr+"/app:v1")
			assert.Equal(t, tc.permanent, stages.IsPermanent(err), err)
			if tc.is != nil {
				require.ErrorIs(t, err, tc.is)
			}
			assert.NotContains(t, err.Error(), "stack trace")
			assert.NotContains(t, err.Error(), "not repeated")
			assert.NotContains(t, err.Error(), "\x1b")
			assert.EqualValues(t, 1, asked.Load(), "the client must not retry by itself")
		})
	}
}

func TestRegistryDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	_, err = newClient(t, registry.Config{}).Resolve(context.Background(), addr+"/app:v1")
	require.ErrorContains(t, err, "connection refused")
	assert.False(t, stages.IsPermanent(err))
	_, ok := errors.AsType[*net.OpError](err)
	assert.True(t, ok)
}

func TestWrongContentByDigest(t *testing.T) {
	addr := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		write(w, manifestJSON)
	})
	img, err := stages.ParseImage(addr + "/app@sha256:" + strings.Repeat("ab", 32))
	require.NoError(t, err)
	_, _, err = newClient(t, registry.Config{}).Manifest(context.Background(), img)
	require.ErrorIs(t, err, registry.ErrDigestMismatch)
	assert.True(t, stages.IsPermanent(err))
}

func TestBlobIsBoundedAndVerified(t *testing.T) {
	ctx := context.Background()
	content := []byte("these are the bytes")
	good, _, err := v1.SHA256(bytes.NewReader(content))
	require.NoError(t, err)
	var send http.HandlerFunc
	addr := hostile(t, func(w http.ResponseWriter, r *http.Request) { send(w, r) })
	img, err := stages.ParseImage(addr + "/app@sha256:" + strings.Repeat("ab", 32))
	require.NoError(t, err)
	c := newClient(t, registry.Config{})

	send = status(200, string(content))
	got, err := c.Blob(ctx, img, v1.Descriptor{Digest: good, Size: int64(len(content))}, 100)
	require.NoError(t, err)
	assert.Equal(t, content, got)
	_, err = c.Blob(ctx, img, v1.Descriptor{Digest: good, Size: 101}, 100)
	require.ErrorContains(t, err, "101 bytes")
	_, err = c.Blob(ctx, img, v1.Descriptor{Digest: good, Size: 3}, 3)
	require.ErrorContains(t, err, "more than the 3 bytes")
	send = status(200, "other bytes")
	_, err = c.Blob(ctx, img, v1.Descriptor{Digest: good}, 100)
	require.ErrorContains(t, err, "checksum")
	send = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		write(w, "cut")
	}
	_, err = c.Blob(ctx, img, v1.Descriptor{Digest: good}, 2000)
	require.Error(t, err)
	assert.False(t, stages.IsPermanent(err))
}

func TestPlainHTTPOnlyWhereAllowed(t *testing.T) {
	plainOnly := func(addr string) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Scheme == "https" {
				return nil, errors.New("no TLS here")
			}
			r = r.Clone(r.Context())
			r.URL.Host = addr
			return http.DefaultTransport.RoundTrip(r)
		})
	}
	s := serve(t, registry.Options{})
	push(t, s.Addr()+"/app:v1")
	for _, host := range []string{"registry.example", "10.1.2.3:5000", "192.168.1.1"} {
		c := newClient(t, registry.Config{Transport: plainOnly(s.Addr())})
		_, err := c.Resolve(context.Background(), host+"/app:v1")
		require.Error(t, err, host)
		c = newClient(t, registry.Config{Transport: plainOnly(s.Addr()), Insecure: []string{strings.Split(host, ":")[0]}})
		_, err = c.Resolve(context.Background(), host+"/app:v1")
		require.NoError(t, err, host)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestNoSecretInErrors has a registry and its token service throw everything
// that they were told back at the client.
func TestNoSecretInErrors(t *testing.T) {
	const password, token = "canary-password-31337", "canary-token-31337"
	encoded := base64.StdEncoding.EncodeToString([]byte("robot:" + password))
	echo := func(r *http.Request) string {
		return fmt.Sprintf(`{"errors":[{"code":"%s","message":"%s","detail":"%s"}]}`,
			r.Header.Get("Authorization"), r.Header.Get("Authorization")+" "+password, password)
	}
	for name, handler := range map[string]http.HandlerFunc{
		"basic": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			write(w, echo(r))
		},
		"bearer refused": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				writef(w, `{"token":%q}`, token)
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			write(w, echo(r))
		},
		"token service without token": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				writef(w, `{"refresh_token":%q}`, token)
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		},
		"token service refuses": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				w.WriteHeader(http.StatusForbidden)
				write(w, echo(r))
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://user:%s@%s/token",service="x"`, token, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		},
		"signed redirect": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			http.Redirect(w, r, "https://127.0.0.1:1/blob?X-Signature="+token, http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(handler)
			t.Cleanup(s.Close)
			addr := strings.TrimPrefix(s.URL, "http://")
			auth, err := registry.Basic(addr, "robot", password)
			require.NoError(t, err)
			assert.NotContains(t, fmt.Sprintf("%v %+v %#v %s", auth, auth, auth, auth), password)
			_, err = newClient(t, registry.Config{Auth: auth}).Resolve(context.Background(), addr+"/app:v1")
			require.Error(t, err)
			for _, text := range chain(err) {
				for _, secret := range []string{password, token, encoded} {
					assert.NotContains(t, text, secret)
				}
			}
		})
	}
}

// chain returns the text of every error in err's tree, in every form.
func chain(err error) []string {
	texts := []string{err.Error(), fmt.Sprintf("%+v %#v", err, err)}
	if one, ok := err.(interface{ Unwrap() error }); ok && one.Unwrap() != nil {
		texts = append(texts, chain(one.Unwrap())...)
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, inner := range many.Unwrap() {
			texts = append(texts, chain(inner)...)
		}
	}
	return texts
}

func TestBasicOnlyForItsHost(t *testing.T) {
	const password = "canary-password-31337"
	var leaked atomic.Bool
	addr := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		leaked.Store(leaked.Load() || r.Header.Get("Authorization") != "")
		w.WriteHeader(http.StatusNotFound)
	})
	auth, err := registry.Basic("ghcr.io", "robot", password)
	require.NoError(t, err)
	_, err = newClient(t, registry.Config{Auth: auth}).Resolve(context.Background(), addr+"/app:v1")
	require.ErrorIs(t, err, registry.ErrNotFound)
	assert.False(t, leaked.Load())

	for _, bad := range [][3]string{{"https://ghcr.io", "u", password}, {"ghcr.io", "", password}, {"ghcr.io", "u", ""}} {
		_, err := registry.Basic(bad[0], bad[1], bad[2])
		require.ErrorIs(t, err, stages.ErrInvalid)
		assert.NotContains(t, err.Error(), password)
	}
}

func TestBasicLogsIn(t *testing.T) {
	inner := registry.Handler(t.TempDir())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "robot" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	addr := strings.TrimPrefix(s.URL, "http://")
	auth, err := registry.Basic(addr, "robot", "secret")
	require.NoError(t, err)
	_, err = newClient(t, registry.Config{Auth: auth}).Resolve(context.Background(), addr+"/app:v1")
	require.ErrorIs(t, err, registry.ErrNotFound)
	_, err = newClient(t, registry.Config{}).Resolve(context.Background(), addr+"/app:v1")
	require.ErrorIs(t, err, registry.ErrUnauthorized)
}

func FuzzResolve(f *testing.F) {
	for _, seed := range []string{
		"", "app", "localhost:5000/app:v1", "ghcr.io/a/b@sha256:" + strings.Repeat("a", 64), "u:p@h/x:1", "[::1]:5/a:b", "a.b/c:d@sha256:x", "https://x/y:z",
	} {
		f.Add(seed)
	}
	nowhere := roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("asked") })
	c, err := registry.New(registry.Config{Transport: nowhere})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, ref string) {
		img, err := c.Resolve(context.Background(), ref)
		require.Error(t, err)
		assert.True(t, img.IsZero())
		if !errors.Is(err, stages.ErrInvalid) {
			assert.ErrorContains(t, err, "could not resolve "+ref)
		}
	})
}

// TestEndlessConfigurationsAreRefused has a registry say that an image has a
// configuration without end, which would be read whole.
func TestEndlessConfigurationsAreRefused(t *testing.T) {
	for name, size := range map[string]string{"huge": "1099511627776", "of unknown size": "-1"} {
		for _, redirected := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, redirected %t", name, redirected), func(t *testing.T) {
				manifest := strings.Replace(manifestJSON, `"size":2`, `"size":`+size, 1)
				var read atomic.Int64
				addr := hostile(t, func(w http.ResponseWriter, r *http.Request) {
					switch {
					case strings.Contains(r.URL.Path, "/manifests/") && redirected:
						http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
						return
					case strings.Contains(r.URL.Path, "/manifests/"), r.URL.Path == "/elsewhere":
						w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
						write(w, manifest)
						return
					}
					chunk := bytes.Repeat([]byte(" "), 1<<20)
					for range 16 {
						n, err := w.Write(chunk)
						read.Add(int64(n))
						if err != nil {
							return
						}
					}
				})
				c := newClient(t, registry.Config{})
				_, err := c.Update(t.Context(), addr+"/app:v1", func(current v1.Image) (v1.Image, error) {
					_, err := current.ConfigFile()
					return current, err
				})
				require.ErrorContains(t, err, "the answer is too large")
				assert.True(t, stages.IsPermanent(err))

				img, err := stages.ParseImage(fmt.Sprintf("%s/app@sha256:%x", addr, sha256.Sum256([]byte(manifest))))
				require.NoError(t, err)
				dest := serve(t, registry.Options{})
				_, err = c.Copy(t.Context(), img, dest.Addr()+"/app", registry.CopyOptions{})
				require.ErrorContains(t, err, "the answer is too large")
				assert.Zero(t, read.Load())
			})
		}
	}
}

func TestAManifestIsCheckedWhereverItComesFrom(t *testing.T) {
	addr := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
		write(w, manifestJSON)
	})
	_, err := newClient(t, registry.Config{}).Resolve(t.Context(), addr+"/app:v1")
	require.ErrorIs(t, err, registry.ErrDigestMismatch)
}
