package helmx_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	helmregistry "helm.sh/helm/v3/pkg/registry"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// packaged returns the chart in dir as helm package makes it, and its file name.
func packaged(t *testing.T, dir string) (archive []byte, name string) {
	t.Helper()
	c, err := loader.LoadDir(dir)
	require.NoError(t, err)
	path, err := chartutil.Save(c, t.TempDir())
	require.NoError(t, err)
	archive, err = os.ReadFile(path)
	require.NoError(t, err)
	return archive, filepath.Base(path)
}

// entry is a member of a hand-made archive.
type entry struct {
	name, text string
	kind       byte
}

func tgz(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.text)), Typeflag: e.kind}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		} else {
			h.Linkname, h.Size = e.text, 0
		}
		require.NoError(t, w.WriteHeader(h))
		if h.Size > 0 {
			_, err := io.WriteString(w, e.text)
			require.NoError(t, err)
		}
	}
	require.NoError(t, errors.Join(w.Close(), zipped.Close()))
	return out.Bytes()
}

// ociServer is a registry that notes what it is asked for.
type ociServer struct {
	host string
	mu   sync.Mutex
	seen []string
	// tamper may change an answer.
	tamper func(path string, body []byte) []byte
	// password is asked for if set.
	password string
}

func newOCIServer(t *testing.T) *ociServer {
	t.Helper()
	s := &ociServer{}
	inner := registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Method+" "+r.URL.Path)
		tamper, password := s.tamper, s.password
		s.mu.Unlock()
		if _, given, _ := r.BasicAuth(); password != "" && given != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="charts"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if tamper == nil || r.Method != http.MethodGet {
			inner.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		inner.ServeHTTP(answer, r)
		for key, value := range answer.Header() {
			w.Header()[key] = value
		}
		body := tamper(r.URL.Path, answer.Body.Bytes())
		w.Header().Del("Content-Length")
		w.WriteHeader(answer.Code)
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	s.host = strings.TrimPrefix(server.URL, "http://")
	return s
}

func (s *ociServer) requests(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.seen {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

// push stores a chart with Helm's own client and returns its digest.
func (s *ociServer) push(t *testing.T, repository string, archive []byte, provenance []byte) string {
	t.Helper()
	c, err := loader.LoadArchive(bytes.NewReader(archive))
	require.NoError(t, err)
	return s.pushAs(t, repository+":"+c.Metadata.Version, archive, provenance)
}

// pushAs stores a chart under a tag of any name.
func (s *ociServer) pushAs(t *testing.T, reference string, archive []byte, provenance []byte) string {
	t.Helper()
	client, err := helmregistry.NewClient(helmregistry.ClientOptPlainHTTP(), helmregistry.ClientOptWriter(io.Discard),
		helmregistry.ClientOptCredentialsFile(filepath.Join(t.TempDir(), "none")))
	require.NoError(t, err)
	options := []helmregistry.PushOption{helmregistry.PushOptStrictMode(false)}
	if provenance != nil {
		options = append(options, helmregistry.PushOptProvData(provenance))
	}
	result, err := client.Push(archive, s.host+"/"+reference, options...)
	require.NoError(t, err)
	return result.Manifest.Digest
}

func ociConfig(t *testing.T, chart string) helmx.Config {
	t.Helper()
	cfg := digestConfig(newAPIServer(t, "shop"))
	cfg.Chart, cfg.ChartSource.PlainHTTP = chart, true
	return cfg
}

func openRemote(t *testing.T, cfg helmx.Config) (*helmx.Deployer, error) {
	t.Helper()
	d, err := helmx.Open(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { assert.NoError(t, d.Close()) })
	}
	return d, err
}

func TestOpenOCI(t *testing.T) {
	s := newOCIServer(t)
	archive, _ := packaged(t, "testdata/digest")
	digest := s.push(t, "charts/shop", archive, nil)
	base := "oci://" + s.host + "/charts/shop"
	for name, c := range map[string]struct {
		chart  string
		source helmx.ChartSource
	}{
		"tag":            {base + ":1.2.3", helmx.ChartSource{}},
		"version":        {base, helmx.ChartSource{Version: "1.2.3"}},
		"constraint":     {base, helmx.ChartSource{Version: "~1.2"}},
		"digest":         {base + "@" + digest, helmx.ChartSource{}},
		"tag and digest": {base + ":1.2.3@" + digest, helmx.ChartSource{}},
		"pinned":         {base + ":1.2.3", helmx.ChartSource{Digest: digest}},
		"digest alone":   {base, helmx.ChartSource{Digest: digest}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := ociConfig(t, c.chart)
			c.source.PlainHTTP = true
			cfg.ChartSource = c.source
			asked := ""
			cfg.ChartSource.Verify = func(_ context.Context, reference string) error { asked = reference; return nil }
			d, err := openRemote(t, cfg)
			require.NoError(t, err)
			assert.Equal(t, helmx.ChartInfo{Name: "shop", Version: "1.2.3", Digest: digest, Reference: s.host + "/charts/shop@" + digest}, d.Chart())
			assert.Equal(t, s.host+"/charts/shop@"+digest, asked)
			assert.Equal(t, 1, deploy(t, d, "run-1", "a").Revision)
		})
	}
}

// A reference that was given says which chart it is, whatever the repository and
// the tag are called.
func TestOpenOCIByAnotherName(t *testing.T) {
	s := newOCIServer(t)
	archive, _ := packaged(t, "testdata/digest")
	pinned := s.push(t, "vendor/shop-chart", archive, nil)
	s.pushAs(t, "vendor/v:v1.2.3", archive, nil)
	mirror, tagged := "oci://"+s.host+"/vendor/shop-chart", "oci://"+s.host+"/vendor/v"
	for name, c := range map[string]struct{ chart, version string }{
		"tag":                    {chart: mirror + ":1.2.3"},
		"digest":                 {chart: mirror + "@" + pinned},
		"version":                {chart: mirror, version: "1.2.3"},
		"constraint":             {chart: mirror, version: "~1.2"},
		"tag with v":             {chart: tagged + ":v1.2.3"},
		"tag with v and version": {chart: tagged + ":v1.2.3", version: "1.2.3"},
		"version with v":         {chart: tagged, version: "v1.2.3"},
		"constraint for v":       {chart: tagged, version: "~1.2"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := ociConfig(t, c.chart)
			cfg.ChartSource.Version = c.version
			d, err := openRemote(t, cfg)
			require.NoError(t, err)
			assert.Equal(t, "shop 1.2.3", d.Chart().Name+" "+d.Chart().Version)
		})
	}
}

func TestOpenOCIRefuses(t *testing.T) {
	s := newOCIServer(t)
	archive, _ := packaged(t, "testdata/digest")
	digest := s.push(t, "charts/shop", archive, nil)
	s.pushAs(t, "charts/other:1.3.0", archive, nil)
	base := "oci://" + s.host + "/charts/shop"
	wrong := "sha256:" + strings.Repeat("0", 64)
	for name, c := range map[string]struct {
		chart  string
		change func(*helmx.ChartSource)
		tamper func(string, []byte) []byte
		reason helmx.ChartReason
		want   string
	}{
		"no such version":   {chart: base + ":9.9.9", reason: helmx.ChartNotFound, want: "does not have it"},
		"nothing satisfies": {chart: base, change: func(c *helmx.ChartSource) { c.Version = ">2" }, reason: helmx.ChartNotFound, want: "none of the 1 versions"},
		"moved tag":         {chart: base + ":1.2.3@" + wrong, reason: helmx.ChartMoved, want: digest},
		"another version":   {chart: "oci://" + s.host + "/charts/other:1.3.0", change: func(c *helmx.ChartSource) { c.Version = "1.3.0" }, reason: helmx.ChartMoved, want: "holds chart shop 1.2.3"},
		"not signed":        {chart: base + ":1.2.3", change: func(c *helmx.ChartSource) { c.Keyring = testKeyring(t) }, reason: helmx.ChartUntrusted, want: "no provenance layer"},
		"verifier says no":  {chart: base + ":1.2.3", change: func(c *helmx.ChartSource) { c.Verify = func(context.Context, string) error { return errors.New("no") } }, reason: helmx.ChartUntrusted, want: "is not accepted"},
		"no credentials": {chart: base + ":1.2.3", change: func(c *helmx.ChartSource) {
			c.Credentials = func(context.Context, string) (helmx.Credentials, error) {
				return helmx.Credentials{}, errors.New("vault")
			}
		}, reason: helmx.ChartUnauthorized, want: "vault"},
		"tampered content":   {chart: base + ":1.2.3", tamper: onBlobs(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), reason: helmx.ChartMoved, want: "something else"},
		"cut content":        {chart: base + ":1.2.3", tamper: onBlobs(func(b []byte) []byte { return b[:len(b)/2] }), reason: helmx.ChartUnavailable},
		"endless content":    {chart: base + ":1.2.3", tamper: onBlobs(func(b []byte) []byte { return append(b, b...) }), reason: helmx.ChartMoved, want: "something else"},
		"tampered manifest":  {chart: base + ":1.2.3@" + digest, tamper: onManifests(func(b []byte) []byte { return append(b, ' ') })},
		"encrypted registry": {chart: base + ":1.2.3", change: func(c *helmx.ChartSource) { c.PlainHTTP = false }, reason: helmx.ChartUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := ociConfig(t, c.chart)
			if c.change != nil {
				c.change(&cfg.ChartSource)
			}
			if name == "no credentials" {
				s.setPassword("secret")
				defer s.setPassword("")
			}
			s.setTamper(c.tamper)
			defer s.setTamper(nil)
			_, err := openRemote(t, cfg)
			require.Error(t, err)
			failure, ok := errors.AsType[*helmx.ChartError](err)
			require.True(t, ok, "%v", err)
			if c.reason != "" {
				assert.Equal(t, c.reason, failure.Reason, "%v", err)
			}
			assert.ErrorContains(t, err, c.want)
			assert.Equal(t, failure.Reason != helmx.ChartUnavailable, errors.Is(err, stages.ErrInvalid), "%v", err)
			assert.Equal(t, failure.Reason == helmx.ChartUntrusted, errors.Is(err, stages.ErrSignature), "%v", err)
		})
	}
}

func (s *ociServer) setTamper(f func(string, []byte) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tamper = f
}

func (s *ociServer) setPassword(p string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.password = p
}

func onBlobs(f func([]byte) []byte) func(string, []byte) []byte {
	return on("/blobs/", f)
}

func onManifests(f func([]byte) []byte) func(string, []byte) []byte {
	return on("/manifests/", f)
}

func on(part string, f func([]byte) []byte) func(string, []byte) []byte {
	return func(path string, body []byte) []byte {
		if strings.Contains(path, part) {
			return f(bytes.Clone(body))
		}
		return body
	}
}

func TestOpenOCIAuthenticates(t *testing.T) {
	s := newOCIServer(t)
	archive, _ := packaged(t, "testdata/digest")
	s.push(t, "charts/shop", archive, nil)
	s.setPassword("secret-canary")
	cfg := ociConfig(t, "oci://"+s.host+"/charts/shop:1.2.3")
	_, err := openRemote(t, cfg)
	failure, ok := errors.AsType[*helmx.ChartError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, helmx.ChartUnauthorized, failure.Reason)

	var hosts []string
	cfg.ChartSource.Credentials = func(_ context.Context, host string) (helmx.Credentials, error) {
		hosts = append(hosts, host)
		return helmx.Credentials{Username: "u", Password: "secret-canary"}, nil
	}
	_, err = openRemote(t, cfg)
	require.NoError(t, err)
	assert.Equal(t, s.host, hosts[0])
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v", helmx.Credentials{Password: "secret-canary"}, cfg.ChartSource, helmx.Credentials{Password: "secret-canary"}), "canary")
}

func TestNewFetchesNothing(t *testing.T) {
	s := newOCIServer(t)
	_, err := helmx.New(ociConfig(t, "oci://"+s.host+"/charts/shop:1.2.3"))
	require.ErrorIs(t, err, stages.ErrInvalid)
	failure, ok := errors.AsType[*helmx.ChartError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, helmx.ChartOffline, failure.Reason)
	assert.Zero(t, s.requests(""))
}

// The answer may be there before the cancel is noticed.
func TestOpenIsCancelledAsTheAnswerComes(t *testing.T) {
	s := newOCIServer(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cfg := ociConfig(t, "oci://"+s.host+"/charts/shop:1.2.3")
	cfg.ChartSource.Transport = answering(func(req *http.Request) (*http.Response, error) {
		cancel(gone)
		return &http.Response{StatusCode: http.StatusNotFound, Body: http.NoBody, Request: req}, nil
	})
	_, err := helmx.Open(ctx, cfg)
	require.ErrorIs(t, err, gone)
	assert.NotErrorIs(t, err, stages.ErrInvalid)
}

type answering func(*http.Request) (*http.Response, error)

func (f answering) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestOpenStopsWithItsContext(t *testing.T) {
	s := newOCIServer(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	s.setTamper(func(_ string, body []byte) []byte { cancel(gone); <-ctx.Done(); return body })
	_, err := helmx.Open(ctx, ociConfig(t, "oci://"+s.host+"/charts/shop:1.2.3"))
	require.ErrorIs(t, err, gone)
	assert.NotErrorIs(t, err, stages.ErrInvalid)
}
