package helmx

import (
	"maps"
	"net/http"
	"sync"
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

// countingTransport counts every request that it sends, repeated ones included.
type countingTransport struct {
	base  http.RoundTripper
	calls *callCounter
}

// RoundTrip counts and sends a request.
func (t *countingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	r := parseRequest(req)
	t.calls.add(Call{r.verb, r.group, r.resource})
	return t.base.RoundTrip(req)
}

// WrappedRoundTripper lets idle connections be closed from outside.
func (t *countingTransport) WrappedRoundTripper() http.RoundTripper { return t.base }
