// Package watches has what those who watch the API server again and again share.
package watches

import (
	"context"
	"time"
)

// shortest is what a watch lasts at least.
const shortest = time.Second

// Breathe returns a second after a watch began, so that one that always ends at once
// isn't repeated as fast as possible, or when ctx ends.
func Breathe(ctx context.Context, began time.Time) {
	timer := time.NewTimer(time.Until(began.Add(shortest)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
