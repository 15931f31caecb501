package helmx

import (
	"maps"
	"net/http"
	"sync"
	"time"
)

// Call is a sort of request to an API server.
type Call struct {
	// Verb is the right that it needs, such as "get", "list", "watch" or "patch".
	Verb string
	// Group and Resource name the kind, such as "apps" and "deployments"; a
	// subresource follows after a slash. Both are empty for requests that are not
	// about objects, such as discovery.
	Group, Resource string
}

// callCounter counts requests. Its zero value is ready.
type callCounter struct {
	mu     sync.Mutex
	counts map[Call]int
}

func (c *callCounter) add(call Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[Call]int{}
	}
	c.counts[call]++
}

func (c *callCounter) snapshot() map[Call]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// sharedTransport sends every request to a cluster, repeated ones included, and keeps
// account of them.
type sharedTransport struct{ *Cluster }

// RoundTrip counts and sends a request.
func (t sharedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	r := parseRequest(req)
	t.calls.add(Call{r.verb, r.group, r.resource})
	began := time.Now()
	resp, err := t.transport.RoundTrip(req)
	t.silence.note(req, began, err)
	return resp, err
}

// WrappedRoundTripper lets idle connections be closed from outside.
func (t sharedTransport) WrappedRoundTripper() http.RoundTripper { return t.transport }
