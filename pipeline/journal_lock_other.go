//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd || windows)

package pipeline

import (
	"errors"
	"fmt"
	"os"
)

// lockFile fails: without a lock, two recoveries could meet.
func lockFile(*os.File) error {
	return fmt.Errorf("file locks: %w on this system", errors.ErrUnsupported)
}

func syncDir(string) error { return nil }
