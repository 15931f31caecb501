package lab

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// lockRetry is how often a lock held by another process is tried again;
	// flock(2) has no way to wait that a context could end.
	lockRetry = 200 * time.Millisecond

	// progressEvery is how often a step that is still running says so.
	progressEvery = 30 * time.Second
)

// progress writes one line per event, stamped with the time since it was made.
type progress struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
}

func newProgress(out io.Writer) *progress {
	if out == nil {
		out = io.Discard
	}
	return &progress{out: out, start: time.Now()}
}

// say writes one line.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A reader who closed the pipe must not stop the work that is reported.
	_, _ = fmt.Fprintf(p.out, "[%6s] %s\n", clock(time.Since(p.start)), fmt.Sprintf(format, args...))
}

// step runs work, saying before it what begins and how long it usually takes,
// now and then that it goes on, and afterwards how it went.
func (p *progress) step(what string, usually time.Duration, work func() error) error {
	began := time.Now()
	p.say("%s (usually %s)", what, clock(usually))

	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(progressEvery)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				p.say("%s: %s so far, usually %s", what, clock(time.Since(began)), clock(usually))
			}
		}
	}()
	err := work()
	close(stop)
	<-stopped

	outcome := "done"
	if err != nil {
		outcome = "failed"
	}
	p.say("%s: %s in %s", what, outcome, clock(time.Since(began)))
	return err
}

// clock formats a duration for a person: tenths of a second while short.
func clock(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
