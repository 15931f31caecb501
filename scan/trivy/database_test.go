package trivy_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1types "github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/scan/trivy"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestUnusableDatabases(t *testing.T) {
	now := time.Now()
	good := goodDatabase(t, now)
	with := func(file, text string) files {
		changed := files{}
		for path, content := range good {
			changed[path] = content
		}
		if changed[file] = text; text == "" {
			delete(changed, file)
		}
		return changed
	}
	broken := []byte(good["trivy.db"])
	for i := 4096; i < len(broken); i++ {
		broken[i] = 0xff
	}
	tests := map[string]struct {
		layers [][]byte
		kind   string
		want   error
	}{
		"no file":               {layers: [][]byte{zipped(t, archive(t, with("trivy.db", "")))}, want: trivy.ErrDatabaseCorrupt},
		"no metadata":           {layers: [][]byte{zipped(t, archive(t, with("metadata.json", "")))}, want: trivy.ErrDatabaseCorrupt},
		"metadata of no form":   {layers: [][]byte{zipped(t, archive(t, with("metadata.json", "{")))}, want: trivy.ErrDatabaseCorrupt},
		"no date":               {layers: [][]byte{zipped(t, archive(t, with("metadata.json", `{"Version":2}`)))}, want: trivy.ErrDatabaseCorrupt},
		"an older schema":       {layers: [][]byte{zipped(t, archive(t, with("metadata.json", metadata(1, now, now))))}, want: trivy.ErrDatabaseSchema},
		"a newer schema":        {layers: [][]byte{zipped(t, archive(t, with("metadata.json", metadata(3, now, now))))}, want: trivy.ErrDatabaseSchema},
		"not a database":        {layers: [][]byte{zipped(t, archive(t, with("trivy.db", "hello")))}, want: trivy.ErrDatabaseCorrupt},
		"a cut-off database":    {layers: [][]byte{zipped(t, archive(t, with("trivy.db", good["trivy.db"][:5000])))}, want: trivy.ErrDatabaseCorrupt},
		"broken pages":          {layers: [][]byte{zipped(t, archive(t, with("trivy.db", string(broken))))}, want: trivy.ErrDatabaseCorrupt},
		"an empty database":     {layers: [][]byte{zipped(t, archive(t, with("trivy.db", boltFile(t, buckets{}))))}, want: trivy.ErrDatabaseCorrupt},
		"no descriptions":       {layers: [][]byte{zipped(t, archive(t, with("trivy.db", boltFile(t, buckets{"vulnerability": buckets{}}))))}, want: trivy.ErrDatabaseCorrupt},
		"not compressed":        {layers: [][]byte{archive(t, good)}, want: trivy.ErrDatabaseCorrupt},
		"not an archive":        {layers: [][]byte{zipped(t, bytes.Repeat([]byte("x"), 2048))}, want: trivy.ErrDatabaseCorrupt},
		"a cut-off archive":     {layers: [][]byte{zipped(t, archive(t, good))[:200]}, want: trivy.ErrDatabaseCorrupt},
		"no layer":              {want: trivy.ErrDatabaseCorrupt},
		"two layers":            {layers: [][]byte{zipped(t, archive(t, good)), zipped(t, archive(t, good))}, want: trivy.ErrDatabaseCorrupt},
		"another kind of thing": {layers: [][]byte{zipped(t, archive(t, good))}, kind: "application/vnd.oci.image.layer.v1.tar+gzip", want: trivy.ErrDatabaseCorrupt},
		"too old":               {layers: [][]byte{zipped(t, archive(t, goodDatabase(t, now.Add(-49*time.Hour))))}, want: trivy.ErrDatabaseStale},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			reg := newRegistry(t)
			kind := databaseType
			if test.kind != "" {
				kind = v1types.MediaType(test.kind)
			}
			reg.push(t, "db", artifactOf(t, kind, test.layers...))
			image := reg.push(t, "shop", imageOf(t, debian))
			cache := t.TempDir()
			scanner := newScanner(t, trivy.Config{CacheDir: cache, Database: reg.host + "/db", MaxDatabaseAge: 48 * time.Hour})
			before := reg.count("/shop/")
			_, err := scanner.Scan(t.Context(), image)
			require.ErrorIs(t, err, test.want)
			failure, ok := errors.AsType[*trivy.DatabaseError](err)
			require.True(t, ok)
			assert.Contains(t, failure.Source, reg.host)
			assert.True(t, stages.IsPermanent(err))
			assert.Equal(t, before, reg.count("/shop/"), "the image was not even looked at")
			left, err := filepath.Glob(filepath.Join(cache, "db", ".new-*"))
			require.NoError(t, err)
			assert.Empty(t, left)
		})
	}
}

func TestTamperedDownload(t *testing.T) {
	reg := newRegistry(t)
	database := reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))
	image := reg.push(t, "shop", imageOf(t, debian))
	other := zipped(t, archive(t, goodDatabase(t, time.Now())))
	reg.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/db/blobs/") {
			return false
		}
		_, _ = w.Write(other)
		return true
	})
	scanner := newScanner(t, trivy.Config{Database: database})
	_, err := scanner.Scan(t.Context(), image)
	require.Error(t, err)
	_, ok := errors.AsType[*trivy.DatabaseError](err)
	assert.True(t, ok)
	reg.misbehave(nil)
	_, err = scanner.Scan(t.Context(), image)
	require.NoError(t, err)
}

func TestDatabaseIsMissing(t *testing.T) {
	reg := newRegistry(t)
	image := reg.push(t, "shop", imageOf(t, debian))
	_, err := newScanner(t, trivy.Config{Database: reg.host + "/none:2"}).Scan(t.Context(), image)
	require.ErrorContains(t, err, reg.host+"/none:2")
	assert.True(t, stages.IsPermanent(err))

	reg.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/none/") {
			return false
		}
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	_, err = newScanner(t, trivy.Config{Database: reg.host + "/none:2"}).Scan(t.Context(), image)
	require.Error(t, err)
	assert.False(t, stages.IsPermanent(err), "a rate limit passes")
}

func TestOffline(t *testing.T) {
	reg := newRegistry(t)
	database := reg.pushDatabase(t, "db", goodDatabase(t, time.Now().Add(-240*time.Hour)))
	image := reg.push(t, "shop", imageOf(t, debian, node))
	cache := t.TempDir()
	offline := newScanner(t, trivy.Config{CacheDir: cache, Database: database, Offline: true})
	_, err := offline.Scan(t.Context(), image)
	require.ErrorIs(t, err, trivy.ErrNoDatabase)
	assert.True(t, stages.IsPermanent(err))
	assert.Zero(t, reg.count("GET", "/db/"), "the network is left alone")

	_, err = newScanner(t, trivy.Config{CacheDir: cache, Database: database}).Scan(t.Context(), image)
	require.NoError(t, err)
	asked := reg.count("/db/")
	report, err := offline.Scan(t.Context(), image)
	require.NoError(t, err)
	assert.Len(t, report.Findings, 2)
	assert.Equal(t, asked, reg.count("/db/"), "however old it is")

	// Another source's database is not this one's.
	_, err = newScanner(t, trivy.Config{CacheDir: cache, Database: reg.host + "/other:2", Offline: true}).Scan(t.Context(), image)
	require.ErrorIs(t, err, trivy.ErrNoDatabase)

	require.NoError(t, filepath.WalkDir(filepath.Join(cache, "db"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "metadata.json" {
			err = os.WriteFile(path, []byte("{"), 0o600)
		}
		return err
	}))
	_, err = offline.Scan(t.Context(), image)
	require.ErrorIs(t, err, trivy.ErrDatabaseCorrupt)
}

func TestDatabaseIsDownloadedOnce(t *testing.T) {
	reg := newRegistry(t)
	config := trivy.Config{CacheDir: t.TempDir(), Database: reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))}
	image := reg.push(t, "shop", imageOf(t, debian))
	failures := make(chan error)
	for range 4 {
		scanner := newScanner(t, config)
		go func() { _, err := scanner.Scan(t.Context(), image); failures <- err }()
	}
	for range 4 {
		require.NoError(t, <-failures)
	}
	assert.Equal(t, 1, reg.count("GET", "/db/blobs/"))
	assert.Equal(t, 1, reg.count("GET", "/db/manifests/"), "until the next one is due, nobody asks")
}

func TestDatabaseUpdate(t *testing.T) {
	reg := newRegistry(t)
	old := time.Now().Add(-72 * time.Hour).UTC().Truncate(time.Second)
	fresh := time.Now().UTC().Truncate(time.Second)
	var logged bytes.Buffer
	config := trivy.Config{
		CacheDir: t.TempDir(), Database: reg.pushDatabase(t, "db", goodDatabase(t, old)),
		Logger: slog.New(slog.NewTextHandler(&logged, nil)),
	}
	image := reg.push(t, "shop", imageOf(t, debian))
	scanner := newScanner(t, config)
	made := func() time.Time {
		t.Helper()
		report, err := scanner.Scan(t.Context(), image)
		require.NoError(t, err)
		return report.Database
	}
	assert.Equal(t, old, made())
	reg.pushDatabase(t, "db", goodDatabase(t, fresh))
	assert.Equal(t, old, made(), "it was asked for less than an hour ago")

	forgetCheck(t, config.CacheDir)
	reg.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/db/") {
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		return false
	})
	assert.Equal(t, old, made(), "where the update fails, the cached one serves")
	assert.Contains(t, logged.String(), "not updated")
	reg.misbehave(nil)
	assert.Equal(t, fresh, made())

	// The one before stays for a process that has just looked it up; older ones go.
	newest := fresh.Add(time.Second)
	reg.pushDatabase(t, "db", goodDatabase(t, newest))
	makeDue(t, config.CacheDir)
	assert.Equal(t, newest, made())
	kept, err := filepath.Glob(filepath.Join(config.CacheDir, "db", "sha256-*"))
	require.NoError(t, err)
	assert.Len(t, kept, 2)
}

// forgetCheck makes the cached database look as if it had last been compared with
// the registry's long ago.
func forgetCheck(t *testing.T, cache string) {
	t.Helper()
	pointers, err := filepath.Glob(filepath.Join(cache, "db", "*.json"))
	require.NoError(t, err)
	require.Len(t, pointers, 1)
	text, err := os.ReadFile(pointers[0])
	require.NoError(t, err)
	before, _, ok := strings.Cut(string(text), `"checked":`)
	require.True(t, ok)
	require.NoError(t, os.WriteFile(pointers[0], []byte(before+`"checked":"2020-01-01T00:00:00Z"}`), 0o600))
}

// makeDue does that, and dates the next update to the past.
func makeDue(t *testing.T, cache string) {
	t.Helper()
	forgetCheck(t, cache)
	all, err := filepath.Glob(filepath.Join(cache, "db", "sha256-*", "metadata.json"))
	require.NoError(t, err)
	for _, path := range all {
		require.NoError(t, os.WriteFile(path, []byte(metadata(2, time.Now(), time.Now().Add(-time.Hour))), 0o600))
	}
}

// A second scan with another database waits for those with the first, because
// Trivy can have one open; it must neither mix them up nor starve.
func TestScansWithDifferentDatabases(t *testing.T) {
	reg := newRegistry(t)
	image := reg.push(t, "shop", imageOf(t, debian, node))
	without := goodDatabase(t, time.Now())
	without["trivy.db"] = boltFile(t, buckets{"vulnerability": advisories["vulnerability"]})
	full := newScanner(t, trivy.Config{Database: reg.pushDatabase(t, "full", goodDatabase(t, time.Now()))})
	none := newScanner(t, trivy.Config{Database: reg.pushDatabase(t, "none", without)})
	type outcome struct {
		want, got int
		err       error
	}
	outcomes := make(chan outcome)
	for range 8 {
		for scanner, want := range map[*trivy.Scanner]int{full: 2, none: 0} {
			go func() {
				report, err := scanner.Scan(t.Context(), image)
				outcomes <- outcome{want, len(report.Findings), err}
			}()
		}
	}
	for range 16 {
		o := <-outcomes
		require.NoError(t, o.err)
		assert.Equal(t, o.want, o.got)
	}
}

func TestJavaArchives(t *testing.T) {
	reg := newRegistry(t)
	database := reg.pushDatabase(t, "db", goodDatabase(t, time.Now()))
	image := reg.push(t, "shop", imageOf(t, debian, emptyJar))
	cache := t.TempDir()
	scanner := newScanner(t, trivy.Config{CacheDir: cache, Database: database, JavaDatabase: reg.host + "/java:1"})
	for range 3 {
		_, err := scanner.Scan(t.Context(), image)
		require.ErrorContains(t, err, "the image holds Java archives", "every time, not only the first")
		failure, ok := errors.AsType[*trivy.DatabaseError](err)
		require.True(t, ok)
		assert.Equal(t, reg.host+"/java:1", failure.Source)
	}
	offline := newScanner(t, trivy.Config{CacheDir: cache, Database: database, JavaDatabase: reg.host + "/java:1", Offline: true})
	_, err := offline.Scan(t.Context(), image)
	require.ErrorIs(t, err, trivy.ErrNoDatabase)

	reg.pushJavaIndex(t, "java", time.Now())
	report, err := newScanner(t, trivy.Config{Database: database, JavaDatabase: reg.host + "/java:latest"}).Scan(t.Context(), image)
	require.NoError(t, err)
	assert.Equal(t, 2, report.Packages, "an empty archive holds no package")
}
