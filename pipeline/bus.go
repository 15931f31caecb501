package pipeline

import (
	"slices"
	"sync"
	"time"
)

// maxPending bounds the droppable events that wait for one observer. All other
// events are bounded by the number of stages and attempts.
const maxPending = 1024

// bus numbers the events of a run and hands each to every observer's queue.
type bus struct {
	run, pipeline string

	mu     sync.Mutex
	seq    int64
	closed bool
	queues []*queue
}

func newBus(run, pipeline string, observers []Observer) *bus {
	b := &bus{run: run, pipeline: pipeline}
	for _, o := range observers {
		q := &queue{observer: o, wake: make(chan struct{}, 1), done: make(chan struct{})}
		b.queues = append(b.queues, q)
		go q.deliver()
	}
	return b
}

// emit never blocks. What is sent after close is lost, as only a stage that
// returned while it still ran can send that.
func (b *bus) emit(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.seq++
	e.Run, e.Pipeline, e.Seq, e.Time = b.run, b.pipeline, b.seq, time.Now()
	for _, q := range b.queues {
		q.push(&e)
	}
}

// close waits up to timeout for the observers to catch up, abandons those that
// don't, and returns how many events were lost and how often observers panicked.
func (b *bus) close(timeout time.Duration) (dropped, panics int) {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	for _, q := range b.queues {
		q.finish()
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	expired := false
	for _, q := range b.queues {
		if !expired {
			select {
			case <-q.done:
			case <-timer.C:
				expired = true
			}
		}
		d, p := q.abandon()
		dropped, panics = dropped+d, panics+p
	}
	return dropped, panics
}

// queue is one observer's. Its goroutine ends when the queue is finished and
// empty, or abandoned.
type queue struct {
	observer Observer
	wake     chan struct{} // holds one token when there may be something to do
	done     chan struct{} // closed when the goroutine ends

	mu        sync.Mutex
	pending   []*Event
	droppable int // of pending
	dropped   int
	panics    int
	finished  bool
	abandoned bool
}

func (q *queue) push(e *Event) {
	q.mu.Lock()
	if e.droppable() {
		if q.droppable == maxPending {
			oldest := slices.IndexFunc(q.pending, (*Event).droppable)
			q.pending = slices.Delete(q.pending, oldest, oldest+1)
			q.droppable--
			q.dropped++
		}
		q.droppable++
	}
	q.pending = append(q.pending, e)
	q.mu.Unlock()
	q.signal()
}

func (q *queue) finish() {
	q.mu.Lock()
	q.finished = true
	q.mu.Unlock()
	q.signal()
}

// abandon ends the delivery after the call that is under way, if any.
func (q *queue) abandon() (dropped, panics int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped += len(q.pending)
	q.pending, q.droppable, q.abandoned = nil, 0, true
	return q.dropped, q.panics
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) deliver() {
	defer close(q.done)
	for {
		e, more := q.next()
		switch {
		case e != nil:
			q.observe(*e)
		case !more:
			return
		default:
			<-q.wake
		}
	}
}

// next returns the next event, or nil and whether one may still come.
func (q *queue) next() (e *Event, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending) == 0 {
		return nil, !q.finished && !q.abandoned
	}
	e = q.pending[0]
	q.pending[0] = nil
	q.pending = q.pending[1:]
	if e.droppable() {
		q.droppable--
	}
	return e, true
}

func (q *queue) observe(e Event) {
	defer func() {
		if recover() != nil {
			q.mu.Lock()
			q.panics++
			q.mu.Unlock()
		}
	}()
	q.observer.Observe(e)
}
