package buildkitd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// dockerHost returns where the Docker Engine of the user's current context
// answers, if it does. Only addresses without certificates of their own count.
func dockerHost(ctx context.Context) (host string, ok bool) {
	// Fails fast for a client without a daemon, and where docker is Podman in
	// disguise, which knows no contexts and has no BuildKit.
	host, err := command(ctx, "", "docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
	if err != nil || !strings.HasPrefix(host, "unix://") {
		return "", false
	}
	_, err = command(ctx, "", "docker", "version", "--format", "{{.Server.Version}}")
	return host, err == nil
}

// requireRoot says what else to do where the daemon can't run.
func requireRoot() error {
	if runtime.GOOS == "linux" && os.Geteuid() == 0 {
		return nil
	}
	return errors.New("buildkitd: Docker doesn't answer, and without it a daemon can only be started as root on Linux: install or start Docker")
}

// requireRunc makes sure that there is a runtime for containers.
func (cfg Config) requireRunc(ctx context.Context) error {
	if _, err := exec.LookPath("runc"); err == nil {
		return nil
	}
	const hint = "apt-get install --no-install-recommends runc"
	text, err := os.ReadFile("/etc/os-release")
	switch {
	case err != nil || !debian(text):
		return errors.New("buildkitd: runc is missing; install it from your distribution")
	case !cfg.InstallPackages:
		return fmt.Errorf("buildkitd: runc is missing; install it (%s), or set Config.InstallPackages", hint)
	}
	cfg.say("installing the Debian package runc")
	for _, args := range [][]string{
		{"apt-get", "update", "-q"},
		// Another installation may be under way: wait for it.
		{"apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-q", "-y", "--no-install-recommends", "runc"},
	} {
		if _, err := command(ctx, "", args...); err != nil {
			return fmt.Errorf("buildkitd: install runc: %w", err)
		}
	}
	return nil
}

// debian reports whether the text of an os-release(5) is that of Debian or of a
// system derived from it.
func debian(release []byte) bool {
	lines := bufio.NewScanner(bytes.NewReader(release))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "=")
		if key != "ID" && key != "ID_LIKE" {
			continue
		}
		for _, id := range strings.Fields(strings.Trim(value, `"'`)) {
			if id == "debian" {
				return true
			}
		}
	}
	return false
}
