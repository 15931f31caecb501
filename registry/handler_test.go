package registry_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/registry"
)

// wire talks to a registry as the distribution specification has it.
type wire struct {
	t   testing.TB
	url string
	dir string
}

func newWire(t testing.TB) *wire {
	dir := t.TempDir()
	s := httptest.NewServer(registry.Handler(dir))
	t.Cleanup(s.Close)
	return &wire{t: t, url: s.URL, dir: dir}
}

type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request; headers are pairs.
func (w *wire) do(method, path, body string, headers ...string) answer {
	w.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = w.url + path
	}
	req, err := http.NewRequest(method, path, strings.NewReader(body))
	require.NoError(w.t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(w.t, err)
	content, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	require.NoError(w.t, resp.Body.Close())
	return answer{resp.StatusCode, resp.Header, string(content)}
}

func (w *wire) begin(repo string) (location string) {
	w.t.Helper()
	a := w.do("POST", "/v2/"+repo+"/blobs/uploads/", "")
	require.Equal(w.t, 202, a.status)
	return a.header.Get("Location")
}

func (w *wire) pushBlob(repo, content string) (digest string) {
	w.t.Helper()
	digest = sha(content)
	a := w.do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+digest, content)
	require.Equal(w.t, 201, a.status, a.body)
	return digest
}

func sha(content string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content))) }

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
)

// manifestOf refers to an empty configuration and whatever extra adds.
func manifestOf(extra string) string {
	return `{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":{"mediaType":"application/vnd.oci.empty.v1+json","size":2,"digest":"` + sha("{}") + `"},"layers":[]` + extra + `}`
}

func TestUploadInChunks(t *testing.T) {
	w := newWire(t)
	loc := w.begin("app")
	a := w.do("PATCH", loc, "0123456789", "Content-Range", "0-9")
	require.Equal(t, 202, a.status)
	assert.Equal(t, "0-9", a.header.Get("Range"))
	a = w.do("PATCH", loc, "again", "Content-Range", "0-4")
	require.Equal(t, 416, a.status)
	assert.Equal(t, "0-9", a.header.Get("Range"), "it says where to go on")
	a = w.do("GET", loc, "")
	require.Equal(t, 204, a.status)
	assert.Equal(t, "0-9", a.header.Get("Range"))
	require.Equal(t, 202, w.do("PATCH", loc, "abc").status, "streamed")
	digest := sha("0123456789abcdef")
	a = w.do("PUT", loc+"?digest="+digest, "def", "Content-Range", "13-15")
	require.Equal(t, 201, a.status)
	assert.Equal(t, digest, a.header.Get("Docker-Content-Digest"))
	assert.Equal(t, "0123456789abcdef", w.do("GET", a.header.Get("Location"), "").body)
	require.Equal(t, 404, w.do("PATCH", loc, "x").status, "a finished upload is gone")
}

func TestUploadRefusals(t *testing.T) {
	w := newWire(t)
	loc := w.begin("app")
	require.Equal(t, 202, w.do("PATCH", loc, "these bytes").status)
	require.Equal(t, 400, w.do("PUT", loc+"?digest=md5:00", "").status)
	a := w.do("PUT", loc+"?digest="+sha("other bytes"), "")
	require.Equal(t, 400, a.status)
	assert.Contains(t, a.body, "DIGEST_INVALID")
	require.Equal(t, 404, w.do("GET", loc, "").status)
	require.Equal(t, 400, w.do("POST", "/v2/app/blobs/uploads/?digest="+sha("x"), "y").status)

	loc = w.begin("app")
	require.Equal(t, 204, w.do("DELETE", loc, "").status)
	require.Equal(t, 404, w.do("PUT", loc+"?digest="+sha(""), "").status)
	require.Equal(t, 405, w.do("PUT", "/v2/app/blobs/uploads/", "").status)
	left, err := os.ReadDir(filepath.Join(w.dir, "uploads"))
	require.NoError(t, err)
	assert.Empty(t, left, "what was refused leaves nothing behind")
}

func TestMount(t *testing.T) {
	w := newWire(t)
	digest := w.pushBlob("one", "shared")
	a := w.do("POST", "/v2/two/blobs/uploads/?from=one&mount="+digest, "")
	require.Equal(t, 201, a.status)
	assert.Equal(t, "/v2/two/blobs/"+digest, a.header.Get("Location"))
	require.Equal(t, 202, w.do("POST", "/v2/two/blobs/uploads/?from=one&mount="+sha("not there"), "").status)
}

func TestBlobRanges(t *testing.T) {
	w := newWire(t)
	path := "/v2/app/blobs/" + w.pushBlob("app", "0123456789")
	for header, want := range map[string]string{"bytes=2-4": "234", "bytes=7-": "789", "bytes=-2": "89"} {
		a := w.do("GET", path, "", "Range", header)
		require.Equal(t, 206, a.status, header)
		assert.Equal(t, want, a.body)
	}
	require.Equal(t, 416, w.do("GET", path, "", "Range", "bytes=10-").status)
	a := w.do("HEAD", path, "")
	require.Equal(t, 200, a.status)
	assert.Equal(t, "10", a.header.Get("Content-Length"))
	require.Equal(t, 404, w.do("HEAD", "/v2/app/blobs/"+sha("none"), "").status)
	require.Equal(t, 405, w.do("DELETE", path, "").status, "other repositories may share it")
}

func TestManifestRefusals(t *testing.T) {
	w := newWire(t)
	w.pushBlob("app", "{}")
	good := manifestOf("")
	for name, tc := range map[string]struct {
		target, content, mediaType string
		status                     int
		code                       string
	}{
		"no JSON":               {"v1", "{", ociManifest, 400, "MANIFEST_INVALID"},
		"another media type":    {"v1", good, ociIndex, 400, "MANIFEST_INVALID"},
		"unknown media type":    {"v1", `{"schemaVersion":1}`, "application/json", 400, "MANIFEST_INVALID"},
		"no configuration":      {"v1", `{"mediaType":"` + ociManifest + `"}`, ociManifest, 400, "MANIFEST_INVALID"},
		"other digest":          {sha("other"), good, ociManifest, 400, "DIGEST_INVALID"},
		"other algorithm":       {"sha512:00", good, ociManifest, 400, "MANIFEST_INVALID"},
		"malformed tag":         {".v1", good, ociManifest, 400, "MANIFEST_INVALID"},
		"missing layer":         {"v1", strings.Replace(good, `"layers":[]`, `"layers":[{"mediaType":"application/x","size":1,"digest":"`+sha("no")+`"}]`, 1), ociManifest, 404, "MANIFEST_BLOB_UNKNOWN"},
		"missing platform":      {"v1", `{"mediaType":"` + ociIndex + `","manifests":[{"mediaType":"` + ociManifest + `","size":1,"digest":"` + sha("no") + `"}]}`, ociIndex, 404, "MANIFEST_BLOB_UNKNOWN"},
		"larger than permitted": {"v1", good + strings.Repeat(" ", 5<<20), ociManifest, 413, "SIZE_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &wire{t: t, url: w.url}
			a := w.do("PUT", "/v2/app/manifests/"+tc.target, tc.content, "Content-Type", tc.mediaType)
			assert.Equal(t, tc.status, a.status, a.body)
			assert.Contains(t, a.body, tc.code)
		})
	}
	require.Equal(t, 404, w.do("GET", "/v2/app/tags/list", "").status, "nothing was stored")
	require.Equal(t, 201, w.do("PUT", "/v2/app/manifests/"+sha(good), good).status, "the content tells its type")
}

func TestTruncatedManifestIsNotStored(t *testing.T) {
	w := newWire(t)
	w.pushBlob("app", "{}")
	req, err := http.NewRequest(http.MethodPut, w.url+"/v2/app/manifests/v1", io.MultiReader(strings.NewReader(manifestOf("")), broken{}))
	require.NoError(t, err)
	_, err = http.DefaultClient.Do(req)
	require.ErrorIs(t, err, errBroken)
	require.Equal(t, 404, w.do("GET", "/v2/app/manifests/v1", "").status)
}

var errBroken = fmt.Errorf("the client broke off")

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errBroken }

func TestReferrersAPI(t *testing.T) {
	w := newWire(t)
	w.pushBlob("app", "{}")
	subject := manifestOf("")
	list := func(query string) (digests []string, a answer) {
		a = w.do("GET", "/v2/app/referrers/"+sha(subject)+query, "")
		require.Equal(t, 200, a.status)
		require.Equal(t, ociIndex, a.header.Get("Content-Type"))
		var index struct {
			Manifests []struct{ Digest, ArtifactType string } `json:"manifests"`
		}
		require.NoError(t, json.Unmarshal([]byte(a.body), &index))
		for _, m := range index.Manifests {
			digests = append(digests, m.Digest)
		}
		return digests, a
	}
	none, a := list("")
	assert.Empty(t, none)
	assert.Contains(t, a.body, `"manifests":[]`)
	refer := func(extra string) string {
		m := manifestOf(`,"subject":{"mediaType":"` + ociManifest + `","size":1,"digest":"` + sha(subject) + `"}` + extra)
		a := w.do("PUT", "/v2/app/manifests/"+sha(m), m, "Content-Type", ociManifest)
		require.Equal(t, 201, a.status)
		require.Equal(t, sha(subject), a.header.Get("OCI-Subject"))
		return sha(m)
	}
	plain, typed := refer(""), refer(`,"artifactType":"application/vnd.example"`)
	all, _ := list("")
	assert.ElementsMatch(t, []string{plain, typed}, all)
	some, a := list("?artifactType=application/vnd.example")
	assert.Equal(t, []string{typed}, some)
	assert.Equal(t, "artifactType", a.header.Get("OCI-Filters-Applied"))
	fallback, _ := list("?artifactType=application/vnd.oci.empty.v1%2Bjson")
	assert.Equal(t, []string{plain}, fallback, "without a type of its own, the configuration's counts")
	require.Equal(t, 202, w.do("DELETE", "/v2/app/manifests/"+typed, "").status)
	rest, _ := list("")
	assert.Equal(t, []string{plain}, rest)
	require.Equal(t, 400, w.do("GET", "/v2/app/referrers/v1", "").status)
}

func TestTagsAndDeletion(t *testing.T) {
	w := newWire(t)
	w.pushBlob("app", "{}")
	m := manifestOf("")
	for _, tag := range []string{"a", "b", "c", "d"} {
		require.Equal(t, 201, w.do("PUT", "/v2/app/manifests/"+tag, m, "Content-Type", ociManifest).status)
	}
	a := w.do("GET", "/v2/app/tags/list?n=2", "")
	assert.JSONEq(t, `{"name":"app","tags":["a","b"]}`, a.body)
	next := strings.TrimPrefix(strings.Split(a.header.Get("Link"), ">")[0], "<")
	a = w.do("GET", next, "")
	assert.JSONEq(t, `{"name":"app","tags":["c","d"]}`, a.body)
	assert.Empty(t, a.header.Get("Link"))
	require.Equal(t, 400, w.do("GET", "/v2/app/tags/list?n=x", "").status)

	require.Equal(t, 202, w.do("DELETE", "/v2/app/manifests/a", "").status)
	require.Equal(t, 404, w.do("DELETE", "/v2/app/manifests/a", "").status)
	require.Equal(t, 200, w.do("GET", "/v2/app/manifests/"+sha(m), "").status)
	require.Equal(t, 202, w.do("DELETE", "/v2/app/manifests/"+sha(m), "").status)
	require.Equal(t, 404, w.do("GET", "/v2/app/manifests/b", "").status)
}

func TestPathsOutsideTheFolder(t *testing.T) {
	w := newWire(t)
	for _, path := range []string{
		"/", "/v1/", "/v2/app", "/v2/_tags/manifests/v1", "/v2/app/_manifests/tags/list", "/v2/App/manifests/v1",
		"/v2/..%2f..%2fetc/manifests/passwd", "/v2/a/%2e%2e/b/manifests/v1", "/v2/app/manifests/..%2f..%2fx", "/v2/app/blobs/sha256:..%2f..",
		"/v2//manifests/v1", "/v2/app/blobs/uploads/..%2fx",
	} {
		a := w.do("GET", path, "")
		assert.GreaterOrEqual(t, a.status, 400, path)
		assert.Less(t, a.status, 500, path)
	}
	require.Equal(t, 200, w.do("GET", "/v2/", "").status)
	require.Equal(t, 200, w.do("GET", "/v2", "").status)
	require.Equal(t, 200, w.do("GET", "/v2/_catalog", "").status)
}

func TestDiskTroubleIsNotToldToClients(t *testing.T) {
	w := newWire(t)
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, "uploads"), nil, 0o600))
	a := w.do("POST", "/v2/app/blobs/uploads/", "")
	require.Equal(t, 500, a.status)
	assert.NotContains(t, a.body, w.dir)
	assert.True(t, bytes.Contains([]byte(a.body), []byte("its log says why")))
}
