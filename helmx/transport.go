package helmx

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/flowcontrol"
)

// fieldManager is the name under which the helm command writes fields, so that a
// release can go to and fro between it and this package.
const fieldManager = "helm"

// boundTransport ties every request to a context that its sender knows nothing
// of, because Helm's actions take none. When the context ends, requests in
// flight are aborted and further ones refused, so that Helm's work ends by itself
// and can be waited for.
type boundTransport struct {
	ctx  context.Context //nolint:containedctx // The operation's, which outlives each request.
	base http.RoundTripper
	log  *failureLog
}

// RoundTrip sends a request that ends with the operation.
func (t *boundTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.ctx.Err() != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, context.Cause(t.ctx)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	unbind := context.AfterFunc(t.ctx, func() { cancel(context.Cause(t.ctx)) })
	release := func() { unbind(); cancel(nil) }

	req = req.Clone(ctx)
	if query := req.URL.Query(); query.Has("fieldManager") {
		// Helm takes the name of the running binary, or a global variable.
		query.Set("fieldManager", fieldManager)
		req.URL.RawQuery = query.Encode()
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		release()
		if t.ctx.Err() != nil {
			return nil, context.Cause(t.ctx)
		}
		return nil, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		t.log.inspect(req, resp)
		if err := t.backOff(resp); err != nil {
			resp.Body.Close()
			release()
			return nil, err
		}
	}
	resp.Body = &boundBody{resp.Body, release}
	return resp, nil
}

// longestBackOff is for how long a server is waited for at most, each time.
const longestBackOff = time.Minute

// backOff waits as the server asks before client-go repeats the request.
// client-go would do so itself, but under the context of the request, which Helm
// never cancels. A server that asks for more than [longestBackOff] has refused.
func (t *boundTransport) backOff(resp *http.Response) error {
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || seconds <= 0 || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < http.StatusInternalServerError {
		return nil
	}
	if seconds > int(longestBackOff/time.Second) {
		resp.Header.Del("Retry-After") // Without it, client-go doesn't repeat the request.
		return nil
	}
	timer := time.NewTimer(time.Duration(seconds) * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
		resp.Header.Set("Retry-After", "0")
		return nil
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
}

type boundBody struct {
	io.ReadCloser
	release func()
}

// Close unties the request from the operation.
func (b *boundBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}

// boundLimiter shares a rate limit between operations and stops waiting for its
// turn when its own operation ends.
type boundLimiter struct {
	flowcontrol.RateLimiter
	ctx context.Context //nolint:containedctx // The operation's, which outlives each request.
}

// Wait waits for a turn, or until the operation ends.
func (l *boundLimiter) Wait(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(context.Cause(l.ctx)) })()
	if err := l.RateLimiter.Wait(ctx); err != nil {
		if l.ctx.Err() != nil {
			return context.Cause(l.ctx)
		}
		return err
	}
	return nil
}

// failureLog keeps what the API server refused. Helm turns many errors into
// text; with the log their class can be told nevertheless.
type failureLog struct {
	mu      sync.Mutex
	entries []*APIError
}

const (
	largestStatus = 64 << 10
	mostFailures  = 100
)

func (l *failureLog) inspect(req *http.Request, resp *http.Response) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, largestStatus))
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), rest), rest}
	if err != nil || resp.StatusCode == http.StatusNotFound {
		return
	}
	var status metav1.Status
	if json.Unmarshal(body, &status) != nil || status.Kind != "Status" {
		return
	}
	if failure := newAPIError(req, &status); failure != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.entries) < mostFailures {
			l.entries = append(l.entries, failure)
		}
	}
}

func (l *failureLog) all() []*APIError {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*APIError(nil), l.entries...)
}
