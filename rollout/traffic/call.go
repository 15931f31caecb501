package traffic

import (
	"context"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// call is one of somebody else's code that looks and changes nothing, on a goroutine
// of its own: harm must not go on because such code doesn't come back.
type call[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// begin calls f. A panic becomes an error.
func begin[T any](f func() (T, error)) *call[T] {
	c := &call[T]{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		// What is left if f ends the goroutine without returning or panicking.
		c.err = fmt.Errorf("%w: it called runtime.Goexit", stages.ErrPanicked)
		c.err = protect(func() (err error) { c.value, err = f(); return err })
	}()
	return c
}

// deafTime is how long a call has to return once its context is done.
const deafTime = time.Second

// returned waits until the call has returned, or ctx is done and the call doesn't
// heed that.
func (c *call[T]) returned(ctx context.Context) bool {
	select {
	case <-c.done:
		return true
	case <-ctx.Done():
	}
	timer := time.NewTimer(deafTime)
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-timer.C:
		return false
	}
}
