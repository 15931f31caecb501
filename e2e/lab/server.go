package lab

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// nobody is the user that the images of servers run as.
const nobody = "65534:65534"

// server is a program that runs in the cluster from an image of its own.
type server struct {
	name    string        // of the image, the program, and the folder of the module that pins it
	public  string        // the same version's public image, for all architectures; empty to compile in any case
	program string        // import path
	tags    string        // for the compiler
	usually time.Duration // to compile
}

// push pushes the server's image to a registry, as lab/<name>:latest, and returns
// the reference pinned by digest.
func (l *Lab) push(ctx context.Context, registry string, s server) (string, error) {
	image, err := l.serverImage(ctx, s)
	if err != nil {
		return "", err
	}
	return pushImage(ctx, registry+"/lab/"+s.name+":latest", image)
}

// serverImage finds the image in the cache, or pulls it, or makes it.
func (l *Lab) serverImage(ctx context.Context, s server) (image v1.Image, err error) {
	err = l.locked(ctx, s.name, func() error {
		image, err = l.serverImageLocked(ctx, s)
		return err
	})
	return image, err
}

func (l *Lab) serverImageLocked(ctx context.Context, s server) (v1.Image, error) {
	source, err := labModule(ctx, s.name)
	if err != nil {
		return nil, err
	}
	key, err := s.key(ctx, source)
	if err != nil {
		return nil, err
	}
	if s.public != "" && (l.stored(s.public) || !l.stored(key) && canPull(ctx, s.public)) {
		return l.pulledImage(ctx, s.public)
	}
	return l.storedImage(key, func() (image v1.Image, cleanup func(), err error) {
		archive, cleanup, err := l.tempFile(s.name + "-*.tar")
		if err != nil {
			return nil, nil, err
		}
		err = l.progress.step(s.name+" image: compiling", s.usually, func() error {
			image, err = l.buildServer(ctx, s, source, archive)
			return err
		})
		if err != nil {
			cleanup()
			return nil, nil, fmt.Errorf("lab: make the image of %s: %w", s.name, err)
		}
		return image, cleanup, nil
	})
}

// key names what the image is made of.
func (s server) key(ctx context.Context, source string) (string, error) {
	compiler, err := run(ctx, "go", "env", "GOVERSION")
	if err != nil {
		return "", fmt.Errorf("lab: ask for the compiler's version: %w", err)
	}
	key := newKey(s.name, runtime.GOARCH, compiler, s.tags)
	err = filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return key.addFile(path)
	})
	if err != nil {
		return "", err
	}
	return key.String(), nil
}

// buildServer makes an image of the static program alone, whose layer it writes to
// the file archive.
func (l *Lab) buildServer(ctx context.Context, s server, source, archive string) (image v1.Image, err error) {
	err = l.withWorkDir(func(dir string) error {
		path := filepath.Join(dir, s.name)
		build := command{
			args: []string{"go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", s.tags, "-o", path, s.program},
			dir:  source, env: []string{"GOWORK=off", "CGO_ENABLED=0", "GOOS=linux"},
		}
		if _, err := build.run(ctx); err != nil {
			return err
		}
		program, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := writeProgramTar(archive, s.name, program); err != nil {
			return err
		}
		image, err = appendTar(linuxImage(), archive, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return mutate.Config(image, v1.Config{Entrypoint: []string{"/" + s.name}, User: nobody})
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
