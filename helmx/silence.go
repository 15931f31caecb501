package helmx

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// silence is why the last request to the API server got no answer, if it got none. Its
// zero value is ready. client-go repeats some requests that fail until whoever waits
// has no more time, and then tells of the time alone.
type silence struct {
	mu   sync.Mutex
	last error
}

// longSilence is after which time without an answer the API server, and not whoever
// gave up, is to blame.
const longSilence = 5 * time.Second

func (s *silence) note(req *http.Request, began time.Time, err error) {
	waited := time.Since(began)
	switch {
	case err == nil, req.Context().Err() == nil:
	case waited < longSilence:
		return
	default:
		err = fmt.Errorf("no answer for %s", waited.Round(time.Second))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = err
}

func (s *silence) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// ended returns why ctx has ended. If time has run out, it tells what the API server
// has to do with that.
func (c *Cluster) ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	if why := c.silence.reason(); why != nil && errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", cause, c.away(networkProblem(why)))
	}
	return cause
}
