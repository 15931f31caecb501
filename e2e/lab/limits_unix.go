//go:build unix

package lab

import (
	"fmt"
	"syscall"
)

// hardFileLimit is how many files a process may open at most.
func hardFileLimit() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("lab: read the limit of open files: %w", err)
	}
	//nolint:unconvert // it is signed on some systems
	return uint64(limit.Max), nil
}
