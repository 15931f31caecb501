//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package pipeline

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockFile takes the file for this open file, or fails with [ErrBusy].
func lockFile(file *os.File) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("%w: wait for the other run or recovery to end", ErrBusy)
		case !errors.Is(err, syscall.EINTR):
			return fmt.Errorf("lock: %w", err)
		}
	}
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	return errors.Join(err, dir.Close())
}
