package lab

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// probeTimeout is how long a registry may take to answer before the lab
// concludes that images can't be pulled here.
const probeTimeout = 8 * time.Second

// BaseImages are references, pinned by digest, of images to build samples from.
// Both are Debian for this machine's architecture, with a package database that
// a scanner can read, and run as root unless told otherwise.
type BaseImages struct {
	// Base has a shell, curl, CA certificates and the user nobody.
	Base string
	// Go is Base with a Go toolchain in /usr/local/go, on the PATH. It
	// compiles programs that need only the standard library without network,
	// and, where it was built here, finds that library compiled already when
	// it builds as root with -trimpath and CGO_ENABLED=0.
	Go string
}

// PushBaseImages pushes the base images to a registry, such as localhost:5000,
// as lab/base:latest and lab/golang:latest. It pulls or builds them when they
// are not in the cache yet, and uploads only what the registry lacks.
func (l *Lab) PushBaseImages(ctx context.Context, registry string) (BaseImages, error) {
	images, err := l.baseImages(ctx)
	if err != nil {
		return BaseImages{}, err
	}
	base, err := pushImage(ctx, registry+"/lab/base:latest", images.base)
	if err != nil {
		return BaseImages{}, err
	}
	golang, err := pushImage(ctx, registry+"/lab/golang:latest", images.golang)
	if err != nil {
		return BaseImages{}, err
	}
	return BaseImages{Base: base, Go: golang}, nil
}

// pushImage pushes image to a tag and returns the reference pinned by digest.
func pushImage(ctx context.Context, tag string, image v1.Image) (string, error) {
	ref, err := name.NewTag(tag)
	if err != nil {
		return "", fmt.Errorf("lab: push a base image: %w", err)
	}
	if err := remote.Write(ref, image, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("lab: push %s: %w; is the registry serving?", tag, err)
	}
	digest, err := image.Digest()
	if err != nil {
		return "", fmt.Errorf("lab: push %s: %w", tag, err)
	}
	return ref.Digest(digest.String()).String(), nil
}

// baseImagePair is both base images, read lazily from the cache.
type baseImagePair struct{ base, golang v1.Image }

// baseImages finds the base images in the cache, or pulls them, or builds them.
func (l *Lab) baseImages(ctx context.Context) (pair baseImagePair, err error) {
	err = l.locked(ctx, "base-images", func() error {
		pair, err = l.baseImagesLocked(ctx)
		return err
	})
	return pair, err
}

func (l *Lab) baseImagesLocked(ctx context.Context) (baseImagePair, error) {
	compiler, err := run(ctx, "go", "env", "GOVERSION")
	if err != nil {
		return baseImagePair{}, fmt.Errorf("lab: ask for the compiler's version: %w", err)
	}
	public := publicBaseImages(compiler)
	d, noSource := hostDebian(ctx)
	key, err := baseKey(d)
	if err != nil {
		return baseImagePair{}, err
	}
	built := noSource == nil && fileExists(l.storePath(key))
	pulled := l.stored(public[0]) && l.stored(public[1])
	if pulled || !built && canPull(ctx, public[0]) {
		return l.pulledBaseImages(ctx, public)
	}
	if noSource != nil {
		return baseImagePair{}, noSource
	}
	base, err := l.storedImage(key, func() (v1.Image, func(), error) { return l.buildBase(ctx, d) })
	if err != nil {
		return baseImagePair{}, err
	}
	golang, err := l.storedImage(golangKey(key, compiler), func() (v1.Image, func(), error) { return l.buildGolang(ctx, base) })
	return baseImagePair{base, golang}, err
}

func (l *Lab) pulledBaseImages(ctx context.Context, public [2]string) (baseImagePair, error) {
	base, err := l.pulledImage(ctx, public[0])
	if err != nil {
		return baseImagePair{}, err
	}
	golang, err := l.pulledImage(ctx, public[1])
	return baseImagePair{base, golang}, err
}

// publicBaseImages are the public counterparts of the images built here, for a
// compiler version such as go1.26.8. The second builds on the first's layers.
func publicBaseImages(compiler string) [2]string {
	version := strings.TrimPrefix(compiler, "go")
	if parts := strings.SplitN(version, ".", 3); len(parts) == 3 {
		version = parts[0] + "." + parts[1]
	}
	return [2]string{
		"docker.io/library/buildpack-deps:bookworm-curl",
		"docker.io/library/golang:" + version + "-bookworm",
	}
}

// canPull reports whether an image's registry answers for it, soon.
func canPull(ctx context.Context, image string) bool {
	ref, err := name.ParseReference(image)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err = remote.Head(ref, remote.WithContext(ctx), remote.WithRetryBackoff(remote.Backoff{Steps: 1}))
	return err == nil
}

// pulledImage is a public image for this machine's architecture, kept in the
// cache for good, so that its tag is resolved once.
func (l *Lab) pulledImage(ctx context.Context, image string) (v1.Image, error) {
	return l.storedImage(image, func() (v1.Image, func(), error) {
		ref, err := name.ParseReference(image)
		if err != nil {
			return nil, nil, fmt.Errorf("lab: pull %s: %w", image, err)
		}
		l.progress.say("base image: pulling %s", image)
		pulled, err := remote.Image(ref, remote.WithContext(ctx),
			remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}))
		if err != nil {
			return nil, nil, fmt.Errorf("lab: pull %s: %w", image, err)
		}
		return pulled, func() {}, nil
	})
}

// storePath is the folder of the cache where the image called key is kept, as
// an OCI layout.
func (l *Lab) storePath(key string) string {
	return filepath.Join(l.cache, "images", strings.NewReplacer("/", "_", ":", "_").Replace(key))
}

func (l *Lab) stored(key string) bool {
	_, err := os.Stat(l.storePath(key))
	return err == nil
}

// storedImage is the image called key from the cache. If it is not there, create
// provides it and says how to clean up once it has been stored.
func (l *Lab) storedImage(key string, create func() (v1.Image, func(), error)) (v1.Image, error) {
	path := l.storePath(key)
	if !fileExists(l.storePath(key)) {
		image, cleanup, err := create()
		if err != nil {
			return nil, err
		}
		defer cleanup()
		if err := l.storeImage(path, image); err != nil {
			return nil, fmt.Errorf("lab: store image %s: %w", key, err)
		}
	}
	image, err := loadImage(path)
	if err != nil {
		return nil, fmt.Errorf("lab: read image %s from the cache: %w; remove %s", key, err, path)
	}
	return image, nil
}

// storeImage writes image beside path and renames it, so that a layout in the
// cache is always whole.
func (l *Lab) storeImage(path string, image v1.Image) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	partial, err := os.MkdirTemp(filepath.Dir(path), ".partial-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(partial) }()
	store, err := layout.Write(partial, empty.Index)
	if err != nil {
		return err
	}
	if err := store.AppendImage(image); err != nil {
		return err
	}
	err = os.Rename(partial, path)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// loadImage opens the only image of the layout at path.
func loadImage(path string) (v1.Image, error) {
	store, err := layout.FromPath(path)
	if err != nil {
		return nil, err
	}
	index, err := store.ImageIndex()
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("%d images instead of one", len(manifest.Manifests))
	}
	return store.Image(manifest.Manifests[0].Digest)
}

// entrypoint is the program that an image runs, which it takes out of the image
// into the cache.
func (l *Lab) entrypoint(image v1.Image) (string, error) {
	digest, err := image.Digest()
	if err != nil {
		return "", err
	}
	program := filepath.Join(l.cache, "programs", digest.Hex)
	if fileExists(program) {
		return program, nil
	}
	config, err := image.ConfigFile()
	if err != nil {
		return "", err
	}
	if len(config.Config.Entrypoint) == 0 {
		return "", fmt.Errorf("image %s has no entrypoint", digest)
	}
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return "", err
	}
	return program, extractFile(image, strings.TrimPrefix(config.Config.Entrypoint[0], "/"), program)
}

// extractFile writes a file of an image to path, as a program, whole or not at all.
func extractFile(image v1.Image, name, path string) error {
	files := mutate.Extract(image)
	defer func() { _ = files.Close() }() // it was only read
	archive := tar.NewReader(files)
	var header *tar.Header
	for {
		var err error
		header, err = archive.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the image has no file %s: %w", name, fs.ErrNotExist)
		}
		if err != nil {
			return err
		}
		if strings.TrimPrefix(header.Name, "/") == name {
			break
		}
	}
	partial, err := os.CreateTemp(filepath.Dir(path), ".partial-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(partial.Name()) }() // gone once it was renamed
	_, err = io.CopyN(partial, archive, header.Size)
	if err := errors.Join(err, partial.Chmod(0o755), partial.Close()); err != nil {
		return err
	}
	return os.Rename(partial.Name(), path)
}
