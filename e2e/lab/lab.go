package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"
)

// Config says where a lab keeps its things and what it may do to the machine.
// The zero value is useful: silent, cached under the user's cache directory,
// installing nothing.
type Config struct {
	// CacheDir holds finished images and layers between runs, about 2 GB where
	// they are built from source. Empty means fairlead/lab in os.UserCacheDir.
	CacheDir string

	// Progress receives one line per step, with elapsed time and, for slow
	// steps, an estimate. Nil means silence.
	Progress io.Writer

	// LogDir receives the logs of a cluster that fails to start, in a folder
	// named after it. Empty means that they are lost with the cluster.
	LogDir string

	// InstallPackages lets the lab install missing Debian packages (Podman,
	// debootstrap) with apt-get when it runs as root on Debian or a derivative.
	// Otherwise a missing program is an error that says what to install.
	InstallPackages bool
}

// Lab makes clusters and base images. Its methods are safe for concurrent use,
// also by several processes that share a cache directory.
type Lab struct {
	cache    string
	logDir   string
	install  bool
	progress *progress

	engineMu sync.Mutex
	engine   *Engine
}

// New returns a lab. It creates the cache directory and does nothing else:
// the engine and the images are looked for when they are first needed.
func New(cfg Config) (*Lab, error) {
	cache := cfg.CacheDir
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("lab: find a cache directory: %w; set Config.CacheDir", err)
		}
		cache = filepath.Join(user, "fairlead", "lab")
	}
	cache, err := filepath.Abs(cache)
	if err != nil {
		return nil, fmt.Errorf("lab: resolve cache directory %q: %w", cfg.CacheDir, err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("lab: create cache directory: %w", err)
	}
	return &Lab{cache: cache, logDir: cfg.LogDir, install: cfg.InstallPackages, progress: newProgress(cfg.Progress)}, nil
}

// Prepare makes everything slow that later calls need: a working engine, the
// node image, the base images and Prometheus's. It is quick when they are there
// already.
func (l *Lab) Prepare(ctx context.Context) error {
	if _, err := l.Engine(ctx); err != nil {
		return err
	}
	// The base images come with packages and the node image with a compiler, which
	// don't keep each other from working.
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		_, err := l.baseImages(ctx)
		return err
	})
	group.Go(func() error {
		if _, err := l.NodeImage(ctx); err != nil {
			return err
		}
		_, err := l.serverImage(ctx, prometheus)
		return err
	})
	return group.Wait()
}

// Clean deletes clusters that killed processes left behind, and the cache. It
// refuses while a cluster is in use. The engine keeps the node image.
func (l *Lab) Clean(ctx context.Context) error {
	if engine, err := l.Engine(ctx); err == nil {
		if err := l.deleteAbandoned(engine); err != nil {
			return err
		}
	}
	inUse, err := filepath.Glob(filepath.Join(l.cache, "clusters", clusterPrefix+"*"+lockSuffix))
	if err != nil {
		return err
	}
	if len(inUse) > 0 {
		return fmt.Errorf("lab: clean %s: %d clusters are in use", l.cache, len(inUse))
	}
	return os.RemoveAll(l.cache)
}

// locked runs work while holding the lock called name, which is shared by every
// process that uses this cache directory.
func (l *Lab) locked(ctx context.Context, name string, work func() error) (err error) {
	lock := flock.New(filepath.Join(l.cache, name+".lock"))
	if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
		return fmt.Errorf("lab: wait for %s, which another process may be building: %w", lock.Path(), err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	return work()
}
