package pipeline

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

var lockFileEx = syscall.NewLazyDLL("kernel32.dll").NewProc("LockFileEx")

// lockFile takes the file for this open file, or fails with [ErrBusy]. The locked
// byte is far beyond the content, so that others can still read the file.
func lockFile(file *os.File) error {
	const (
		exclusive     = 2
		failAtOnce    = 1
		lockViolation = syscall.Errno(33)
	)
	at := &syscall.Overlapped{OffsetHigh: 1 << 30}
	ok, _, err := lockFileEx.Call(file.Fd(), exclusive|failAtOnce, 0, 1, 0, uintptr(unsafe.Pointer(at)))
	switch {
	case ok != 0:
		return nil
	case errors.Is(err, lockViolation), errors.Is(err, syscall.ERROR_IO_PENDING):
		return fmt.Errorf("%w: wait for the other run or recovery to end", ErrBusy)
	default:
		return fmt.Errorf("lock: %w", err)
	}
}

// syncDir does nothing: directories can't be synced here.
func syncDir(string) error { return nil }
