package buildkitd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRender(t *testing.T) {
	text, err := render("/cache/root", "/cache/s.sock", []string{"localhost:5001", "10.0.0.1:5000"})
	require.NoError(t, err)
	assert.Equal(t, `# Written by fairlead's lab for each start.
root = "/cache/root"
[grpc]
  address = ["unix:///cache/s.sock"]
[worker.containerd]
  enabled = false
[worker.oci]
  enabled = true
  binary = "runc"
  gc = true
  maxUsedSpace = "8GB"
[registry."10.0.0.1:5000"]
  http = true
[registry."localhost:5001"]
  http = true
`, string(text))
	for _, host := range []string{"", "http://x", "a\"]\nx", "a b"} {
		_, err := render("/r", "/s", []string{host})
		assert.Error(t, err, "%q", host)
	}
}

func TestDaemonsKeepApart(t *testing.T) {
	cache := t.TempDir()
	first, err := openState(cache)
	require.NoError(t, err)
	second, err := openState(cache)
	require.NoError(t, err)
	assert.NotEqual(t, first.dir, second.dir)
	require.NoError(t, first.release())
	again, err := openState(cache)
	require.NoError(t, err)
	assert.Equal(t, first.dir, again.dir, "a daemon alone finds the cache of the one before")
	require.NoError(t, errors.Join(again.release(), second.release()))
}

func TestSocketPathIsBounded(t *testing.T) {
	_, err := openState(filepath.Join(t.TempDir(), strings.Repeat("x", maxSocket)))
	require.ErrorContains(t, err, "Config.CacheDir")
}

func TestDebian(t *testing.T) {
	assert.True(t, debian([]byte("NAME=x\nID=debian\n")))
	assert.True(t, debian([]byte("ID=ubuntu\nID_LIKE=\"debian other\"\n")))
	assert.False(t, debian([]byte("ID=fedora\nVERSION_ID=debian\n")))
}

func TestRecipeNamesWhatIsPinned(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("go.mod", "module x")
	write("go.sum", "")
	before, err := recipe(dir)
	require.NoError(t, err)
	write("go.sum", "changed")
	after, err := recipe(dir)
	require.NoError(t, err)
	assert.NotEqual(t, before, after)
}

// A daemon that ends before it answers is reported with what it logged.
func TestEarlyEnd(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // the daemon is for Linux; the script below for any Unix
	}
	program := filepath.Join(t.TempDir(), "daemon")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho no such luck >&2\nexit 3\n"), 0o755))
	state, err := openState(t.TempDir())
	require.NoError(t, err)
	d := &Daemon{address: "unix://" + state.socket(), state: state}
	err = d.run(t.Context(), program, Config{})
	require.ErrorContains(t, err, "exit status 3")
	require.ErrorContains(t, err, "no such luck")
	require.NoError(t, d.Close())
}

func TestStartEndsWithContext(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // as above
	}
	program := filepath.Join(t.TempDir(), "daemon")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\nexec sleep 600\n"), 0o755))
	state, err := openState(t.TempDir())
	require.NoError(t, err)
	d := &Daemon{address: "unix://" + state.socket(), state: state}
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	require.ErrorIs(t, d.run(ctx, program, Config{}), enough)
	require.NoError(t, d.Close())
}

func TestTailKeepsTheEnd(t *testing.T) {
	var log tail
	for range 1000 {
		_, err := log.Write([]byte("line\n"))
		require.NoError(t, err)
	}
	_, err := log.Write([]byte("the end\n"))
	require.NoError(t, err)
	assert.True(t, strings.HasSuffix(log.String(), "the end"))
	assert.LessOrEqual(t, len(log.String()), keptLog)
}
