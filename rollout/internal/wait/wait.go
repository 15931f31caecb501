// Package wait waits for time to pass, or for a context to be done.
package wait

import (
	"context"
	"time"
)

// The pauses between tries of something that may work the next time.
const (
	FirstBackoff = 100 * time.Millisecond
	MaxBackoff   = time.Second
)

// For waits, and reports whether ctx is still alive after that. It doesn't wait at
// all for what isn't positive.
func For(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
