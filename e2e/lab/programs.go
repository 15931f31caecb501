package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// module is this package's module. The node image's programs are pinned by the
// module in its folder nodeimage.
const module = "github.com/fairlead-dev/fairlead/e2e"

// program is one main package of the node image.
type program struct {
	path string // import path, or a folder of the nodeimage module
}

// controlPlanePrograms run from images of their own, named after them.
var controlPlanePrograms = []program{
	{"k8s.io/kubernetes/cmd/kube-apiserver"},
	{"k8s.io/kubernetes/cmd/kube-controller-manager"},
	{"k8s.io/kubernetes/cmd/kube-proxy"},
	{"k8s.io/kubernetes/cmd/kube-scheduler"},
	{"./cmd/coredns"},
	{"./cmd/etcd"},
	{"./cmd/pause"},
}

// nodePrograms are installed on the node itself.
var nodePrograms = []program{
	{"github.com/containerd/containerd/v2/cmd/containerd"},
	{"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
	{"github.com/containerd/containerd/v2/cmd/ctr"},
	{"k8s.io/kubernetes/cmd/kubeadm"},
	{"k8s.io/kubernetes/cmd/kubectl"},
	{"k8s.io/kubernetes/cmd/kubelet"},
}

// buildNodePrograms compiles programs into the folder dir: static, and for
// Linux, because that is what containers run.
//
// It builds outside the workspace. Without cgo and with -trimpath nothing would
// be shared with the compiled packages of the rest of the repository anyhow,
// and so an image is made of exactly what nodeimage/go.mod pins, which is also
// what names it in the cache.
func buildNodePrograms(ctx context.Context, dir string, programs ...program) error {
	source, err := nodeImageSource(ctx)
	if err != nil {
		return err
	}
	flags, err := linkerFlags(ctx, source)
	if err != nil {
		return err
	}
	args := []string{
		"go", "build", "-trimpath", "-ldflags", flags,
		"-tags", "no_aufs,no_btrfs,no_devmapper,no_zfs",
		"-o", dir + string(filepath.Separator),
	}
	for _, p := range programs {
		args = append(args, p.path)
	}
	build := command{args: args, dir: source, env: []string{"GOWORK=off", "CGO_ENABLED=0", "GOOS=linux"}}
	if _, err := build.run(ctx); err != nil {
		return fmt.Errorf("lab: compile the node image's programs: %w", err)
	}
	return nil
}

// linkerFlags strips the programs and tells them their versions, which kubeadm
// and the kubelet compare.
func linkerFlags(ctx context.Context, source string) (string, error) {
	kubernetes, err := moduleVersion(ctx, source, "k8s.io/kubernetes")
	if err != nil {
		return "", err
	}
	containerd, err := moduleVersion(ctx, source, "github.com/containerd/containerd/v2")
	if err != nil {
		return "", err
	}
	parts := strings.SplitN(strings.TrimPrefix(kubernetes, "v"), ".", 3)
	if len(parts) != 3 {
		return "", fmt.Errorf("lab: %q is no Kubernetes version", kubernetes)
	}
	const version = "k8s.io/component-base/version."
	return strings.Join([]string{
		"-s", "-w",
		"-X", version + "gitVersion=" + kubernetes,
		"-X", version + "gitMajor=" + parts[0],
		"-X", version + "gitMinor=" + parts[1],
		"-X", version + "gitTreeState=archive",
		"-X", "github.com/containerd/containerd/v2/version.Version=" + containerd,
	}, " "), nil
}

// nodeImageSource is the folder of the nodeimage module.
func nodeImageSource(ctx context.Context) (string, error) { return labModule(ctx, "nodeimage") }

// labModule is the folder of a module inside of this package's module.
func labModule(ctx context.Context, name string) (string, error) {
	dir, err := moduleDir(ctx, module)
	if err != nil {
		return "", fmt.Errorf("lab: find the source of module %s: %w; run inside fairlead's source tree", name, err)
	}
	return filepath.Join(dir, name), nil
}

// moduleDir is the folder of a module of the current build list.
func moduleDir(ctx context.Context, path string) (string, error) {
	dir, err := run(ctx, "go", "list", "-m", "-f", "{{.Dir}}", path)
	if err == nil && dir == "" {
		err = fmt.Errorf("module %s is not in the module cache", path)
	}
	return dir, err
}

// moduleVersion is the version of a module in the build list of the module in
// the folder dir, its workspace disregarded.
func moduleVersion(ctx context.Context, dir, path string) (string, error) {
	list := command{args: []string{"go", "list", "-m", "-f", "{{.Version}}", path}, dir: dir, env: []string{"GOWORK=off"}}
	version, err := list.run(ctx)
	if err != nil {
		return "", fmt.Errorf("lab: version of %s: %w", path, err)
	}
	return version, nil
}
