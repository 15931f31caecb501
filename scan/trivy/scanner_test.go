package trivy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/fairlead-dev/fairlead/scan/trivy"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConforms(t *testing.T) {
	stagestest.TestScanner(t, func(t *testing.T) stagestest.ScannerHarness {
		reg := newRegistry(t)
		missing := pinned(t, reg.host+"/shop", v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)})
		return stagestest.ScannerHarness{
			Scanner: newScanner(t, trivy.Config{Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))}),
			Image:   reg.push(t, "shop", imageOf(t, debian, node)),
			Missing: missing,
		}
	})
}

func TestScan(t *testing.T) {
	reg := newRegistry(t)
	made := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	scanner := newScanner(t, trivy.Config{Database: reg.pushDatabase(t, "db", goodDatabase(t, made))})
	image := reg.push(t, "shop", imageOf(t, debian, node))

	got, err := scanner.Scan(t.Context(), image)
	require.NoError(t, err)
	assert.Equal(t, stages.Report{
		Image: image, Scanner: "trivy 0.72.0", Database: made, OS: "debian 12.5", Packages: 3,
		Findings: []stages.Finding{
			{
				ID: "CVE-2019-10744", Severity: stages.SeverityCritical, Package: "lodash", Installed: "4.17.4", Fixed: "4.17.12",
				Target: "app/node_modules/lodash/package.json", Type: "node-pkg",
				Title: "nodejs-lodash: prototype pollution", URL: "https://avd.aquasec.com/nvd/cve-2019-10744",
			},
			{
				ID: "CVE-2023-4911", Severity: stages.SeverityHigh, Package: "libc6", Installed: "2.36-9+deb12u2", Fixed: "2.36-9+deb12u3",
				Target: "debian 12.5", Type: "debian",
				Title: "glibc: buffer overflow in ld.so", URL: "https://avd.aquasec.com/nvd/cve-2023-4911",
			},
		},
	}, got)
}

func TestScanWithoutPackages(t *testing.T) {
	reg := newRegistry(t)
	scanner := newScanner(t, trivy.Config{Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))})
	got, err := scanner.Scan(t.Context(), reg.push(t, "scratch", imageOf(t, files{"app": "not a program"})))
	require.NoError(t, err)
	assert.Zero(t, got.Packages)
	assert.Empty(t, got.OS)
	assert.NotNil(t, got.Findings)
}

func TestScanSeesTheTopmostLayer(t *testing.T) {
	reg := newRegistry(t)
	scanner := newScanner(t, trivy.Config{Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))})
	mended := files{"var/lib/dpkg/status": dpkg("libc6", "glibc", "2.36-9+deb12u3")}
	got, err := scanner.Scan(t.Context(), reg.push(t, "shop", imageOf(t, debian, mended)))
	require.NoError(t, err)
	assert.Empty(t, got.Findings)
	assert.Equal(t, 1, got.Packages)
}

func TestScanOfAnIndex(t *testing.T) {
	reg := newRegistry(t)
	database := reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))
	add := func(arch string, contents ...files) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: imageOf(t, contents...), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}}
	}
	index := mutate.AppendManifests(empty.Index, add("arm64", debian), add("amd64", debian, node))
	ref, err := name.ParseReference(reg.host + "/multi:latest")
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(ref, index))
	digest, err := index.Digest()
	require.NoError(t, err)
	image := pinned(t, reg.host+"/multi", digest)

	_, err = newScanner(t, trivy.Config{Database: database}).Scan(t.Context(), image)
	require.ErrorIs(t, err, stages.ErrInvalid, "one platform says nothing about the other")
	require.ErrorContains(t, err, "linux/arm64, linux/amd64")

	got, err := newScanner(t, trivy.Config{Database: database, Platform: "linux/amd64"}).Scan(t.Context(), image)
	require.NoError(t, err)
	assert.Equal(t, image, got.Image, "the report names the index")
	assert.Len(t, got.Findings, 2)

	got, err = newScanner(t, trivy.Config{Database: database, Platform: "linux/arm64"}).Scan(t.Context(), image)
	require.NoError(t, err)
	assert.Len(t, got.Findings, 1)

	_, err = newScanner(t, trivy.Config{Database: database, Platform: "linux/s390x"}).Scan(t.Context(), image)
	require.ErrorContains(t, err, "linux/s390x")
}

func TestMovedTagChangesNothing(t *testing.T) {
	reg := newRegistry(t)
	scanner := newScanner(t, trivy.Config{Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))})
	image := reg.push(t, "shop", imageOf(t, debian, node))
	reg.push(t, "shop", imageOf(t, debian)) // takes the tag away
	got, err := scanner.Scan(t.Context(), image)
	require.NoError(t, err)
	assert.Len(t, got.Findings, 2)
}

// A registry that is not what it seems must not be able to pass off another
// layer, nor to leave its mark in the cache.
func TestTamperedLayerIsRefused(t *testing.T) {
	reg := newRegistry(t)
	cache := t.TempDir()
	scanner := newScanner(t, trivy.Config{CacheDir: cache, Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))})
	img := imageOf(t, debian, node)
	image := reg.push(t, "shop", img)
	layers, err := img.Layers()
	require.NoError(t, err)
	digest, err := layers[1].Digest()
	require.NoError(t, err)
	harmless := zipped(t, archive(t, files{"app/node_modules/lodash/package.json": `{"name":"lodash","version":"4.17.99","license":"MIT"}`}))
	reg.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, digest.String()) {
			return false
		}
		_, _ = w.Write(harmless)
		return true
	})
	_, err = scanner.Scan(t.Context(), image)
	require.Error(t, err)
	reg.misbehave(nil)
	got, err := scanner.Scan(t.Context(), image)
	require.NoError(t, err)
	assert.Len(t, got.Findings, 2)
}

func TestTamperedManifestIsRefused(t *testing.T) {
	reg := newRegistry(t)
	scanner := newScanner(t, trivy.Config{Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))})
	image := reg.push(t, "shop", imageOf(t, debian, node))
	other, err := imageOf(t, debian).RawManifest()
	require.NoError(t, err)
	reg.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/shop/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
		_, _ = w.Write(other)
		return true
	})
	_, err = scanner.Scan(t.Context(), image)
	require.Error(t, err)
}

// TestAnEndlessConfigurationIsRefused has an image say that its configuration, which
// is read whole, has no end.
func TestAnEndlessConfigurationIsRefused(t *testing.T) {
	for _, size := range []int64{1 << 40, -1} {
		reg := newRegistry(t)
		scanner := newScanner(t, trivy.Config{Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))})
		manifest, err := imageOf(t, debian).Manifest()
		require.NoError(t, err)
		manifest.Config.Size = size
		raw, err := json.Marshal(manifest)
		require.NoError(t, err)
		digest, _, err := v1.SHA256(bytes.NewReader(raw))
		require.NoError(t, err)
		reg.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/shop/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", string(manifest.MediaType))
			_, _ = w.Write(raw)
			return true
		})
		_, err = scanner.Scan(t.Context(), pinned(t, reg.host+"/shop", digest))
		require.ErrorContains(t, err, "configuration has")
		assert.True(t, stages.IsPermanent(err))
		assert.Zero(t, reg.count("/shop/blobs/"))
	}
}

func TestScanIsCached(t *testing.T) {
	reg := newRegistry(t)
	config := trivy.Config{CacheDir: t.TempDir(), Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))}
	image := reg.push(t, "shop", imageOf(t, debian, node))
	first, err := newScanner(t, config).Scan(t.Context(), image)
	require.NoError(t, err)
	blobs := reg.count("GET", "/shop/blobs/")
	second, err := newScanner(t, config).Scan(t.Context(), image)
	require.NoError(t, err)
	assert.Equal(t, first, second)
	assert.LessOrEqual(t, reg.count("GET", "/shop/blobs/"), blobs+1, "the configuration is read again, layers are not")

	damaged, err := filepath.Glob(filepath.Join(config.CacheDir, "layers", "*", "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, damaged)
	for _, path := range damaged {
		require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	}
	third, err := newScanner(t, config).Scan(t.Context(), image)
	require.NoError(t, err, "a damaged entry is read anew")
	assert.Equal(t, first, third)
}

func TestUnauthorized(t *testing.T) {
	const password = "correct-horse"
	reg := newRegistry(t)
	database := reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))
	image := reg.push(t, "shop", imageOf(t, debian, node))
	reg.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if _, p, ok := r.BasicAuth(); ok && p == password {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`)
		return true
	})
	_, err := newScanner(t, trivy.Config{Database: database}).Scan(t.Context(), image)
	require.ErrorContains(t, err, "UNAUTHORIZED")
	assert.True(t, stages.IsPermanent(err))

	_, err = newScanner(t, trivy.Config{Database: database, Keychain: login{"robot", "wrong-" + password}}).Scan(t.Context(), image)
	require.Error(t, err)
	assert.True(t, stages.IsPermanent(err))
	assert.NotContains(t, err.Error(), password)

	_, err = newScanner(t, trivy.Config{Database: database, Keychain: login{"robot", password}}).Scan(t.Context(), image)
	require.NoError(t, err)
}

type login struct{ username, password string }

func (l login) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: l.username, Password: l.password}, nil
}

func TestRegistryDown(t *testing.T) {
	reg := newRegistry(t)
	scanner := newScanner(t, trivy.Config{Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))})
	image := reg.push(t, "shop", imageOf(t, debian))
	_, err := scanner.Scan(t.Context(), image)
	require.NoError(t, err)
	reg.misbehave(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	_, err = scanner.Scan(t.Context(), image)
	require.Error(t, err)
	assert.False(t, stages.IsPermanent(err), "it may come back")
	reg.misbehave(nil)
	reg.Close()
	_, err = scanner.Scan(t.Context(), image)
	require.Error(t, err)
	assert.False(t, stages.IsPermanent(err), "it may come back")
}

func TestCancelWhileReading(t *testing.T) {
	for _, part := range []string{"/db/manifests/", "/db/blobs/", "/shop/manifests/", "/shop/blobs/"} {
		t.Run(part, func(t *testing.T) {
			reg := newRegistry(t)
			scanner := newScanner(t, trivy.Config{Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))})
			image := reg.push(t, "shop", imageOf(t, debian, node))
			why := errors.New("enough")
			ctx, cancel := context.WithCancelCause(t.Context())
			reg.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, part) {
					return false
				}
				cancel(why)
				<-r.Context().Done() // an answer that never comes
				return true
			})
			_, err := scanner.Scan(ctx, image)
			require.ErrorIs(t, err, why)
			reg.misbehave(nil)
			_, err = scanner.Scan(t.Context(), image)
			require.NoError(t, err, "what was cancelled left nothing behind")
		})
	}
}

func TestClose(t *testing.T) {
	reg := newRegistry(t)
	config := trivy.Config{CacheDir: t.TempDir(), Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))}
	image := reg.push(t, "shop", imageOf(t, debian))
	for range 2 {
		scanner, err := trivy.New(config)
		require.NoError(t, err)
		_, err = scanner.Scan(t.Context(), image)
		require.NoError(t, err, "closing one scanner does not break the next")
		require.NoError(t, scanner.Close())
		require.NoError(t, scanner.Close())
		_, err = scanner.Scan(t.Context(), image)
		require.ErrorIs(t, err, trivy.ErrClosed)
	}
}

func TestNewRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, config := range map[string]trivy.Config{
		"no cache directory":      {},
		"a file in its place":     {CacheDir: file},
		"a database by no name":   {CacheDir: t.TempDir(), Database: "UPPER CASE"},
		"a Java index by no name": {CacheDir: t.TempDir(), JavaDatabase: "UPPER CASE"},
		"half a platform":         {CacheDir: t.TempDir(), Platform: "linux"},
		"a negative age":          {CacheDir: t.TempDir(), MaxDatabaseAge: -1},
		"negative parallelism":    {CacheDir: t.TempDir(), Parallel: -1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := trivy.New(config)
			require.ErrorIs(t, err, stages.ErrInvalid)
		})
	}
}

func TestQuiet(t *testing.T) {
	reg := newRegistry(t)
	image := reg.push(t, "shop", imageOf(t, debian, node))
	var logged bytes.Buffer
	scanner := newScanner(t, trivy.Config{
		Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now())),
		Logger:   slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	said := captured(t, func() {
		_, err := scanner.Scan(t.Context(), image)
		require.NoError(t, err)
	})
	assert.Empty(t, said, "nothing on standard output or standard error")
	assert.Contains(t, logged.String(), "Detecting vulnerabilities", "Trivy's messages go to the logger")
}

// captured returns what f writes to standard output and standard error.
func captured(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "said"))
	require.NoError(t, err)
	defer file.Close()
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = file, file
	defer func() { os.Stdout, os.Stderr = stdout, stderr }()
	f()
	text, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	return string(text)
}
