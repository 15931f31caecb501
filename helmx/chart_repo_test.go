package helmx_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/repo"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// chartServer serves a folder as an HTTP chart repository.
type chartServer struct {
	url, dir string
	// handle answers instead of the folder where it returns true.
	handle func(http.ResponseWriter, *http.Request) bool
}

func newChartServer(t *testing.T) *chartServer {
	t.Helper()
	s := &chartServer{dir: t.TempDir()}
	files := http.FileServer(http.Dir(s.dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.handle == nil || !s.handle(w, r) {
			files.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// add stores a chart and makes the index as helm repo index does. It returns the
// digest.
func (s *chartServer) add(t *testing.T, archive []byte, name string) string {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), archive, 0o600))
	index, err := repo.IndexDirectory(s.dir, "")
	require.NoError(t, err)
	index.SortEntries()
	require.NoError(t, index.WriteFile(filepath.Join(s.dir, "index.yaml"), 0o600))
	return digest.FromBytes(archive).String()
}

func (s *chartServer) editIndex(t *testing.T, old, replacement string) {
	t.Helper()
	path := filepath.Join(s.dir, "index.yaml")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(data), old)
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(data), old, replacement, 1)), 0o600))
}

func repoConfig(t *testing.T, s *chartServer) helmx.Config {
	t.Helper()
	cfg := digestConfig(newAPIServer(t, "shop"))
	cfg.Chart, cfg.ChartSource = "shop", helmx.ChartSource{Repository: s.url, Version: "1.2.3", PlainHTTP: true}
	return cfg
}

func TestOpenRepository(t *testing.T) {
	s := newChartServer(t)
	archive, name := packaged(t, "testdata/digest")
	pinned := s.add(t, archive, name)
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, name+".prov"), signed(t, archive, name), 0o600))
	for what, change := range map[string]func(*helmx.ChartSource){
		"exact":      func(*helmx.ChartSource) {},
		"constraint": func(c *helmx.ChartSource) { c.Version = "^1" },
		"slash":      func(c *helmx.ChartSource) { c.Repository += "/" },
		"pinned":     func(c *helmx.ChartSource) { c.Digest = pinned },
		"signed":     func(c *helmx.ChartSource) { c.Keyring = testKeyring(t) },
	} {
		t.Run(what, func(t *testing.T) {
			cfg := repoConfig(t, s)
			change(&cfg.ChartSource)
			d, err := openRemote(t, cfg)
			require.NoError(t, err)
			assert.Equal(t, pinned, d.Chart().Digest)
			assert.Equal(t, s.url+"/"+name, d.Chart().Reference)
			assert.Equal(t, what == "signed", d.Chart().Signer != "")
			assert.Equal(t, 1, deploy(t, d, "run-1", "a").Revision)
		})
	}
}

func TestOpenRepositoryRefuses(t *testing.T) {
	archive, name := packaged(t, "testdata/digest")
	for what, c := range map[string]struct {
		meddle func(*testing.T, *chartServer)
		change func(*helmx.ChartSource)
		reason helmx.ChartReason
		want   string
	}{
		"tampered archive": {meddle: func(t *testing.T, s *chartServer) {
			t.Helper()
			require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), mustPackage(t), 0o600))
		}, reason: helmx.ChartMoved, want: "promised was"},
		"moved":        {change: func(c *helmx.ChartSource) { c.Digest = "sha256:" + strings.Repeat("0", 64) }, reason: helmx.ChartMoved, want: "to be used is"},
		"no version":   {change: func(c *helmx.ChartSource) { c.Version = "2.x" }, reason: helmx.ChartNotFound, want: `none of the 1 versions of chart "shop" satisfies "2.x"`},
		"no chart":     {meddle: func(t *testing.T, s *chartServer) { t.Helper(); s.editIndex(t, "  shop:", "  web:") }, reason: helmx.ChartNotFound, want: `no chart "shop"`},
		"no index":     {change: func(c *helmx.ChartSource) { c.Repository += "/nowhere" }, reason: helmx.ChartNotFound, want: "404"},
		"not an index": {meddle: func(t *testing.T, s *chartServer) { t.Helper(); s.editIndex(t, "apiVersion", "- [") }, reason: helmx.ChartMalformed, want: "not the index"},
		"no digest":    {meddle: func(t *testing.T, s *chartServer) { t.Helper(); s.editIndex(t, "    digest: ", "    ignored: ") }, reason: helmx.ChartUntrusted, want: "names no digest"},
		"not signed":   {change: func(c *helmx.ChartSource) { c.Keyring = testKeyring(t) }, reason: helmx.ChartUntrusted, want: "it is not signed"},
		"another's": {meddle: func(t *testing.T, s *chartServer) {
			t.Helper()
			s.editIndex(t, "    version: 1.2.3", "    version: 1.2.4")
		}, change: func(c *helmx.ChartSource) { c.Version = "1.2.4" }, reason: helmx.ChartMoved, want: "holds chart shop 1.2.3"},
		"a file": {meddle: func(t *testing.T, s *chartServer) {
			t.Helper()
			s.editIndex(t, "    - "+name, "    - file:///etc/passwd")
		}, reason: helmx.ChartMalformed, want: "is not a URL"},
		"down":      {meddle: func(_ *testing.T, s *chartServer) { s.handle = status(http.StatusBadGateway) }, reason: helmx.ChartUnavailable, want: "502"},
		"forbidden": {meddle: func(_ *testing.T, s *chartServer) { s.handle = status(http.StatusForbidden) }, reason: helmx.ChartUnauthorized, want: "403"},
		"round and round": {meddle: func(_ *testing.T, s *chartServer) {
			s.handle = func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
				return true
			}
		}, reason: helmx.ChartUnavailable, want: "redirected more than"},
		"endless": {meddle: func(_ *testing.T, s *chartServer) {
			s.handle = func(w http.ResponseWriter, _ *http.Request) bool {
				for chunk := make([]byte, 1<<20); ; {
					if _, err := w.Write(chunk); err != nil {
						return true
					}
				}
			}
		}, reason: helmx.ChartMalformed, want: "larger than 64 MiB"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newChartServer(t)
			s.add(t, archive, name)
			if c.meddle != nil {
				c.meddle(t, s)
			}
			cfg := repoConfig(t, s)
			if c.change != nil {
				c.change(&cfg.ChartSource)
			}
			_, err := openRemote(t, cfg)
			failure, ok := errors.AsType[*helmx.ChartError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, c.reason, failure.Reason, "%v", err)
			assert.ErrorContains(t, err, c.want)
		})
	}
}

// accepting is a [helmx.ChartSource.Verify] for one chart.
func accepting(only string) func(context.Context, string) error {
	return func(_ context.Context, reference string) error {
		if reference != only {
			return errors.New("no")
		}
		return nil
	}
}

// The indexes of repositories that have moved to a registry refer to it.
func TestOpenRepositoryThatRefersToOCI(t *testing.T) {
	oci := newOCIServer(t)
	archive, name := packaged(t, "testdata/digest")
	pinned := oci.push(t, "vendor/shop", archive, signed(t, archive, name))
	oci.push(t, "vendor/queue", dependencyChart(t, "queue", "1.2.3"), nil)
	at := "oci://" + oci.host + "/vendor/shop"
	wrong := "sha256:" + strings.Repeat("0", 64)
	for what, c := range map[string]struct {
		url string
		// digest is the index's line for it, unless empty.
		digest string
		change func(*helmx.ChartSource)
		reason helmx.ChartReason
		want   string
	}{
		"tag":            {url: at + ":1.2.3"},
		"no tag":         {url: at},
		"digest":         {url: at + "@" + pinned},
		"no digest":      {url: at + ":1.2.3", digest: "    ignored: "},
		"the manifest's": {url: at + ":1.2.3", digest: "    digest: " + pinned + " # "},
		"neither's":      {url: at + ":1.2.3", digest: "    digest: " + wrong + " # ", reason: helmx.ChartMoved, want: "promised was " + wrong},
		"constraint":     {url: at + ":1.2.3", change: func(c *helmx.ChartSource) { c.Version = "^1" }},
		"pinned":         {url: at + ":1.2.3", change: func(c *helmx.ChartSource) { c.Digest = pinned }},
		"signed":         {url: at + ":1.2.3", change: func(c *helmx.ChartSource) { c.Keyring = testKeyring(t) }},
		"accepted":       {url: at + ":1.2.3", change: func(c *helmx.ChartSource) { c.Verify = accepting(oci.host + "/vendor/shop@" + pinned) }},
		"not accepted":   {url: at + ":1.2.3", change: func(c *helmx.ChartSource) { c.Verify = accepting("") }, reason: helmx.ChartUntrusted, want: "is not accepted"},
		"not in it":      {url: name, change: func(c *helmx.ChartSource) { c.Verify = accepting("") }, reason: helmx.ChartUntrusted, want: "is not in an OCI registry"},
		"pinned to else": {url: at + ":1.2.3", change: func(c *helmx.ChartSource) { c.Digest = wrong }, reason: helmx.ChartMoved, want: "to be used is " + wrong},
		"two digests":    {url: at + "@" + pinned, change: func(c *helmx.ChartSource) { c.Digest = wrong }, reason: helmx.ChartMoved, want: "to be used is " + wrong},
		"another's":      {url: "oci://" + oci.host + "/vendor/queue:1.2.3", digest: "    ignored: ", reason: helmx.ChartMoved, want: "holds chart queue 1.2.3"},
		"other archive":  {url: "oci://" + oci.host + "/vendor/queue:1.2.3", reason: helmx.ChartMoved, want: "promised was"},
		"gone":           {url: at + ":1.2.4", reason: helmx.ChartNotFound, want: "does not have it"},
		"no URL":         {url: "oci://u:canary@", reason: helmx.ChartMalformed, want: "not of the form oci://"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newChartServer(t)
			s.add(t, archive, name)
			s.editIndex(t, "    - "+name, "    - "+c.url)
			if c.digest != "" {
				s.editIndex(t, "    digest: ", c.digest)
			}
			cfg := repoConfig(t, s)
			if c.change != nil {
				c.change(&cfg.ChartSource)
			}
			d, err := openRemote(t, cfg)
			if c.reason != "" {
				failure, ok := errors.AsType[*helmx.ChartError](err)
				require.True(t, ok, "%v", err)
				assert.Equal(t, c.reason, failure.Reason, "%v", err)
				assert.ErrorContains(t, err, c.want)
				assert.NotContains(t, err.Error(), "canary")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, pinned, d.Chart().Digest)
			assert.Equal(t, oci.host+"/vendor/shop@"+pinned, d.Chart().Reference)
			assert.Equal(t, what == "signed", d.Chart().Signer != "")
			assert.Equal(t, 1, deploy(t, d, "run-1", "a").Revision)
		})
	}
}

func status(code int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
}

// Credentials go to the host that they are for, and to no other that an index or
// a redirect names.
func TestRepositoryCredentialsStayHome(t *testing.T) {
	home, elsewhere := newChartServer(t), newChartServer(t)
	archive, name := packaged(t, "testdata/digest")
	home.add(t, archive, name)
	elsewhere.add(t, archive, name)
	leaked := false
	elsewhere.handle = func(_ http.ResponseWriter, r *http.Request) bool {
		leaked = leaked || r.Header.Get("Authorization") != ""
		return false
	}
	asked := 0
	home.handle = func(w http.ResponseWriter, r *http.Request) bool {
		if _, password, _ := r.BasicAuth(); password != "p" {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		asked++
		return false
	}
	home.editIndex(t, "    - "+name, "    - "+elsewhere.url+"/"+name)
	cfg := repoConfig(t, home)
	cfg.ChartSource.Credentials = func(_ context.Context, host string) (helmx.Credentials, error) {
		if "http://"+host == home.url {
			return helmx.Credentials{Username: "u", Password: "p"}, nil
		}
		return helmx.Credentials{}, nil
	}
	_, err := openRemote(t, cfg)
	require.NoError(t, err)
	assert.False(t, leaked)
	assert.Equal(t, 1, asked)

	// Another port of the same host is another server.
	home.add(t, archive, name)
	plain := home.handle
	home.handle = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, name) {
			http.Redirect(w, r, elsewhere.url+"/"+name, http.StatusFound)
			return true
		}
		return plain(w, r)
	}
	_, err = openRemote(t, cfg)
	require.NoError(t, err)
	assert.False(t, leaked)
}

// What is asked for over TLS is never got in plain text.
func TestRedirectToPlainHTTPIsRefused(t *testing.T) {
	plain := newChartServer(t)
	archive, name := packaged(t, "testdata/digest")
	plain.add(t, archive, name)
	asked := false
	plain.handle = func(http.ResponseWriter, *http.Request) bool { asked = true; return false }
	server := httptest.NewTLSServer(http.RedirectHandler(plain.url+"/index.yaml", http.StatusFound))
	defer server.Close()
	cfg := repoConfig(t, plain)
	cfg.ChartSource.Repository, cfg.ChartSource.PlainHTTP = server.URL, false
	cfg.ChartSource.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	_, err := openRemote(t, cfg)
	require.ErrorContains(t, err, "is not encrypted")
	assert.False(t, asked)
}

func TestChartSourceRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		chart  string
		source helmx.ChartSource
		want   string
	}{
		"plain http":      {"shop", helmx.ChartSource{Repository: "http://charts.example.com", Version: "1.0.0"}, "is not encrypted"},
		"password in URL": {"shop", helmx.ChartSource{Repository: "https://u:canary@charts.example.com", Version: "1.0.0"}, "take the credentials out"},
		"no URL":          {"shop", helmx.ChartSource{Repository: "charts", Version: "1.0.0"}, "is not a URL"},
		"a path":          {"a/b", helmx.ChartSource{Repository: "https://charts.example.com", Version: "1.0.0"}, "is not the name"},
		"which version":   {"shop", helmx.ChartSource{Repository: "https://charts.example.com"}, "Version is empty"},
		"nonsense":        {"shop", helmx.ChartSource{Repository: "https://charts.example.com", Version: "new!"}, "neither a version"},
		"URL of a chart":  {"https://u:canary@charts.example.com/shop.tgz", helmx.ChartSource{}, "give the URL of the repository"},
		"oci twice":       {"oci://charts.example.com/shop:1", helmx.ChartSource{Repository: "https://charts.example.com"}, "is complete"},
		"oci password":    {"oci://u:canary@charts.example.com/shop:1", helmx.ChartSource{}, "write oci://host/repository:version"},
		"oci passwords":   {"oci://u:canary@canary@charts.example.com/shop:1", helmx.ChartSource{}, "write oci://host/repository:version"},
		"oci and twice":   {"oci://u:ca/canary@charts.example.com/shop:1@sha256:00", helmx.ChartSource{Repository: "https://charts.example.com"}, "is complete"},
		"oci bad digest":  {"oci://charts.example.com/shop:1@sha256:00", helmx.ChartSource{}, "is not a digest"},
		"oci version":     {"oci://charts.example.com/shop", helmx.ChartSource{}, "name a version"},
		"oci two":         {"oci://charts.example.com/shop:1.0.0", helmx.ChartSource{Version: "1.0.1"}, "different versions"},
		"oci two with v":  {"oci://charts.example.com/shop:v1.0.0", helmx.ChartSource{Version: "1.0.1"}, "different versions"},
		"digest":          {"testdata/digest", helmx.ChartSource{Digest: "abc"}, "is not a digest"},
		"verify":          {"testdata/digest", helmx.ChartSource{Verify: func(context.Context, string) error { return nil }}, "is for charts from an OCI registry"},
		"CA":              {"testdata/digest", helmx.ChartSource{CA: []byte("x")}, "no PEM certificate"},
		"both":            {"testdata/digest", helmx.ChartSource{CA: []byte("x"), Transport: http.DefaultTransport}, "exclude each other"},
		"local version":   {"testdata/digest", helmx.ChartSource{Version: "9.0.0"}, "it is of version 1.2.3, wanted is 9.0.0"},
		"local digest":    {"testdata/digest", helmx.ChartSource{Digest: "sha256:" + strings.Repeat("0", 64)}, "its files are sha256:"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := digestConfig(newAPIServer(t))
			cfg.Chart, cfg.ChartSource = c.chart, c.source
			_, err := helmx.Open(t.Context(), cfg)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, c.want)
			assert.NotContains(t, fmt.Sprintf("%+v", err), "canary")
		})
	}
}

func TestChartFolderHasADigest(t *testing.T) {
	cfg := digestConfig(newAPIServer(t))
	first := open(t, cfg).Chart()
	assert.Equal(t, "testdata/digest", first.Reference)
	cfg.ChartSource.Digest = first.Digest
	assert.Equal(t, first, open(t, cfg).Chart())
}
