package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/kind/pkg/apis/config/defaults"
)

// NodeImage is the name of an image that the engine holds and kind can make a
// node of. Where images can be pulled it is kind's own; elsewhere it is built
// from source, once, and kept in the cache directory.
func (l *Lab) NodeImage(ctx context.Context) (image string, err error) {
	engine, err := l.Engine(ctx)
	if err != nil {
		return "", err
	}
	err = l.locked(ctx, "node-image", func() error {
		image, err = l.nodeImageLocked(ctx, engine)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("lab: node image: %w", err)
	}
	return image, nil
}

func (l *Lab) nodeImageLocked(ctx context.Context, engine Engine) (string, error) {
	public := publicNodeImage()
	if engine.hasImage(ctx, public) {
		return public, nil
	}
	d, noSource := hostDebian(ctx)
	key, err := nodeKey(ctx, d)
	if err != nil {
		return "", err
	}
	image := "localhost/fairlead-lab/node:" + key
	archive := filepath.Join(l.cache, key+".tar")
	switch {
	case engine.hasImage(ctx, image):
		return image, nil
	case fileExists(archive):
		return image, l.progress.step("node image: loading "+archive, 20*time.Second, func() error {
			_, err := run(ctx, engine.name, "load", "--quiet", "--input", archive)
			return err
		})
	case canPull(ctx, public):
		return public, l.progress.step("node image: pulling "+public, time.Minute, func() error {
			_, err := run(ctx, engine.name, "pull", "--quiet", public)
			return err
		})
	case noSource != nil:
		return "", noSource
	}
	if err := l.buildNodeImage(ctx, engine, image); err != nil {
		return "", err
	}
	return image, l.progress.step("node image: saving to "+archive, 20*time.Second, func() error {
		return saveImage(ctx, engine, image, archive)
	})
}

// saveImage writes an image to an archive that is there wholly or not at all.
func saveImage(ctx context.Context, engine Engine, image, archive string) error {
	partial := archive + ".partial"
	// Podman would add to an archive that exists.
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	defer func() { _ = os.Remove(partial) }()
	if _, err := run(ctx, engine.name, "save", "--output", partial, image); err != nil {
		return err
	}
	return os.Rename(partial, archive)
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// publicNodeImage is kind's default image, pinned by its digest alone: Podman
// does not take a tag beside it.
func publicNodeImage() string {
	repository, digest, _ := strings.Cut(defaults.Image, "@")
	repository, _, _ = strings.Cut(repository, ":")
	return "docker.io/" + repository + "@" + digest
}

// buildNodeImage compiles Kubernetes, installs a root file system, and puts the
// one into the other the way kind builds its own images.
func (l *Lab) buildNodeImage(ctx context.Context, engine Engine, image string) error {
	return l.withWorkDir(func(dir string) error {
		root := filepath.Join(dir, "root")
		group, parts := errgroup.WithContext(ctx)
		group.Go(func() error { return l.compileNode(parts, filepath.Join(dir, "bin")) })
		group.Go(func() error { return l.installNodeRoot(parts, dir, root) })
		if err := group.Wait(); err != nil {
			return err
		}
		err := l.progress.step("node image: packing the control plane", 15*time.Second, func() error {
			return packControlPlane(ctx, dir, root)
		})
		if err != nil {
			return err
		}
		return l.progress.step("node image: assembling", 40*time.Second, func() error {
			return l.assembleNode(ctx, engine, dir, root, image)
		})
	})
}

func (l *Lab) compileNode(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	programs := append(append([]program{}, controlPlanePrograms...), nodePrograms...)
	return l.progress.step("node image: compiling Kubernetes, containerd, etcd and CoreDNS",
		9*time.Minute, func() error { return buildNodePrograms(ctx, dir, programs...) })
}

// installNodeRoot unpacks the base image into the folder root and adds the
// packages of a node.
func (l *Lab) installNodeRoot(ctx context.Context, dir, root string) error {
	images, err := l.baseImages(ctx)
	if err != nil {
		return err
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	return l.progress.step("node image: installing Debian packages", time.Minute, func() error {
		content := mutate.Extract(images.base)
		unpack := command{
			args:  []string{"tar", "--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--directory", root},
			stdin: content,
		}
		_, err := unpack.run(ctx)
		if err := errors.Join(err, content.Close()); err != nil {
			return fmt.Errorf("unpack the base image: %w", err)
		}
		return runRecipe(ctx, dir, "node-packages.sh", append([]string{root}, nodePackages...)...)
	})
}

// assembleNode makes the image: the root file system, imported; the recipe, run
// in a container of it; the outcome, committed.
func (l *Lab) assembleNode(ctx context.Context, engine Engine, dir, root, image string) error {
	kind, err := moduleDir(ctx, "sigs.k8s.io/kind")
	if err != nil {
		return err
	}
	kubernetes, err := run(ctx, filepath.Join(dir, "bin", "kubeadm"), "version", "--output", "short")
	if err != nil {
		return err
	}
	stage := image + "-root"
	if err := importRoot(ctx, engine, root, stage); err != nil {
		return err
	}
	name := "fairlead-lab-build-" + randomSuffix()
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		// What can't be removed now is a stopped container or an untagged layer.
		_, _ = run(cleanup, engine.name, "rm", "--force", name)
		_, _ = run(cleanup, engine.name, "rmi", stage)
	}()
	args := []string{engine.name, "run", "--name", name, "--privileged", "--network=none"}
	for _, mount := range [][2]string{
		{filepath.Join(dir, "bin"), "bin"},
		{filepath.Join(dir, "images"), "images"},
		{filepath.Join(kind, "images", "base", "files"), "kind"},
		{filepath.Join(dir, "recipe"), "recipe"},
	} {
		args = append(args, "--volume", mount[0]+":/build/"+mount[1]+":ro")
	}
	if _, err := run(ctx, append(args, stage, "bash", "/build/recipe/install.sh", kubernetes)...); err != nil {
		return err
	}
	_, err = run(ctx, engine.name, "commit",
		"--change", `ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]`,
		"--change", "CMD []",
		"--change", "ENV container=docker",
		"--change", "STOPSIGNAL SIGRTMIN+3",
		name, image)
	return err
}

// importRoot streams the folder root into the engine as an image of one layer.
func importRoot(ctx context.Context, engine Engine, root, image string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		pack := command{
			args:   []string{"tar", "--create", "--numeric-owner", "--one-file-system", "--directory", root, "."},
			stdout: w,
		}
		_, err := pack.run(ctx)
		packed <- errors.Join(err, w.CloseWithError(err))
	}()
	load := command{args: []string{engine.name, "import", "-", image}, stdin: r}
	_, err := load.run(ctx)
	// Ends the packing if the engine stopped reading.
	r.CloseWithError(io.ErrClosedPipe)
	if err != nil {
		cancel(err)
	}
	return errors.Join(err, <-packed)
}
