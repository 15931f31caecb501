package buildkitd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"
)

const (
	// maxStates is how many daemons may share a cache directory.
	maxStates = 16

	// maxSocket is the longest path of a Unix socket that every system takes.
	maxSocket = 100

	// maxCache bounds what builds leave behind, per daemon.
	maxCache = "8GB"
)

// state is the folder of one daemon: its build cache, its socket, its
// configuration. It is locked while in use.
type state struct {
	dir  string
	lock *flock.Flock
}

// openState locks the first free folder, so that a daemon that runs alone always
// finds the cache of the one before.
func openState(cache string) (*state, error) {
	for i := range maxStates {
		dir := filepath.Join(cache, fmt.Sprintf("state-%d", i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("buildkitd: create its folder: %w", err)
		}
		s := &state{dir: dir, lock: flock.New(dir + ".lock")}
		if len(s.socket()) > maxSocket {
			return nil, fmt.Errorf("buildkitd: %s is too long a path for a socket; set Config.CacheDir to a shorter one", s.socket())
		}
		free, err := s.acquire()
		if err != nil {
			return nil, fmt.Errorf("buildkitd: lock its folder: %w", err)
		}
		if free {
			return s, nil
		}
	}
	return nil, fmt.Errorf("buildkitd: all %d folders in %s are in use; close some daemons", maxStates, cache)
}

// acquire locks the folder, unless another process has it or a daemon whose
// process was killed is still on its way out.
func (s *state) acquire() (bool, error) {
	ours, err := s.lock.TryLock()
	if err != nil || !ours {
		return false, err
	}
	daemons := flock.New(filepath.Join(s.dir, "root", "buildkitd.lock"))
	if err := os.MkdirAll(filepath.Dir(daemons.Path()), 0o700); err != nil {
		return false, errors.Join(err, s.lock.Unlock())
	}
	left, err := daemons.TryLock()
	if err == nil && left {
		return true, daemons.Unlock()
	}
	return false, errors.Join(err, s.lock.Unlock())
}

func (s *state) release() error { return s.lock.Unlock() }

func (s *state) socket() string { return filepath.Join(s.dir, "buildkitd.sock") }

// configure writes the daemon's configuration and returns its path.
func (s *state) configure(plainHTTP []string) (string, error) {
	if err := os.Remove(s.socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("buildkitd: remove the socket of a daemon before: %w", err)
	}
	config, err := render(filepath.Join(s.dir, "root"), s.socket(), plainHTTP)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, "buildkitd.toml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return "", fmt.Errorf("buildkitd: write its configuration: %w", err)
	}
	return path, nil
}

// render is a buildkitd.toml(5) for a daemon that runs as root with runc alone.
func render(root, socket string, plainHTTP []string) ([]byte, error) {
	var text bytes.Buffer
	fmt.Fprintf(&text, `# Written by fairlead's lab for each start.
root = %q
[grpc]
  address = [%q]
[worker.containerd]
  enabled = false
[worker.oci]
  enabled = true
  binary = "runc"
  gc = true
  maxUsedSpace = %q
`, root, "unix://"+socket, maxCache)
	for _, host := range slices.Sorted(slices.Values(plainHTTP)) {
		if host == "" || strings.ContainsAny(host, "\"\\/\n ") {
			return nil, fmt.Errorf("buildkitd: registry %q is not of the form host:port", host)
		}
		fmt.Fprintf(&text, "[registry.%q]\n  http = true\n", host)
	}
	return text.Bytes(), nil
}
