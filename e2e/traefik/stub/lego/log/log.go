// Package log has nothing to log.
package log

// SetDefault does nothing.
func SetDefault(any) {}
