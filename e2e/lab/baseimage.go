package lab

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// compiledPackages are in the Go image's build cache, with all they import.
var compiledPackages = []string{"encoding/json", "flag", "html/template", "log/slog", "net/http", "os/signal"}

// buildBase makes the base image from Debian packages. The image reads its
// layer from a file that exists until the returned function is called.
func (l *Lab) buildBase(ctx context.Context, d debian) (v1.Image, func(), error) {
	archive, cleanup, err := l.tempFile("base-*.tar")
	if err != nil {
		return nil, nil, err
	}
	err = l.withBaseRoot(ctx, d, func(root string) error { return packRoot(ctx, root, archive) })
	if err != nil {
		cleanup()
		return nil, nil, err
	}
	image, err := appendTar(linuxImage(), archive, nil)
	if err != nil {
		cleanup()
		return nil, nil, fmt.Errorf("lab: make the base image: %w", err)
	}
	return image, cleanup, nil
}

// buildGolang adds this machine's Go toolchain to the base image.
func (l *Lab) buildGolang(ctx context.Context, base v1.Image) (v1.Image, func(), error) {
	goroot, err := run(ctx, "go", "env", "GOROOT")
	if err != nil {
		return nil, nil, fmt.Errorf("lab: find the Go toolchain: %w", err)
	}
	tree, removeTree, err := l.tempFile("golang-*.tar")
	if err != nil {
		return nil, nil, err
	}
	compiled, removeCompiled, err := l.tempFile("gocache-*.tar")
	if err != nil {
		removeTree()
		return nil, nil, err
	}
	cleanup := func() { removeTree(); removeCompiled() }
	image, err := l.assembleGolang(ctx, base, goroot, tree, compiled)
	if err != nil {
		cleanup()
		return nil, nil, fmt.Errorf("lab: make the Go image: %w", err)
	}
	return image, cleanup, nil
}

// assembleGolang writes the two layers of the Go image into the files tree and
// compiled, and appends them to base.
func (l *Lab) assembleGolang(ctx context.Context, base v1.Image, goroot, tree, compiled string) (image v1.Image, err error) {
	err = l.progress.step("Go image: packing "+goroot, 10*time.Second, func() error {
		if err := packToolchain(ctx, goroot, tree); err != nil {
			return fmt.Errorf("pack %s: %w", goroot, err)
		}
		image, err = appendTar(base, tree, []string{
			"PATH=/go/bin:/usr/local/go/bin:" + systemPath, "GOPATH=/go", "GOTOOLCHAIN=local", "CGO_ENABLED=0",
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	err = l.progress.step("Go image: compiling the standard library", 40*time.Second, func() error {
		if err := l.packStandardLibrary(ctx, compiled); err != nil {
			return err
		}
		image, err = appendTar(image, compiled, nil)
		return err
	})
	return image, err
}

// packStandardLibrary writes compiled packages that a web service uses to a tar
// archive at path, where the image's user root finds them as its build cache.
func (l *Lab) packStandardLibrary(ctx context.Context, path string) error {
	return l.withWorkDir(func(dir string) error {
		cache := filepath.Join(dir, "root", ".cache", "go-build")
		build := command{
			args: append([]string{"go", "build", "-trimpath"}, compiledPackages...),
			dir:  dir,
			// As in a container of the image: nothing of this machine's settings.
			env: []string{"GOCACHE=" + cache, "CGO_ENABLED=0", "GOOS=linux", "GOEXPERIMENT=", "GOFLAGS=", "GOWORK=off"},
		}
		if _, err := build.run(ctx); err != nil {
			return fmt.Errorf("compile the standard library: %w", err)
		}
		_, err := run(ctx, "tar", "--create", "--owner=0", "--group=0", "--sort=name", "--file", path, "--directory", dir, "root")
		return err
	})
}

// tempFile names a new file in the cache directory and how to remove it.
func (l *Lab) tempFile(pattern string) (path string, cleanup func(), err error) {
	file, err := os.CreateTemp(l.cache, pattern)
	if err != nil {
		return "", nil, fmt.Errorf("lab: make room for a layer: %w", err)
	}
	path = file.Name()
	return path, func() { _ = os.Remove(path) }, file.Close()
}

// linuxImage is an OCI image for this architecture without content.
func linuxImage() v1.Image {
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	// Mutating the configuration of the empty image can't fail.
	image, _ = mutate.ConfigFile(image, &v1.ConfigFile{
		OS:           "linux",
		Architecture: runtime.GOARCH,
		RootFS:       v1.RootFS{Type: "layers"},
		Config:       v1.Config{Env: []string{"PATH=" + systemPath}, Cmd: []string{"bash"}},
	})
	return image
}

// appendTar adds the archive at path to image as a layer, and replaces the
// environment unless env is nil.
func appendTar(image v1.Image, path string, env []string) (v1.Image, error) {
	layer, err := tarball.LayerFromFile(path,
		tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(gzip.BestSpeed),
		tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	image, err = mutate.AppendLayers(image, layer)
	if err != nil || env == nil {
		return image, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config := file.Config
	config.Env = env
	return mutate.Config(image, config)
}

// packToolchain writes what compiling needs of the Go tree at goroot to a tar
// archive at path, below usr/local/go.
func packToolchain(ctx context.Context, goroot, path string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := tar.NewWriter(file)
	defer func() { err = errors.Join(err, w.Close()) }()

	skip := []string{".git", "api", "doc", "misc", "test"}
	return filepath.WalkDir(goroot, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(goroot, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains(skip, relative) || entry.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		return packToolchainFile(w, path, filepath.ToSlash(relative), entry)
	})
}

func packToolchainFile(w *tar.Writer, path, relative string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	header := &tar.Header{Name: "usr/local/go/" + relative, Mode: mode, Size: info.Size()}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	_, err = io.Copy(w, file)
	return err
}
