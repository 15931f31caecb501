package buildkitd

import (
	"os/exec"
	"syscall"
)

// bindToParent ends cmd when this process ends, and keeps the interrupts of a
// terminal from it, so that it lives until Close.
func bindToParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
