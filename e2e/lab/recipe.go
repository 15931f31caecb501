package lab

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// recipe holds the scripts and files that make the root file systems.
//
//go:embed recipe
var recipe embed.FS

// nodePackages are what kind's base image installs and this node needs, plus a
// systemd that boots, runc, and the plugins of the pod network. Debian's names.
var nodePackages = []string{
	"bash", "conntrack", "containernetworking-plugins", "e2fsprogs", "ethtool",
	"iproute2", "iptables", "jq", "kmod", "libseccomp2", "mount", "nftables",
	"pigz", "procps", "runc", "socat", "systemd", "systemd-sysv", "util-linux",
}

// unpackRecipe writes the recipe's files into the folder dir.
func unpackRecipe(dir string) error {
	files, err := fs.Sub(recipe, "recipe")
	if err != nil {
		return err
	}
	if err := os.CopyFS(dir, files); err != nil {
		return fmt.Errorf("lab: unpack the recipe: %w", err)
	}
	return nil
}

// baseKey names what the base image is made of.
func baseKey(d debian) (string, error) {
	key := newKey("base", d.suite, runtime.GOARCH)
	return key.withRecipe("recipe/base.sh")
}

// golangKey names what the Go image is made of, on top of the base image.
func golangKey(base, compiler string) string {
	key := newKey("golang", append([]string{base, compiler}, compiledPackages...)...)
	return key.String()
}

// nodeKey names what the node image is made of: the recipe, the pinned modules
// and mains, the compiler, the packages and the Debian suite.
func nodeKey(ctx context.Context, d debian) (string, error) {
	source, err := nodeImageSource(ctx)
	if err != nil {
		return "", err
	}
	kind, err := moduleDir(ctx, "sigs.k8s.io/kind")
	if err != nil {
		return "", fmt.Errorf("lab: find kind's files: %w", err)
	}
	compiler, err := run(ctx, "go", "env", "GOVERSION")
	if err != nil {
		return "", fmt.Errorf("lab: ask for the compiler's version: %w", err)
	}
	key := newKey("node", d.suite, runtime.GOARCH, compiler, filepath.Base(kind), strings.Join(nodePackages, " "))
	mains, err := filepath.Glob(filepath.Join(source, "cmd", "*", "*.go"))
	if err != nil {
		return "", err
	}
	for _, path := range append([]string{filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum")}, mains...) {
		if err := key.addFile(path); err != nil {
			return "", err
		}
	}
	return key.withRecipe("recipe")
}

// cacheKey names a cached thing by the content of what it is made of.
type cacheKey struct {
	kind string
	sum  hash.Hash
}

func newKey(kind string, parts ...string) cacheKey {
	key := cacheKey{kind: kind, sum: sha256.New()}
	for _, part := range parts {
		key.write(part, sha256.Sum256([]byte(part)))
	}
	return key
}

func (k cacheKey) add(name string, content io.Reader) error {
	inner := sha256.New()
	if _, err := io.Copy(inner, content); err != nil {
		return fmt.Errorf("lab: read %s: %w", name, err)
	}
	k.write(name, [sha256.Size]byte(inner.Sum(nil)))
	return nil
}

func (k cacheKey) write(name string, digest [sha256.Size]byte) {
	// Neither a name nor a digest contains a newline: no two lists are alike. A
	// hash never fails to be written to.
	_, _ = fmt.Fprintf(k.sum, "%x %s\n", digest, filepath.Base(name))
}

func (k cacheKey) addFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("lab: read the recipe: %w", err)
	}
	defer func() { _ = file.Close() }()
	return k.add(path, file)
}

// withRecipe adds the recipe's file or folder root, and finishes the key.
func (k cacheKey) withRecipe(root string) (string, error) {
	err := fs.WalkDir(recipe, root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, err := recipe.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		return k.add(path, file)
	})
	if err != nil {
		return "", fmt.Errorf("lab: read the recipe: %w", err)
	}
	return k.String(), nil
}

// String is the finished key, fit for a file name or a tag.
func (k cacheKey) String() string {
	return k.kind + "-" + hex.EncodeToString(k.sum.Sum(nil))[:16]
}

// randomSuffix makes a name unique.
func randomSuffix() string {
	return strings.ToLower(rand.Text()[:8])
}
