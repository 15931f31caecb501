//go:build unix

package lab

import (
	"os/exec"
	"syscall"
)

// killWholeGroup puts cmd into a process group of its own and makes a cancelled
// context kill all of it, so that a compiler started by a build dies with it.
func killWholeGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
}
