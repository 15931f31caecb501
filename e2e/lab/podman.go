package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	containersConf = "CONTAINERS_CONF"

	// maxProcesses is the process limit given to containers where none of the
	// engine's own, higher, defaults can be set.
	maxProcesses = 32768
)

// hybridControllers lists the controllers that a hybrid host, half cgroup v1 and
// half v2, has on the v2 side. Podman's usual runtime, crun, refuses any.
const hybridControllers = "/sys/fs/cgroup/unified/cgroup.controllers"

// adaptPodman works around what a sandboxed or old Linux machine denies Podman
// and kind: raising resource limits, hybrid control groups, and a /lib/modules
// to mount into the node.
func (l *Lab) adaptPodman(ctx context.Context) error {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return nil
	}
	if err := ensureModulesDir("/lib/modules"); err != nil {
		return err
	}
	var needs podmanNeeds
	if controllers, err := os.ReadFile(hybridControllers); err == nil && len(bytes.TrimSpace(controllers)) > 0 {
		needs.runc = true
	}
	if lacksSysResource() {
		files, err := hardFileLimit()
		if err != nil {
			return err
		}
		needs.files = files
	}
	if _, set := os.LookupEnv(containersConf); set || needs == (podmanNeeds{}) {
		return nil
	}
	if needs.runc {
		if err := l.requireProgram(ctx, "runc", "runc"); err != nil {
			return err
		}
	}
	path := filepath.Join(l.cache, "containers.conf")
	if err := os.WriteFile(path, []byte(needs.config()), 0o644); err != nil {
		return fmt.Errorf("lab: configure podman: %w", err)
	}
	return os.Setenv(containersConf, path)
}

// podmanNeeds is what this machine wants of Podman. The zero value is nothing.
type podmanNeeds struct {
	runc  bool   // run containers with runc
	files uint64 // this machine's hard limit of open files, unless it may be raised
}

// config is a containers.conf(5).
func (n podmanNeeds) config() string {
	var text strings.Builder
	text.WriteString("# Written by fairlead's lab for what this machine does not allow containers.\n")
	if n.files > 0 {
		fmt.Fprintf(&text, "[containers]\ndefault_ulimits = [\"nofile=%d:%d\", \"nproc=%d:%d\"]\n",
			n.files, n.files, maxProcesses, maxProcesses)
	}
	if n.runc {
		text.WriteString("[engine]\nruntime = \"runc\"\n")
	}
	return text.String()
}

// ensureModulesDir creates the directory of kernel modules where a kernel
// without modules has none: kind mounts it into every node.
func ensureModulesDir(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("lab: kind mounts %s, which does not exist here: %w", dir, err)
	}
	return nil
}
