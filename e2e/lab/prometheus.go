package lab

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

const (
	// publicPrometheus is version 3.5.0, for all architectures.
	publicPrometheus = "docker.io/prom/prometheus@sha256:63805ebb8d2b3920190daf1cb14a60871b16fd38bed42b857a3182bc621f4996"

	// prometheusProgram is where Debian's package has the server.
	prometheusProgram = "usr/bin/prometheus"

	// nobody is the user that Prometheus's own image runs as.
	nobody = "65534:65534"
)

// PushPrometheus pushes an image of the Prometheus server to a registry, such as
// localhost:5000, as lab/prometheus:latest, and returns the reference pinned by
// digest. The server is the image's entrypoint, and runs as nobody. Where images
// can be pulled it is Prometheus's own; elsewhere it is Debian's package on the
// base image.
func (l *Lab) PushPrometheus(ctx context.Context, registry string) (string, error) {
	image, err := l.prometheusImage(ctx)
	if err != nil {
		return "", err
	}
	return pushImage(ctx, registry+"/lab/prometheus:latest", image)
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
	d, noSource := hostDebian(ctx)
	base, err := baseKey(d)
	if err != nil {
		return nil, err
	}
	key := newKey("prometheus", base, prometheusProgram, nobody).String()
	built := noSource == nil && l.stored(key)
	if l.stored(publicPrometheus) || !built && canPull(ctx, publicPrometheus) {
		return l.pulledImage(ctx, publicPrometheus)
	}
	if noSource != nil {
		return nil, noSource
	}
	return l.storedImage(key, func() (image v1.Image, cleanup func(), err error) {
		images, err := l.baseImages(ctx)
		if err != nil {
			return nil, nil, err
		}
		err = l.progress.step("Prometheus image: fetching Debian's package", 10*time.Second, func() error {
			image, cleanup, err = l.buildPrometheus(ctx, images.base)
			return err
		})
		return image, cleanup, err
	})
}

// buildPrometheus adds the server to the base image. The image reads its layer
// from a file that exists until the returned function is called.
func (l *Lab) buildPrometheus(ctx context.Context, base v1.Image) (v1.Image, func(), error) {
	archive, cleanup, err := l.tempFile("prometheus-*.tar")
	if err != nil {
		return nil, nil, err
	}
	image, err := l.assemblePrometheus(ctx, base, archive)
	if err != nil {
		cleanup()
		return nil, nil, fmt.Errorf("lab: make the Prometheus image: %w", err)
	}
	return image, cleanup, nil
}

func (l *Lab) assemblePrometheus(ctx context.Context, base v1.Image, archive string) (v1.Image, error) {
	program, err := l.fetchPrometheus(ctx)
	if err != nil {
		return nil, err
	}
	if err := writeProgramTar(archive, prometheusProgram, program); err != nil {
		return nil, err
	}
	image, err := appendTar(base, archive, nil)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config := file.Config
	config.Entrypoint, config.Cmd, config.User = []string{"/" + prometheusProgram}, nil, nobody
	return mutate.Config(image, config)
}

// fetchPrometheus takes the server out of this machine's Debian's package. Of the
// package, which would bring a web interface along, the server needs nothing but
// the C library. Lists and package are kept apart from the machine's own.
func (l *Lab) fetchPrometheus(ctx context.Context) (program []byte, err error) {
	err = l.withWorkDir(func(dir string) error {
		lists := filepath.Join(dir, "lists")
		if err := os.Mkdir(lists, 0o755); err != nil {
			return err
		}
		apt := []string{"apt-get", "-q", "-o", "Dir::State::Lists=" + lists, "-o", "APT::Sandbox::User=root"}
		if _, err := run(ctx, append(apt, "update")...); err != nil {
			return fmt.Errorf("fetch the package lists: %w", err)
		}
		// Apt checks the package against the lists, and those against Debian's keys.
		download := command{args: append(apt, "download", "prometheus"), dir: dir}
		if _, err := download.run(ctx); err != nil {
			return fmt.Errorf("fetch the package: %w", err)
		}
		packages, err := filepath.Glob(filepath.Join(dir, "prometheus_*.deb"))
		if err != nil || len(packages) != 1 {
			return fmt.Errorf("apt left %d packages instead of one", len(packages))
		}
		root := filepath.Join(dir, "root")
		if _, err := run(ctx, "dpkg-deb", "--extract", packages[0], root); err != nil {
			return fmt.Errorf("unpack the package: %w", err)
		}
		program, err = os.ReadFile(filepath.Join(root, prometheusProgram))
		return err
	})
	return program, err
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
