//go:build !unix

package scan

import "os/exec"

// killGroup leaves cmd as it is: a cancel kills the process alone.
func killGroup(*exec.Cmd) {}
