package buildkitd

import (
	"os/exec"
	"syscall"
)

// bindToParent ends cmd when this process ends, however that ends, and keeps the
// interrupts of a terminal from it. The kernel takes the thread that starts cmd
// for the parent, so the caller has to hold on to it until cmd has ended.
func bindToParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
