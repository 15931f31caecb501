package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"
)

// The defaults and the bounds of a [Config].
const (
	DefaultRate    = 40
	DefaultTimeout = 5 * time.Second
	DefaultFor     = 10 * time.Minute

	MaxRate = 500
	MaxFor  = time.Hour
)

// versionHeader is where a response says which version it is of.
const versionHeader = "X-Version"

// bodyLimit is how much of a response is read.
const bodyLimit = 1 << 20

// Config says where requests go, and how many.
type Config struct {
	// URL is what to GET, required: an http URL. Responses say which version they
	// are of in the header X-Version.
	URL string
	// Host is the name that requests ask for, unless it is the URL's own.
	Host string
	// Rate is how many requests are sent per second, at most [MaxRate].
	Rate int
	// Timeout bounds each request.
	Timeout time.Duration
	// For is how long requests are sent unless stopped before, at most [MaxFor].
	For time.Duration
}

// Generator sends requests until it is stopped.
type Generator struct {
	config Config
	client *http.Client
	cancel context.CancelFunc
	done   chan struct{}
	began  time.Time

	mu     sync.Mutex
	report Report
}

// Start sends requests until Stop is called, ctx ends or the time is over.
func Start(ctx context.Context, config Config) (*Generator, error) {
	if err := config.complete(); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, config.For)
	g := &Generator{config: config, client: newClient(config.Timeout), cancel: cancel, done: make(chan struct{}), began: time.Now()}
	g.report = Report{Versions: map[string]Tally{}, Lost: map[string]int{}}
	go g.run(ctx)
	return g, nil
}

func (c *Config) complete() error {
	c.Rate = cmp.Or(c.Rate, DefaultRate)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.For = cmp.Or(c.For, DefaultFor)
	u, err := url.Parse(c.URL)
	switch {
	case err != nil:
		return err
	case u.Scheme != "http" || u.Host == "":
		return fmt.Errorf("%q is no http URL", c.URL)
	case c.Rate < 1 || c.Rate > MaxRate:
		return fmt.Errorf("%d requests per second are not between 1 and %d", c.Rate, MaxRate)
	case c.Timeout < 0 || c.For < 0 || c.For > MaxFor:
		return fmt.Errorf("durations can't be negative, nor longer than %s in total", MaxFor)
	}
	return nil
}

func newClient(timeout time.Duration) *http.Client {
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error { return requirePrivate(address) }}
	return &http.Client{
		Timeout:       timeout,
		Transport:     &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// errPublic says that an address is not one to load.
var errPublic = errors.New("neither this machine nor on a private network")

// requirePrivate looks at the address that a connection is about to be made to.
func requirePrivate(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if ip := at.Addr().Unmap(); !ip.IsLoopback() && !ip.IsPrivate() && !ip.IsLinkLocalUnicast() {
		return fmt.Errorf("%s: %w", ip, errPublic)
	}
	return nil
}

// run sends requests when they are due and returns once all are answered.
func (g *Generator) run(ctx context.Context) {
	defer close(g.done)
	var underway sync.WaitGroup
	defer underway.Wait()
	due := time.NewTicker(time.Second / time.Duration(g.config.Rate))
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		}
		// Those under way are answered even when sending has ended: aborting them
		// would make failures of ours.
		underway.Go(func() { g.send(context.WithoutCancel(ctx)) })
	}
}

func (g *Generator) send(ctx context.Context) {
	began := time.Now()
	version, status, err := g.get(ctx)
	took := time.Since(began)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.report.add(version, status, took, err)
}

func (g *Generator) get(ctx context.Context) (version string, status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.config.URL, http.NoBody)
	if err != nil {
		return "", 0, err
	}
	request.Host = g.config.Host
	response, err := g.client.Do(request)
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, bodyLimit))
	return response.Header.Get(versionHeader), response.StatusCode, err
}

// Report tells what has become of the requests so far.
func (g *Generator) Report() Report {
	g.mu.Lock()
	defer g.mu.Unlock()
	report := g.report.clone()
	report.Elapsed = time.Since(g.began)
	return report
}

// Stop ends the sending, waits for what is under way and returns the report. It
// can be called again.
func (g *Generator) Stop() Report {
	g.cancel()
	<-g.done
	return g.Report()
}
