package e2e_test

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/buildkit/client"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/lab/buildkitd"
	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/buildkit"
)

// buildLab is a real BuildKit, a real registry, and something to build.
type buildLab struct {
	address  string // of BuildKit
	registry string // host:port
	shell    []byte // a program for /bin/sh
}

func newBuildLab(t *testing.T) *buildLab {
	server, err := registry.Serve(context.WithoutCancel(t.Context()), registry.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close(context.Background())) })

	program := filepath.Join(t.TempDir(), "sh")
	compile := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/minishell")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	output, err := compile.CombinedOutput()
	require.NoError(t, err, "%s", output)
	shell, err := os.ReadFile(program)
	require.NoError(t, err)
	return &buildLab{address: startBuildKit(t), registry: server.Addr(), shell: shell}
}

func startBuildKit(t *testing.T) (address string) {
	daemon, err := buildkitd.Start(t.Context(), buildkitd.Config{InstallPackages: true, Progress: os.Stderr})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, daemon.Close()) })
	return daemon.Address()
}

// expendable returns a lab whose build cache may be emptied: it is not the one
// that is kept from run to run, because that is in use.
func (l *buildLab) expendable(t *testing.T) *buildLab {
	other := *l
	other.address = startBuildKit(t)
	return &other
}

// docker reports whether the BuildKit is Docker Engine's.
func (l *buildLab) docker() bool { return strings.HasPrefix(l.address, buildkit.DockerEngine("")) }

// builder returns a builder that pushes to a repository of the test's own.
func (l *buildLab) builder(t *testing.T, edit func(*buildkit.Config)) *buildkit.Builder {
	cfg := buildkit.Config{Address: l.address, Repository: l.repository(t)}
	if edit != nil {
		edit(&cfg)
	}
	builder, err := buildkit.New(cfg)
	require.NoError(t, err)
	return builder
}

func (l *buildLab) repository(t *testing.T) string {
	return l.registry + "/" + strings.NewReplacer("_", "-").Replace(strings.ToLower(t.Name()))
}

// source writes a folder with a Dockerfile, the shell, and other files.
func (l *buildLab) source(t *testing.T, dockerfile string, files map[string]string) stages.Source {
	dir := t.TempDir()
	all := map[string]string{"Dockerfile": dockerfile, "sh": string(l.shell)}
	maps.Copy(all, files)
	for path, content := range all {
		path = filepath.Join(dir, filepath.FromSlash(path))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o755))
	}
	return stages.Source{Dir: dir, Tags: []string{"test"}}
}

// forget empties the daemon's build cache.
func (l *buildLab) forget(t *testing.T) {
	c, err := client.New(t.Context(), l.address)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Prune(t.Context(), nil, client.PruneAll))
}

// pull reads an image, by the digest or tag in ref.
func pull(t *testing.T, ref string) v1.Image {
	parsed, err := name.ParseReference(ref, name.Insecure)
	require.NoError(t, err)
	img, err := remote.Image(parsed, remote.WithContext(t.Context()))
	require.NoError(t, err)
	return img
}

// contents returns the regular files of an image, by path.
func contents(t *testing.T, img v1.Image) map[string]string {
	stream := mutate.Extract(img)
	defer stream.Close()
	files := make(map[string]string)
	archive := tar.NewReader(stream)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		if header.Typeflag == tar.TypeReg {
			content, err := io.ReadAll(archive)
			require.NoError(t, err)
			files[strings.TrimPrefix(header.Name, "/")] = string(content)
		}
	}
}

// diary keeps progress, and can be waited on.
type diary struct {
	mu      sync.Mutex
	records []stages.Progress
	waiting map[string]func()
}

func (d *diary) context(ctx context.Context) context.Context {
	return stages.WithProgress(ctx, func(p stages.Progress) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.records = append(d.records, p)
		if then, ok := d.waiting[p.Message]; ok {
			then()
		}
	})
}

// when calls then as soon as a message is reported; it comes before context.
func (d *diary) when(message string, then func()) { d.waiting = map[string]func(){message: then} }

func (d *diary) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var lines []string
	for _, p := range d.records {
		lines = append(lines, p.Message)
	}
	return strings.Join(lines, "\n")
}

// running reports whether a process of this machine has marker in its command
// line; where that can't be seen, it says no.
func running(marker string) bool {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	return slices.ContainsFunc(lines, func(path string) bool {
		line, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(line), marker)
	})
}

// promptly is how long a cancelled build may take to return.
const promptly = 10 * time.Second
