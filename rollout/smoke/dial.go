package smoke

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// DialConfig configures a smoke test by a Go function over connections to the
// release; see [NewDial].
type DialConfig struct {
	// REST is how to reach the cluster. It is copied. Required, unless Cluster is set.
	REST *rest.Config
	// Cluster is a connection to share with verifiers and other tests, see
	// [rollout.Connect]. Closing the test leaves it open.
	Cluster *rollout.Cluster
	// Name says what is asked, such as "redis PING", required; {{.Release}} and the
	// like are filled in. It is no place for secrets.
	Name string
	// Target is whom to ask.
	Target Target
	// Try makes one request, required. An error is a request that failed; it is
	// shown, so it must be free of secrets. Try must return soon after its context is
	// done: Verify waits for it. A panic is an error.
	Try func(ctx context.Context, to Endpoint) (Answer, error)
	// Expect is what must be answered.
	Expect Expect
	// RequestTimeout bounds one request. Default 5 seconds.
	RequestTimeout time.Duration
	// Timeout bounds everything. Default 1 minute.
	Timeout time.Duration
	// Redact masks secrets in bodies and messages, after [rollout.Redact]. It must be
	// safe for concurrent use.
	Redact func(text string) string
}

// Endpoint is a pod that a request goes to.
type Endpoint struct {
	// Release is what is tested.
	Release stages.Release
	// Pod is the pod's name, Host the target's name in the cluster's DNS.
	Pod, Host string
	// Dial connects to the pod's port. Close what it returns; what is still open when
	// Try returns is closed then.
	Dial func(ctx context.Context) (net.Conn, error)
}

// dialTest asks the release by port-forward.
type dialTest struct {
	DialConfig
	what    pattern
	cluster cluster
	target  target
	expect  expectation
	clean   cleaner
	// secrets, where set, returns values to mask.
	secrets func() []string
	// endpoints and dial are the cluster's, but in tests.
	endpoints func(ctx context.Context, rel stages.Release) ([]endpoint, error)
	dial      func(ctx context.Context, e endpoint) (net.Conn, error)
}

// NewDial returns a smoke test that calls a function with connections to a ready
// pod of the release, for protocols that this package doesn't speak. It asks the
// cluster nothing yet. Its error matches [stages.ErrInvalid].
func NewDial(config DialConfig) (*Test, error) {
	d, err := prepareDial(config)
	if err != nil {
		return nil, fmt.Errorf("smoke test by port-forward: %w", err)
	}
	if err := d.connect(); err != nil {
		return nil, fmt.Errorf("smoke test by port-forward: %w", err)
	}
	return d.test(), nil
}

func (d *dialTest) connect() (err error) {
	if d.cluster, err = connect(d.REST, d.Cluster); err != nil {
		return err
	}
	d.endpoints = func(ctx context.Context, rel stages.Release) ([]endpoint, error) {
		return d.target.endpoints(ctx, d.cluster, rel)
	}
	d.dial = func(ctx context.Context, e endpoint) (net.Conn, error) {
		t, err := d.cluster.dial(ctx, e)
		if err != nil {
			return nil, err
		}
		return t, nil
	}
	return nil
}

func (d *dialTest) test() *Test {
	return &Test{name: "smoke test by port-forward", timeout: d.Timeout, run: d.run, rules: d.rules, close: d.cluster.close}
}

// prepareDial checks and completes everything but the connection.
func prepareDial(c DialConfig) (*dialTest, error) {
	c.RequestTimeout = cmp.Or(c.RequestTimeout, DefaultRequestTimeout)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	switch {
	case strings.TrimSpace(c.Name) == "":
		return nil, fmt.Errorf("%w: Name is required", stages.ErrInvalid)
	case c.Try == nil:
		return nil, fmt.Errorf("%w: Try is required", stages.ErrInvalid)
	case c.RequestTimeout < 0 || c.Timeout < 0:
		return nil, fmt.Errorf("%w: RequestTimeout and Timeout can't be negative", stages.ErrInvalid)
	}
	d := &dialTest{DialConfig: c, clean: cleaner{extra: c.Redact}}
	var err error
	if d.expect, err = c.Expect.compile(); err != nil {
		return nil, err
	}
	if d.what, err = parsePattern("Name", c.Name); err != nil {
		return nil, err
	}
	d.target, err = c.Target.compile()
	return d, err
}

func (d *dialTest) run(ctx context.Context, rel stages.Release) (stages.Check, error) {
	what, err := d.what.fill(rel)
	if err != nil {
		return stages.Check{}, err
	}
	t, turn := requests(d.expect, what, d.clean), 0
	err = t.repeat(ctx, func(ctx context.Context) (attempt, bool) {
		a, gone := d.once(ctx, rel, turn, t)
		turn++
		return a, gone
	})
	switch {
	case err != nil:
		return stages.Check{}, err
	case !t.pass():
		return stages.Check{}, t.failure(rel)
	}
	return t.check(), nil
}

// once makes one request, to the pod whose turn it is, and reports whether that
// has gone away meanwhile.
func (d *dialTest) once(ctx context.Context, rel stages.Release, turn int, t *tally) (a attempt, gone bool) {
	all, err := d.endpoints(ctx, rel)
	if err != nil {
		return attempt{err: err}, false
	}
	e := all[turn%len(all)]
	a.subject = e.String()
	if turn == 0 {
		t.progress(ctx, "asking "+a.subject)
	}
	bounded, cancel := context.WithTimeoutCause(ctx, d.RequestTimeout, fmt.Errorf("no answer within %s", d.RequestTimeout))
	defer cancel()
	began := time.Now()
	var open opened
	a.Answer, a.err = protect(func() (Answer, error) {
		return d.Try(bounded, Endpoint{Release: rel, Pod: e.pod.Name, Host: d.host(rel), Dial: func(ctx context.Context) (net.Conn, error) {
			// An HTTP transport goes on dialling when its request has ended.
			within, end := context.WithCancelCause(bounded)
			stop := context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })
			defer stop()
			return open.dial(within, func() (net.Conn, error) { return d.dial(within, e) })
		}})
	})
	a.Latency = cmp.Or(a.Latency, time.Since(began))
	open.close()
	if d.secrets != nil {
		t.clean.secret = d.secrets()
	}
	if a.err != nil && bounded.Err() != nil && ctx.Err() == nil {
		a.err = context.Cause(bounded)
	}
	if failed := open.trouble(); a.err != nil && failed != nil {
		a.err = failed // rather than what the protocol made of it
	}
	if a.err == nil || ctx.Err() != nil {
		return a, false
	}
	return a, d.left(ctx, rel, e)
}

// left reports whether a pod is none of the target's ready ones any more.
func (d *dialTest) left(ctx context.Context, rel stages.Release, e endpoint) bool {
	now, err := d.endpoints(ctx, rel)
	if err != nil {
		return false
	}
	for _, other := range now {
		if other.pod.UID == e.pod.UID {
			return false
		}
	}
	return true
}

// host returns the target's name in the cluster's DNS.
func (d *dialTest) host(rel stages.Release) string {
	_, name, err := d.target.resolve(rel)
	if err != nil {
		return ""
	}
	return name + "." + rel.Namespace + ".svc"
}

// opened are the connections of one request.
type opened struct {
	mu       sync.Mutex
	conns    []net.Conn
	dialling int
	closed   bool  // what is opened later is closed at once
	err      error // of the last one that could not be opened
}

// dial opens one more. The pod has no part in how long that takes: that there is
// none in time says nothing about the release.
func (o *opened) dial(ctx context.Context, open func() (net.Conn, error)) (net.Conn, error) {
	o.mu.Lock()
	o.dialling++
	o.mu.Unlock()
	conn, err := open()
	if err != nil && ctx.Err() != nil {
		err = &unreachable{err}
	}
	if err = o.keep(conn, err); err != nil {
		if conn != nil {
			_ = conn.Close() // nobody waits for it any more
		}
		return nil, err
	}
	return conn, nil
}

func (o *opened) keep(conn net.Conn, err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dialling--
	switch {
	case err != nil:
		o.err = err
	case o.closed:
		return net.ErrClosed
	default:
		o.conns = append(o.conns, conn)
	}
	return err
}

func (o *opened) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, c := range o.conns {
		_ = c.Close() // the request has ended, one way or the other
	}
}

// trouble returns why no connection could be had, if that is what happened.
func (o *opened) trouble() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.err != nil:
		return o.err
	case o.dialling > 0:
		return &unreachable{errors.New("no connection by port-forward in time")}
	}
	for _, c := range o.conns {
		if t, ok := c.(*tunnel); ok {
			if err := t.refused(); err != nil {
				return err
			}
		}
	}
	return nil
}

// errNoAnswer is a request whose answer is empty.
var errNoAnswer = errors.New("the connection was closed without an answer")
