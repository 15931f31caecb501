//go:build unix

package scan_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// fake is a stand-in for the trivy binary, for what the real one can't be made to
// do at will. The real one is compared with the in-process scanner in scan/trivy.
// It records how it was called, downloads a "database" and answers with a report
// on whatever it was asked about.
const fake = `#!/bin/sh
set -eu
here='HERE'
echo "$@" >> "$here/calls"
env | sort >> "$here/environment"
pwd >> "$here/folders"
next=2100-01-01T00:00:00Z
if [ -e "$here/outdated" ]; then next=2020-01-01T00:00:00Z; fi
case "$*" in
version*) echo '{"Version":"VERSION"}'; exit ;;
*--download-java-db-only*)
	mkdir -p "$here/cache/java-db"
	echo '{"Version":1,"NextUpdate":"2100-01-01T00:00:00Z"}' > "$here/cache/java-db/metadata.json"
	exit ;;
*--download-db-only*)
	mkdir -p "$here/cache/db"
	echo '{"Version":2,"UpdatedAt":"2026-11-20T06:00:00Z","NextUpdate":"'"$next"'"}' > "$here/cache/db/metadata.json"
	exit ;;
esac
for image; do :; done
SCAN
echo '{"SchemaVersion":2,"ArtifactType":"container_image","ArtifactName":"'"$image"'",
"Results":[{"Target":"x","Packages":[{},{}],"Vulnerabilities":[{"VulnerabilityID":"CVE-1","PkgName":"a","Severity":"HIGH"}]}]}'
`

type fakeTrivy struct {
	t    *testing.T
	here string
}

// newFake writes the script; scan is run in the place of a scan.
func newFake(t *testing.T, version, scan string) fakeTrivy {
	here := t.TempDir()
	script := strings.NewReplacer("HERE", here, "VERSION", version, "SCAN", scan).Replace(fake)
	require.NoError(t, os.WriteFile(filepath.Join(here, "trivy"), []byte(script), 0o700))
	return fakeTrivy{t, here}
}

func (f fakeTrivy) config() scan.CommandConfig {
	return scan.CommandConfig{
		Path: filepath.Join(f.here, "trivy"), CacheDir: filepath.Join(f.here, "cache"), Env: []string{"PATH=" + os.Getenv("PATH")},
	}
}

func (f fakeTrivy) command(config scan.CommandConfig) *scan.Command {
	c, err := scan.NewCommand(f.t.Context(), config)
	require.NoError(f.t, err)
	return c
}

func (f fakeTrivy) recorded(name string) string {
	text, err := os.ReadFile(filepath.Join(f.here, name))
	require.NoError(f.t, err)
	return string(text)
}

func TestCommandConforms(t *testing.T) {
	stagestest.TestScanner(t, func(t *testing.T) stagestest.ScannerHarness {
		missing := mustImage("registry.example/missing@" + digestA)
		f := newFake(t, "0.72.0", `case "$image" in *missing*) echo 'FATAL MANIFEST_UNKNOWN' >&2; exit 1 ;; esac`)
		return stagestest.ScannerHarness{Scanner: f.command(f.config()), Image: image, Missing: missing}
	})
}

func TestCommandReport(t *testing.T) {
	f := newFake(t, "v0.72.0", "")
	c := f.command(f.config())
	assert.Equal(t, "0.72.0", c.Version())
	got, err := c.Scan(t.Context(), image)
	require.NoError(t, err)
	assert.Equal(t, stages.Report{
		Image: image, Scanner: "trivy 0.72.0", Database: time.Date(2026, 11, 20, 6, 0, 0, 0, time.UTC), Packages: 2,
		Findings: []stages.Finding{{ID: "CVE-1", Severity: stages.SeverityHigh, Package: "a", Target: "x"}},
	}, got)
	calls := f.recorded("calls")
	assert.Contains(t, calls, "--image-src remote")
	assert.Contains(t, calls, "--platform linux/amd64")
	assert.NotContains(t, calls, "--insecure")
	for _, dir := range strings.Fields(f.recorded("folders")) {
		assert.NoDirExists(t, dir, "the folder Trivy ran in is gone")
	}
}

func TestCommandOffline(t *testing.T) {
	f := newFake(t, "0.72.0", "")
	config := f.config()
	config.Offline = true
	c := f.command(config)
	_, err := c.Scan(t.Context(), image)
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.True(t, stages.IsPermanent(err))
	assert.NotContains(t, f.recorded("calls"), "download")
}

func TestCommandKeepsCredentialsToItself(t *testing.T) {
	const password = "correct-horse"
	scanFails := `echo "FATAL UNAUTHORIZED: robot/$TRIVY_PASSWORD was refused" >&2; exit 1`
	f := newFake(t, "0.72.0", scanFails)
	t.Setenv("TRIVY_SEVERITY", "LOW")
	config := f.config()
	config.Database = "db.example/trivy-db:2"
	config.Credentials = func(_ context.Context, registry string) (string, string, error) {
		assert.Equal(t, "registry.example", registry)
		return "robot", password, nil
	}
	_, err := f.command(config).Scan(t.Context(), image)
	require.ErrorContains(t, err, "UNAUTHORIZED")
	assert.True(t, stages.IsPermanent(err))
	assert.NotContains(t, err.Error(), password)
	assert.NotContains(t, f.recorded("calls"), password)
	environment := f.recorded("environment")
	assert.Equal(t, 1, strings.Count(environment, "TRIVY_PASSWORD="), "only the scan gets them, not the database's registry")
	assert.NotContains(t, environment, "TRIVY_SEVERITY", "nothing is inherited")
}

func TestCommandCredentialsFail(t *testing.T) {
	f := newFake(t, "0.72.0", "")
	config := f.config()
	why := errors.New("vault is sealed")
	config.Credentials = func(context.Context, string) (string, string, error) { return "", "", why }
	_, err := f.command(config).Scan(t.Context(), image)
	require.ErrorIs(t, err, why)
}

func TestCommandFetchesJavaIndexOnDemand(t *testing.T) {
	f := newFake(t, "0.72.0", `[ -d "$here/cache/java-db" ] || { echo "FATAL Unable to initialize the Java DB" >&2; exit 1; }`)
	_, err := f.command(f.config()).Scan(t.Context(), image)
	require.NoError(t, err)
	assert.Equal(t, 1, strings.Count(f.recorded("calls"), "--download-java-db-only"))
}

func TestCommandUpdatesWhenDue(t *testing.T) {
	f := newFake(t, "0.72.0", "")
	c := f.command(f.config())
	for range 3 {
		_, err := c.Scan(t.Context(), image)
		require.NoError(t, err)
	}
	assert.Equal(t, 1, strings.Count(f.recorded("calls"), "--download-db-only"))
	require.NoError(t, os.WriteFile(filepath.Join(f.here, "outdated"), nil, 0o600))
	require.NoError(t, os.RemoveAll(filepath.Join(f.here, "cache", "db")))
	for range 3 {
		_, err := c.Scan(t.Context(), image)
		require.NoError(t, err)
	}
	assert.Equal(t, 4, strings.Count(f.recorded("calls"), "--download-db-only"), "an outdated one is tried to update each time")
}

func TestCommandRefusesAnotherSubject(t *testing.T) {
	f := newFake(t, "0.72.0", "image=registry.example/shop@"+digestB)
	_, err := f.command(f.config()).Scan(t.Context(), image)
	require.ErrorIs(t, err, stages.ErrSubjectMismatch)
}

func TestCommandCancelKillsAndWaits(t *testing.T) {
	f := newFake(t, "0.72.0", `echo "$$" > "$here/pid"; mkfifo "$here/never"; (cat "$here/never") & wait`)
	c := f.command(f.config())
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { _, err := c.Scan(ctx, image); done <- err }()
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(f.here, "never"))
		return err == nil
	}, 10*time.Second, 5*time.Millisecond)
	cancel(why)
	select {
	case err := <-done:
		require.ErrorIs(t, err, why)
	case <-time.After(10 * time.Second):
		t.Fatal("the scan goes on")
	}
	// Neither the process nor its child holds the pipe's other end any more.
	_, err := os.OpenFile(filepath.Join(f.here, "never"), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	require.Error(t, err, "a child of the killed process still reads")
}

func TestNewCommandRefuses(t *testing.T) {
	good := newFake(t, "0.72.0", "")
	for name, change := range map[string]func(*scan.CommandConfig){
		"no cache directory":   func(c *scan.CommandConfig) { c.CacheDir = "" },
		"a file in its place":  func(c *scan.CommandConfig) { c.CacheDir = filepath.Join(good.here, "trivy") },
		"no binary":            func(c *scan.CommandConfig) { c.Path = filepath.Join(good.here, "none") },
		"another program":      func(c *scan.CommandConfig) { c.Path = "true" },
		"the malicious 0.69.4": func(c *scan.CommandConfig) { c.Path = filepath.Join(newFake(t, "0.69.4", "").here, "trivy") },
		"spelled with a v":     func(c *scan.CommandConfig) { c.Path = filepath.Join(newFake(t, "v0.69.4", "").here, "trivy") },
		"without version":      func(c *scan.CommandConfig) { c.Path = filepath.Join(newFake(t, "", "").here, "trivy") },
	} {
		t.Run(name, func(t *testing.T) {
			config := good.config()
			change(&config)
			_, err := scan.NewCommand(t.Context(), config)
			require.ErrorIs(t, err, stages.ErrInvalid)
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := scan.NewCommand(ctx, good.config())
	require.ErrorIs(t, err, context.Canceled)
}
