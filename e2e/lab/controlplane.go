package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// sandboxImage is what kind's configuration of containerd names, whatever
// kubeadm would choose.
const sandboxImage = "registry.k8s.io/pause:3.10"

// packControlPlane writes one archive per image that kubeadm wants into the
// folder images of dir, each made of a program in its folder bin. root is a
// node's root file system.
func packControlPlane(ctx context.Context, dir, root string) error {
	proxy := filepath.Join(dir, "proxy")
	if err := runRecipe(ctx, dir, "proxy-root.sh", root, proxy); err != nil {
		return fmt.Errorf("collect kube-proxy's tools: %w", err)
	}
	kubeadm := filepath.Join(dir, "bin", "kubeadm")
	version, err := run(ctx, kubeadm, "version", "--output", "short")
	if err != nil {
		return err
	}
	wanted, err := run(ctx, kubeadm, "config", "images", "list", "--kubernetes-version", version)
	if err != nil {
		return err
	}
	target := filepath.Join(dir, "images")
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	for _, image := range append(strings.Fields(wanted), sandboxImage) {
		ref, err := name.NewTag(image)
		if err != nil {
			return err
		}
		program := filepath.Base(ref.RepositoryStr())
		tools := ""
		if program == "kube-proxy" {
			tools = proxy
		}
		if err := packProgram(ctx, ref, filepath.Join(dir, "bin", program), tools, target); err != nil {
			return fmt.Errorf("pack %s: %w", image, err)
		}
	}
	return nil
}

// packProgram writes an image called ref, of one program and, unless tools is
// empty, the files of a folder, as an archive in the folder target. Layers
// stay uncompressed, because every new cluster unpacks them.
func packProgram(ctx context.Context, ref name.Tag, binary, tools, target string) error {
	var layers []v1.Layer
	if tools != "" {
		var archive bytes.Buffer
		pack := command{args: []string{"tar", "--create", "--owner=0", "--group=0", "--directory", tools, "."}, stdout: &archive}
		if _, err := pack.run(ctx); err != nil {
			return err
		}
		layers = append(layers, static.NewLayer(archive.Bytes(), types.OCIUncompressedLayer))
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	program := filepath.Base(binary)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := errors.Join(tarFile(w, "usr/local/bin/"+program, 0o755, content), w.Close()); err != nil {
		return err
	}
	layers = append(layers, static.NewLayer(archive.Bytes(), types.OCIUncompressedLayer))
	image, err := mutate.AppendLayers(linuxImage(), layers...)
	if err != nil {
		return err
	}
	image, err = mutate.Config(image, v1.Config{
		Env:        []string{"PATH=" + systemPath},
		Entrypoint: []string{"/usr/local/bin/" + program},
	})
	if err != nil {
		return err
	}
	file := strings.NewReplacer("/", "_", ":", "_").Replace(ref.String()) + ".tar"
	return tarball.WriteToFile(filepath.Join(target, file), ref, image)
}
