//go:build !unix

package lab

import "errors"

// hardFileLimit is only needed, and only known, on Unix.
func hardFileLimit() (uint64, error) {
	return 0, errors.New("lab: no file limits on this system")
}
