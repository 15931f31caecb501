package lab

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// debian says which Debian to make root file systems from.
type debian struct {
	suite      string // a release's code name
	mirror     string
	components string // comma-separated
}

// hostDebian is the suite this machine runs, from the mirror it uses itself.
func hostDebian(ctx context.Context) (debian, error) {
	release, err := readOSRelease()
	if err != nil {
		return debian{}, err
	}
	switch {
	case runtime.GOOS != "linux" || !release.debian() || release.codename == "":
		return debian{}, fmt.Errorf("lab: images can't be pulled, and building them from source needs Debian or a derivative, not %s", release.name)
	case os.Geteuid() != 0:
		return debian{}, errors.New("lab: images can't be pulled, and building them from source needs root")
	}
	targets, err := run(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return debian{}, fmt.Errorf("lab: find the package mirror: %w", err)
	}
	return pickMirror(release, targets)
}

// pickMirror chooses, from lines of "<address> <code name> <component>", the
// first mirror that carries the release's main suite, and its components.
func pickMirror(release osRelease, targets string) (debian, error) {
	picked := debian{suite: release.codename}
	var components []string
	for line := range strings.Lines(targets) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[1] != release.codename {
			continue
		}
		if picked.mirror == "" {
			picked.mirror = fields[0]
		}
		if fields[0] == picked.mirror {
			components = append(components, fields[2])
		}
	}
	if picked.mirror == "" {
		return debian{}, fmt.Errorf("lab: apt knows no mirror for %s; run apt-get update", release.codename)
	}
	picked.components = strings.Join(components, ",")
	return picked, nil
}

// withBaseRoot makes the base root file system in a temporary folder, lets use
// have it, and removes it.
func (l *Lab) withBaseRoot(ctx context.Context, d debian, use func(root string) error) error {
	if err := l.requireProgram(ctx, "debootstrap", "debootstrap"); err != nil {
		return err
	}
	return l.withWorkDir(func(dir string) error {
		root := filepath.Join(dir, "root")
		err := l.progress.step("base image: installing Debian "+d.suite, 40*time.Second, func() error {
			return runRecipe(ctx, dir, "base.sh", root, d.suite, d.mirror, d.components)
		})
		if err != nil {
			return fmt.Errorf("lab: make the base root file system: %w", err)
		}
		return use(root)
	})
}

// withWorkDir lets use have a folder in the cache directory, and removes it.
func (l *Lab) withWorkDir(use func(dir string) error) (err error) {
	dir, err := os.MkdirTemp(l.cache, "work-")
	if err != nil {
		return fmt.Errorf("lab: make room to build in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := unpackRecipe(filepath.Join(dir, "recipe")); err != nil {
		return err
	}
	return use(dir)
}

// runRecipe runs a script of the recipe that was unpacked into dir. It gets a
// mount namespace of its own, so that what it mounts is gone when it is gone,
// and a folder can be removed without reaching into a mounted file system.
func runRecipe(ctx context.Context, dir, script string, args ...string) error {
	path := filepath.Join(dir, "recipe", script)
	_, err := run(ctx, append([]string{"unshare", "--mount", "--propagation", "private", "sh", path}, args...)...)
	return err
}

// packRoot writes the folder root as a tar archive to path, with numeric
// owners. Special files and extended attributes are tar's business.
func packRoot(ctx context.Context, root, path string) error {
	if _, err := run(ctx, "tar", "--create", "--numeric-owner", "--one-file-system", "--sort=name",
		"--xattrs", "--xattrs-include=security.capability", "--file", path, "--directory", root, "."); err != nil {
		return fmt.Errorf("lab: pack a root file system: %w", err)
	}
	return nil
}

// tarFile adds one file to an archive, owned by root and without a time.
func tarFile(w *tar.Writer, name string, mode int64, content []byte) error {
	header := &tar.Header{Name: name, Mode: mode, Size: int64(len(content))}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}
