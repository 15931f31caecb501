//go:build unix

package scan

import (
	"os/exec"
	"syscall"
)

// killGroup makes a cancel reach what cmd itself has started.
func killGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
