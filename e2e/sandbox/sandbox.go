// Package sandbox assembles, on one machine, everything that a delivery needs:
// a kind cluster, a registry that the cluster can pull from, BuildKit, base
// images to build from, a vulnerability database and, if asked for, Prometheus.
// The demonstration and the end-to-end tests deliver to it.
//
//	box, err := sandbox.Start(ctx, sandbox.Config{Progress: os.Stderr})
//	if err != nil { ... }
//	defer box.Close()
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-dev/fairlead/e2e/lab"
	"github.com/fairlead-dev/fairlead/e2e/lab/advisories"
	"github.com/fairlead-dev/fairlead/e2e/lab/buildkitd"
	"github.com/fairlead-dev/fairlead/registry"
)

// Config says what is there already. The zero value makes everything.
type Config struct {
	// Lab makes the cluster and the base images. Nil makes one that installs
	// missing packages and reports to Progress.
	Lab *lab.Lab
	// Cluster is a cluster of the lab's to use instead of a new one. Close leaves
	// it running.
	Cluster *lab.Cluster
	// Kubeconfig is a file that leads to any other cluster to use. It needs a
	// Registry that this cluster can pull from.
	Kubeconfig string
	// Registry is a registry on this machine to use instead of a new one, as
	// "localhost:port". It must take pushes from anybody.
	Registry string
	// Prometheus runs one in the cluster, for what goes by metrics. It finds pods by
	// the annotations prometheus.io/scrape and prometheus.io/port.
	Prometheus bool
	// Progress receives a line for each step. Nil means silence.
	Progress io.Writer
}

// Sandbox is a place to deliver to.
type Sandbox struct {
	// Kubeconfig is the file that leads to the cluster.
	Kubeconfig string
	// Registry is the host and port that both this process and the nodes know the
	// registry by.
	Registry string
	// BuildKit is what buildkit.Config.Address takes.
	BuildKit string
	// Database is the vulnerability database's reference, pinned by digest.
	Database string
	// Base are the images to build from, pinned by digest.
	Base lab.BaseImages
	// Prometheus is the URL, on this machine, of the one in the cluster. It has the
	// series of pods with the labels namespace, pod and release, from a few seconds
	// after their start until they end. Empty unless it runs.
	Prometheus string

	maker   *lab.Lab
	mu      sync.Mutex
	closers []func() error
}

// Start makes what cfg doesn't name, side by side, and returns when all of it is
// ready. When it fails, or ctx ends, nothing is left behind.
func Start(ctx context.Context, cfg Config) (_ *Sandbox, err error) {
	if cfg.Kubeconfig != "" && cfg.Registry == "" {
		return nil, errors.New("sandbox: a cluster that exists needs a registry that it can pull from: name one")
	}
	maker := cfg.Lab
	if maker == nil {
		if maker, err = lab.New(lab.Config{InstallPackages: true, Progress: cfg.Progress}); err != nil {
			return nil, err
		}
	}
	box := &Sandbox{Kubeconfig: cfg.Kubeconfig, Registry: cfg.Registry, maker: maker}
	defer func() {
		if err != nil {
			err = errors.Join(err, box.Close())
		}
	}()

	if box.Registry == "" {
		if err := box.startRegistry(ctx); err != nil {
			return nil, err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if box.Kubeconfig == "" {
			if err := box.connectCluster(ctx, cfg.Cluster); err != nil {
				return err
			}
		}
		if !cfg.Prometheus {
			return nil
		}
		return box.RunPrometheus(ctx)
	})
	group.Go(func() (err error) {
		box.Base, err = maker.PushBaseImages(ctx, box.Registry)
		return err
	})
	group.Go(func() (err error) {
		box.Database, err = advisories.Push(ctx, box.Registry+"/lab/trivy-db:2", time.Now())
		return err
	})
	group.Go(func() error {
		daemon, err := buildkitd.Start(ctx, buildkitd.Config{
			PlainHTTP: []string{box.Registry}, InstallPackages: true, Progress: cfg.Progress,
		})
		if err != nil {
			return err
		}
		box.closeWith(daemon.Close)
		box.BuildKit = daemon.Address()
		return nil
	})
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	return box, nil
}

func (b *Sandbox) startRegistry(ctx context.Context) error {
	// It lives as long as the sandbox, not as long as the start of it.
	server, err := registry.Serve(context.WithoutCancel(ctx), registry.Options{})
	if err != nil {
		return err
	}
	b.closeWith(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return server.Close(ctx)
	})
	_, port, err := net.SplitHostPort(server.Addr())
	b.Registry = net.JoinHostPort("localhost", port)
	return err
}

// connectCluster makes the registry reachable from the cluster, which it starts if
// there is none.
func (b *Sandbox) connectCluster(ctx context.Context, cluster *lab.Cluster) (err error) {
	if cluster == nil {
		if cluster, err = b.maker.StartCluster(ctx); err != nil {
			return err
		}
		b.closeWith(cluster.Close)
	}
	b.Kubeconfig = cluster.KubeconfigPath()
	_, port, err := net.SplitHostPort(b.Registry)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	return cluster.ConnectRegistry(ctx, number)
}

func (b *Sandbox) closeWith(stop func() error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closers = append(b.closers, stop)
}

// Close stops and removes what Start made, the last first.
func (b *Sandbox) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for i := len(b.closers) - 1; i >= 0; i-- {
		errs = append(errs, b.closers[i]())
	}
	b.closers = nil
	return errors.Join(errs...)
}
