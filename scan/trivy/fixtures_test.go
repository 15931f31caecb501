package trivy_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"log" //nolint:depguard // the registry wants one to write nothing to
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/fairlead-dev/fairlead/scan/trivy"
	"github.com/fairlead-dev/fairlead/stages"
)

// testRegistry is a real registry in this process that counts what is asked of it
// and can be told to behave badly.
type testRegistry struct {
	*httptest.Server
	host string

	mu        sync.Mutex
	requests  []string
	intercept func(w http.ResponseWriter, r *http.Request) (answered bool)
}

func newRegistry(t *testing.T) *testRegistry {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	r := &testRegistry{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, req.Method+" "+req.URL.Path)
		intercept := r.intercept
		r.mu.Unlock()
		if intercept == nil || !intercept(w, req) {
			inner.ServeHTTP(w, req)
		}
	}))
	t.Cleanup(r.Close)
	r.host = strings.TrimPrefix(r.URL, "http://")
	return r
}

func (r *testRegistry) misbehave(f func(w http.ResponseWriter, r *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.intercept = f
}

// count returns how many requests there were whose line contains all parts.
func (r *testRegistry) count(parts ...string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
next:
	for _, line := range r.requests {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		n++
	}
	return n
}

func (r *testRegistry) push(t *testing.T, repository string, img v1.Image) stages.Image {
	t.Helper()
	ref, err := name.ParseReference(r.host + "/" + repository + ":latest")
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, img))
	digest, err := img.Digest()
	require.NoError(t, err)
	return pinned(t, r.host+"/"+repository, digest)
}

func pinned(t *testing.T, repository string, digest v1.Hash) stages.Image {
	t.Helper()
	image, err := stages.ParseImage(repository + "@" + digest.String())
	require.NoError(t, err)
	return image
}

// files is the content of a layer, path to text.
type files map[string]string

var (
	debian = files{
		"etc/os-release":      "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
		"etc/debian_version":  "12.5\n",
		"var/lib/dpkg/status": dpkg("libc6", "glibc", "2.36-9+deb12u2") + dpkg("bash", "bash", "5.2.15-2+b2"),
	}
	node = files{"app/node_modules/lodash/package.json": `{"name":"lodash","version":"4.17.4","license":"MIT"}`}
)

func dpkg(pkg, source, version string) string {
	return "Package: " + pkg + "\nStatus: install ok installed\nSource: " + source +
		"\nArchitecture: amd64\nMaintainer: Debian\nVersion: " + version + "\n\n"
}

func archive(t *testing.T, content files) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for path, text := range content {
		require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, Size: int64(len(text))}))
		_, err := w.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// imageOf makes an image with a layer for each of contents.
func imageOf(t *testing.T, contents ...files) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64"})
	require.NoError(t, err)
	for _, content := range contents {
		text := archive(t, content)
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil })
		require.NoError(t, err)
		img, err = mutate.AppendLayers(img, layer)
		require.NoError(t, err)
	}
	return img
}

// buckets is the content of a database: buckets in buckets, and JSON at the ends.
type buckets map[string]any

const npm = "npm::GitHub Security Advisory Npm"

var advisories = buckets{
	"data-source": buckets{
		"debian 12": map[string]any{"ID": "debian", "Name": "Debian Security Tracker"},
		npm:         map[string]any{"ID": "ghsa", "Name": "GitHub Security Advisory Npm"},
	},
	"debian 12": buckets{"glibc": buckets{"CVE-2023-4911": map[string]any{"FixedVersion": "2.36-9+deb12u3"}}},
	npm: buckets{"lodash": buckets{"CVE-2019-10744": map[string]any{
		"PatchedVersions": []string{"4.17.12"}, "VulnerableVersions": []string{"< 4.17.12"},
	}}},
	"vulnerability": buckets{
		"CVE-2023-4911":  map[string]any{"Title": "glibc: buffer overflow in ld.so", "Severity": "HIGH", "VendorSeverity": map[string]int{"nvd": 3}},
		"CVE-2019-10744": map[string]any{"Title": "nodejs-lodash: prototype pollution", "Severity": "CRITICAL", "VendorSeverity": map[string]int{"ghsa": 4}},
	},
}

func boltFile(t *testing.T, content buckets) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trivy.db")
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error {
		for bucket, inner := range content {
			b, err := tx.CreateBucketIfNotExists([]byte(bucket))
			require.NoError(t, err)
			fill(t, b, inner.(buckets))
		}
		return nil
	}))
	require.NoError(t, db.Close())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

func fill(t *testing.T, bucket *bolt.Bucket, content buckets) {
	for key, value := range content {
		if inner, ok := value.(buckets); ok {
			b, err := bucket.CreateBucketIfNotExists([]byte(key))
			require.NoError(t, err)
			fill(t, b, inner)
			continue
		}
		text, err := json.Marshal(value)
		require.NoError(t, err)
		require.NoError(t, bucket.Put([]byte(key), text))
	}
}

// metadata is what a database says about itself.
func metadata(version int, made, next time.Time) string {
	text, _ := json.Marshal(map[string]any{"Version": version, "UpdatedAt": made, "NextUpdate": next})
	return string(text)
}

// goodDatabase is what a database artifact holds, made at the given time.
func goodDatabase(t *testing.T, made time.Time) files {
	return files{"trivy.db": boltFile(t, advisories), "metadata.json": metadata(2, made, made.Add(24*time.Hour))}
}

const databaseType = types.MediaType("application/vnd.aquasec.trivy.db.layer.v1.tar+gzip")

func artifactOf(t *testing.T, mediaType types.MediaType, layers ...[]byte) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.aquasec.trivy.config.v1+json")
	for _, layer := range layers {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{
			Layer:       static.NewLayer(layer, mediaType),
			Annotations: map[string]string{"org.opencontainers.image.title": "db.tar.gz"},
		})
		require.NoError(t, err)
	}
	return img
}

func zipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

// pushDatabase pushes what is in content as a database and returns its tag.
func (r *testRegistry) pushDatabase(t *testing.T, repository string, content files) string {
	t.Helper()
	r.push(t, repository, artifactOf(t, databaseType, zipped(t, archive(t, content))))
	return r.host + "/" + repository + ":latest"
}

// emptyJar is a Java archive without entries.
var emptyJar = files{"app/lib.jar": "PK\x05\x06" + strings.Repeat("\x00", 18)}

// pushJavaIndex pushes an index of no Java archive and returns its tag.
func (r *testRegistry) pushJavaIndex(t *testing.T, repository string, made time.Time) string {
	t.Helper()
	const kind = "application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip"
	content := files{"trivy-java.db": "SQLite format 3\x00", "metadata.json": metadata(1, made, made.Add(time.Hour))}
	r.push(t, repository, artifactOf(t, kind, zipped(t, archive(t, content))))
	return r.host + "/" + repository + ":latest"
}

// newScanner returns a scanner that is closed at the end of the test. A cache
// directory of its own is filled in unless config has one.
func newScanner(t *testing.T, config trivy.Config) *trivy.Scanner {
	t.Helper()
	if config.CacheDir == "" {
		config.CacheDir = t.TempDir()
	}
	s, err := trivy.New(config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}
