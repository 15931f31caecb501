package lab

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

const (
	// publicPrometheus is version 3.13.0, for all architectures. The module in the
	// folder prometheus pins the same version.
	publicPrometheus = "docker.io/prom/prometheus@sha256:c6b27ea434f8389bfe233fbc7be381cf50587c286e871bc842008f5a1b1908a7"

	prometheusProgram = "github.com/prometheus/prometheus/cmd/prometheus"
	// prometheusTags leave out of its service discoveries all but Kubernetes', whose
	// dependencies the node image has as well.
	prometheusTags = "remove_all_sd,enable_kubernetes_sd"

	// nobody is the user that Prometheus's own image runs as.
	nobody = "65534:65534"
)

// PushPrometheus pushes an image of the Prometheus server to a registry, such as
// localhost:5000, as lab/prometheus:latest, and returns the reference pinned by
// digest. The server is the image's entrypoint, and runs as nobody. Where images
// can be pulled it is Prometheus's own; elsewhere it is built from source, without
// the web interface.
func (l *Lab) PushPrometheus(ctx context.Context, registry string) (string, error) {
	image, err := l.prometheusImage(ctx)
	if err != nil {
		return "", err
	}
	return pushImage(ctx, registry+"/lab/prometheus:latest", image)
}

// Prometheus returns the path of the Prometheus server's program, for tests that
// need no cluster. It is that of the image that PushPrometheus pushes, and runs on
// Linux only.
func (l *Lab) Prometheus(ctx context.Context) (program string, err error) {
	if runtime.GOOS != "linux" {
		return "", fmt.Errorf("lab: the Prometheus server runs on Linux, not on %s", runtime.GOOS)
	}
	err = l.locked(ctx, "prometheus", func() error {
		image, err := l.prometheusImageLocked(ctx)
		if err != nil {
			return err
		}
		if program, err = l.entrypoint(image); err != nil {
			return fmt.Errorf("lab: take Prometheus out of its image: %w", err)
		}
		return nil
	})
	return program, err
}

// prometheusImage finds the image in the cache, or pulls it, or makes it.
func (l *Lab) prometheusImage(ctx context.Context) (image v1.Image, err error) {
	err = l.locked(ctx, "prometheus", func() error {
		image, err = l.prometheusImageLocked(ctx)
		return err
	})
	return image, err
}

func (l *Lab) prometheusImageLocked(ctx context.Context) (v1.Image, error) {
	source, err := labModule(ctx, "prometheus")
	if err != nil {
		return nil, err
	}
	key, err := prometheusKey(ctx, source)
	if err != nil {
		return nil, err
	}
	if l.stored(publicPrometheus) || !l.stored(key) && canPull(ctx, publicPrometheus) {
		return l.pulledImage(ctx, publicPrometheus)
	}
	return l.storedImage(key, func() (image v1.Image, cleanup func(), err error) {
		archive, cleanup, err := l.tempFile("prometheus-*.tar")
		if err != nil {
			return nil, nil, err
		}
		err = l.progress.step("Prometheus image: compiling", 2*time.Minute, func() error {
			image, err = l.buildPrometheus(ctx, source, archive)
			return err
		})
		if err != nil {
			cleanup()
			return nil, nil, fmt.Errorf("lab: make the Prometheus image: %w", err)
		}
		return image, cleanup, nil
	})
}

// prometheusKey names what the image is made of.
func prometheusKey(ctx context.Context, source string) (string, error) {
	compiler, err := run(ctx, "go", "env", "GOVERSION")
	if err != nil {
		return "", fmt.Errorf("lab: ask for the compiler's version: %w", err)
	}
	key := newKey("prometheus", runtime.GOARCH, compiler, prometheusTags)
	for _, name := range []string{"go.mod", "go.sum"} {
		if err := key.addFile(filepath.Join(source, name)); err != nil {
			return "", err
		}
	}
	return key.String(), nil
}

// buildPrometheus makes an image of the static server alone, whose layer it writes
// to the file archive.
func (l *Lab) buildPrometheus(ctx context.Context, source, archive string) (image v1.Image, err error) {
	err = l.withWorkDir(func(dir string) error {
		path := filepath.Join(dir, "prometheus")
		build := command{
			args: []string{"go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", prometheusTags, "-o", path, prometheusProgram},
			dir:  source, env: []string{"GOWORK=off", "CGO_ENABLED=0", "GOOS=linux"},
		}
		if _, err := build.run(ctx); err != nil {
			return err
		}
		program, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := writeProgramTar(archive, "prometheus", program); err != nil {
			return err
		}
		image, err = appendTar(linuxImage(), archive, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return mutate.Config(image, v1.Config{Entrypoint: []string{"/prometheus"}, User: nobody})
}

// writeProgramTar writes an archive of one executable file.
func writeProgramTar(path, name string, program []byte) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := tar.NewWriter(file)
	return errors.Join(tarFile(w, name, 0o755, program), w.Close())
}
