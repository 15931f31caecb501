//go:build !linux

package buildkitd

import "os/exec"

// bindToParent is for Linux, where alone the daemon runs.
func bindToParent(*exec.Cmd) {}
