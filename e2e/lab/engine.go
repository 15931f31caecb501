package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/kind/pkg/cluster"
)

// ErrNoEngine says that this machine has no container engine that can run a
// cluster: neither Docker nor Podman starts a privileged container.
var ErrNoEngine = errors.New("no working container engine")

// probeImage is an image of one static program.
const probeImage = "localhost/fairlead-lab/probe:latest"

// Engine is a container engine that has been seen to start a privileged
// container. The zero value is not usable; Lab.Engine finds one.
type Engine struct {
	name    string
	version string
	cgroups string // "1" or "2"
}

// Name is the engine's program: "docker" or "podman".
func (e Engine) Name() string { return e.name }

// String is the engine's name and version, for people.
func (e Engine) String() string { return e.name + " " + e.version }

// cgroupV1 reports whether containers get the legacy control group hierarchy,
// which a current kubelet refuses unless told otherwise.
func (e Engine) cgroupV1() bool { return e.cgroups == "1" }

// provider is kind's driver for this engine.
func (e Engine) provider(options ...cluster.ProviderOption) *cluster.Provider {
	driver := cluster.ProviderWithDocker()
	if e.name == "podman" {
		driver = cluster.ProviderWithPodman()
	}
	return cluster.NewProvider(append(options, driver)...)
}

// hasImage reports whether the engine holds an image of that name.
func (e Engine) hasImage(ctx context.Context, image string) bool {
	_, err := run(ctx, e.name, "image", "inspect", "--format", "{{.Id}}", image)
	return err == nil
}

// Engine finds a container engine that works: Docker first, then Podman. An
// engine counts as working once it has started a privileged container, because
// a client without a daemon, or a daemon without rights, is common. If there is
// none, the error wraps ErrNoEngine and says what to install; where
// Config.InstallPackages allows it, Podman is installed instead.
//
// On a machine that denies CAP_SYS_RESOURCE or has hybrid control groups, Podman
// needs a configuration of its own. Engine then writes one into the cache directory and sets
// CONTAINERS_CONF in this process's environment, which kind's own calls of
// podman inherit; a CONTAINERS_CONF that is set already is left alone.
func (l *Lab) Engine(ctx context.Context) (Engine, error) {
	l.engineMu.Lock()
	defer l.engineMu.Unlock()
	if l.engine != nil {
		return *l.engine, nil
	}
	engine, dockerErr := l.tryEngine(ctx, "docker", "{{.ServerVersion}} {{.CgroupVersion}}")
	if dockerErr == nil {
		return l.found(engine), nil
	}
	if err := ctx.Err(); err != nil {
		return Engine{}, fmt.Errorf("lab: look for a container engine: %w", err)
	}
	podmanErr := l.requireProgram(ctx, "podman", "podman")
	if podmanErr == nil {
		podmanErr = l.adaptPodman(ctx)
	}
	if podmanErr == nil {
		engine, podmanErr = l.tryEngine(ctx, "podman", "{{.Version.Version}} {{.Host.CgroupsVersion}}")
	}
	if podmanErr == nil {
		return l.found(engine), nil
	}
	return Engine{}, fmt.Errorf("lab: %w: start Docker, or install Podman 4.3 or later\n  docker: %w\n  podman: %w",
		ErrNoEngine, dockerErr, podmanErr)
}

func (l *Lab) found(engine Engine) Engine {
	l.engine = &engine
	l.progress.say("container engine: %s, cgroup v%s", engine, engine.cgroups)
	return engine
}

// tryEngine asks the engine what it is, in a format that prints version and
// cgroup version, and has it start a privileged container.
func (l *Lab) tryEngine(ctx context.Context, name, format string) (Engine, error) {
	if _, err := exec.LookPath(name); err != nil {
		return Engine{}, err
	}
	answer, err := run(ctx, name, "info", "--format", format)
	if err != nil {
		return Engine{}, err
	}
	fields := strings.Fields(answer)
	if len(fields) != 2 {
		return Engine{}, fmt.Errorf("%s info: unexpected answer %q", name, answer)
	}
	engine := Engine{name: name, version: fields[0], cgroups: strings.TrimPrefix(fields[1], "v")}
	if err := l.probePrivileged(ctx, engine); err != nil {
		return Engine{}, fmt.Errorf("%s can't start a privileged container: %w", name, err)
	}
	return engine, nil
}

// probePrivileged starts a privileged container from an image made on the spot
// of one static program, so that nothing needs to be pulled.
func (l *Lab) probePrivileged(ctx context.Context, engine Engine) error {
	name := "fairlead-lab-probe-" + randomSuffix()
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		// Also when the run failed: a container that could not start exists.
		_, _ = run(cleanup, engine.name, "rm", "--force", name)
	}()
	if !engine.hasImage(ctx, probeImage) {
		archive, err := l.pauseArchive(ctx)
		if err != nil {
			return err
		}
		load := command{args: []string{engine.name, "import", "-", probeImage}, stdin: archive}
		if _, err := load.run(ctx); err != nil {
			return err
		}
	}
	_, err := run(ctx, engine.name, "run", "--detach", "--privileged", "--network=none", "--name", name, probeImage, "/pause")
	return err
}

// pauseArchive is a tar archive that holds the static program /pause.
func (l *Lab) pauseArchive(ctx context.Context) (*bytes.Buffer, error) {
	dir, err := os.MkdirTemp(l.cache, "probe-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := buildNodePrograms(ctx, dir, program{path: "./cmd/pause"}); err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(filepath.Join(dir, "pause"))
	if err != nil {
		return nil, err
	}
	archive := new(bytes.Buffer)
	w := tar.NewWriter(archive)
	if err := errors.Join(tarFile(w, "pause", 0o755, binary), w.Close()); err != nil {
		return nil, fmt.Errorf("pack the probe: %w", err)
	}
	return archive, nil
}
