package buildkitd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

const (
	// module is this package's module; the daemon's version is pinned by the
	// module in this package's folder program.
	module     = "github.com/fairlead-dev/fairlead/e2e"
	programDir = "lab/buildkitd/program"
	mainPath   = "github.com/moby/buildkit/cmd/buildkitd"

	// lockRetry is how often a lock held by another process is tried again;
	// flock(2) has no way to wait that a context could end.
	lockRetry = 200 * time.Millisecond
)

// program returns the daemon's program, built when there is none yet for what the
// module pins.
func (cfg Config) program(ctx context.Context, cache string) (path string, err error) {
	root, err := command(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return "", fmt.Errorf("buildkitd: find its module: %w; run inside fairlead's source tree", err)
	}
	source := filepath.Join(root, filepath.FromSlash(programDir))
	key, err := recipe(source)
	if err != nil {
		return "", fmt.Errorf("buildkitd: read its module: %w", err)
	}
	path = filepath.Join(cache, "buildkitd-"+key)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	lock := flock.New(filepath.Join(cache, "program.lock"))
	if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
		return "", fmt.Errorf("buildkitd: wait for %s, which another process holds while it builds: %w", lock.Path(), err)
	}
	defer func() { _ = lock.Unlock() }()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	began := time.Now()
	cfg.say("compiling the daemon, usually a minute or two the first time")
	// Under its final name only when it is whole.
	unfinished := path + ".new"
	if _, err := command(ctx, source, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", unfinished, mainPath); err != nil {
		return "", fmt.Errorf("buildkitd: compile: %w", err)
	}
	if err := os.Rename(unfinished, path); err != nil {
		return "", fmt.Errorf("buildkitd: keep the program: %w", err)
	}
	cfg.say("compiled in %s", time.Since(began).Round(time.Second))
	return path, nil
}

// recipe names what the program is made from.
func recipe(source string) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		sum.Write(text)
	}
	_, _ = fmt.Fprint(sum, runtime.Version(), runtime.GOARCH)
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}

// command runs a program to its end and returns what it printed, trimmed. Go's
// own commands run outside the workspace, so that they see one module.
func command(ctx context.Context, dir string, args ...string) (string, error) {
	// See bindToParent.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = 5 * time.Second
	bindToParent(cmd)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if dir != "" {
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	}
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
