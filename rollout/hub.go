package rollout

import (
	"context"
	"sync"
	"time"
)

// hub shares feeds among sessions, so that any number of them cost one watch of
// each kind and namespace.
type hub struct {
	cluster *Cluster
	wide    bool

	mu    sync.Mutex
	feeds map[feedKey]*feed
	// narrow are the resources that may not be watched in the whole cluster.
	narrow map[string]bool
}

// feedKey says what a feed is of.
type feedKey struct {
	resource  string // its id
	namespace string // empty for the whole cluster
	selector  string // a field selector; empty for all
}

func newHub(c *Cluster, wide bool) *hub {
	return &hub{cluster: c, wide: wide, feeds: map[feedKey]*feed{}, narrow: map[string]bool{}}
}

// join returns the feed of a resource in a namespace, started if nobody has yet.
// Shared says that somebody had. Each join needs a leave.
func (h *hub) join(ctx context.Context, r resource, namespace, selector string, w *world) (f *feed, shared bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.clusterScoped || h.wide && selector == "" && !h.narrow[r.id()] {
		namespace = ""
	}
	key := feedKey{r.id(), namespace, selector}
	f = h.feeds[key]
	shared = f != nil && !f.stale()
	if !shared {
		f = newFeed(h.cluster, r, key)
		f.wide = namespace == "" && !r.clusterScoped
		h.feeds[key] = f
		// The feed outlives the session that starts it where another one joins.
		running, stop := context.WithCancel(context.WithoutCancel(ctx))
		f.stop = stop
		go func() {
			defer close(f.done)
			f.run(running)
		}()
	}
	f.users++
	f.enrol(w)
	return f, shared
}

// leave gives a feed up. The last to leave stops it, and waits until it has.
func (h *hub) leave(f *feed, w *world) {
	f.dismiss(w)
	h.mu.Lock()
	f.users--
	last := f.users == 0
	if last && h.feeds[f.key] == f {
		delete(h.feeds, f.key)
	}
	h.mu.Unlock()
	if last {
		f.stop()
		<-f.done
	}
}

// narrowed notes that a resource may not be watched in the whole cluster.
func (h *hub) narrowed(r resource) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.narrow[r.id()] = true
}

// staleDenial is for how long a refusal is believed by who comes later: rights
// may have been granted since.
const staleDenial = time.Second

// stale reports whether a newcomer had better ask for itself.
func (f *feed) stale() bool {
	s := f.status()
	return s.denied && time.Since(s.since) > staleDenial
}
