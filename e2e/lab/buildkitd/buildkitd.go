package buildkitd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/buildkit/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/fairlead-dev/fairlead/stages/buildkit"
)

// Config says how to get a BuildKit. The zero value is useful: silent, cached
// under the user's cache directory, installing nothing.
type Config struct {
	// PlainHTTP are the registries, as host:port, that base images and cache are
	// read from over plain HTTP. Loopback hosts need no mention. Docker Engine has
	// its own configuration for this.
	PlainHTTP []string

	// CacheDir holds the program and what builds leave behind. Empty means
	// fairlead/buildkitd in os.UserCacheDir. The daemon's socket is in it too, so
	// its path must not be long.
	CacheDir string

	// NoDocker leaves Docker alone even where it works.
	NoDocker bool

	// InstallPackages lets Start install runc with apt-get when it is missing, as
	// root on Debian or a derivative.
	InstallPackages bool

	// Progress receives a line per slow step, Log what the daemon logs. Nil means
	// nowhere.
	Progress, Log io.Writer
}

// Daemon is a BuildKit to build with.
type Daemon struct {
	address string
	process *process // nil where it is Docker's
	state   *state
}

// Start finds or starts a BuildKit and returns once it answers. When ctx ends
// before that, nothing is left running. After that, ctx is of no concern to the
// daemon.
func Start(ctx context.Context, cfg Config) (*Daemon, error) {
	if !cfg.NoDocker {
		if host, ok := dockerHost(ctx); ok {
			cfg.say("building with Docker Engine at %s", host)
			return &Daemon{address: buildkit.DockerEngine(host)}, nil
		}
	}
	if err := requireRoot(); err != nil {
		return nil, err
	}
	cache, err := cfg.cacheDir()
	if err != nil {
		return nil, err
	}
	if err := cfg.requireRunc(ctx); err != nil {
		return nil, err
	}
	program, err := cfg.program(ctx, cache)
	if err != nil {
		return nil, err
	}
	state, err := openState(cache)
	if err != nil {
		return nil, err
	}
	d := &Daemon{address: "unix://" + state.socket(), state: state}
	if err := d.run(ctx, program, cfg); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Address is what buildkit.Config.Address takes.
func (d *Daemon) Address() string { return d.address }

// Close stops what Start started, and returns when it is gone. Builds have to be
// over by then: the daemon waits for them a while, and is then ended by force,
// which leaves the program of an instruction that still runs to itself.
func (d *Daemon) Close() error {
	if d.state == nil {
		return nil
	}
	d.process.stop()
	return d.state.release()
}

func (d *Daemon) run(ctx context.Context, program string, cfg Config) (err error) {
	config, err := d.state.configure(cfg.PlainHTTP)
	if err != nil {
		return err
	}
	if d.process, err = startProcess(program, config, cfg.Log); err != nil {
		return fmt.Errorf("buildkitd: start: %w", err)
	}
	if err := d.answers(ctx); err != nil {
		return fmt.Errorf("buildkitd: wait until it answers: %w", err)
	}
	return nil
}

// answers returns once the daemon does, or can't.
func (d *Daemon) answers(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := d.process.onExit(cancel)
	defer stop()

	c, err := client.New(ctx, d.address, client.WithGRPCDialOption(grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 500 * time.Millisecond},
		MinConnectTimeout: 20 * time.Second,
	})), client.WithGRPCDialOption(grpc.WithDefaultCallOptions(grpc.WaitForReady(true))))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	workers, err := c.ListWorkers(ctx)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	case len(workers) == 0:
		return errors.New("it has no worker")
	}
	return nil
}

func (cfg Config) cacheDir() (string, error) {
	dir := cfg.CacheDir
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("buildkitd: find a cache directory: %w; set Config.CacheDir", err)
		}
		dir = filepath.Join(user, "fairlead", "buildkitd")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("buildkitd: resolve cache directory %q: %w", cfg.CacheDir, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("buildkitd: create cache directory: %w", err)
	}
	return dir, nil
}

// say writes a line of progress.
func (cfg Config) say(format string, args ...any) {
	if cfg.Progress != nil {
		// A reader who closed the pipe must not stop the work that is reported.
		_, _ = fmt.Fprintf(cfg.Progress, "buildkitd: "+format+"\n", args...)
	}
}
