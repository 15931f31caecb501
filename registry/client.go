package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fairlead-dev/fairlead/stages"
)

// Config configures a [Client]. The zero value reads and writes anonymously,
// over HTTPS except to this machine.
type Config struct {
	// Auth finds the credentials for a repository: [Basic], [DockerConfig], or any
	// keychain written for go-containerregistry. Nil means anonymous.
	Auth authn.Keychain
	// Insecure names the registries that may be reached over plain HTTP, as host
	// or host:port; a host alone stands for all its ports. This machine's own
	// loopback addresses always may.
	Insecure []string
	// UserAgent is sent with every request, by default "fairlead".
	UserAgent string
	// Transport carries the requests, for example with a CA of one's own. The
	// default is like [http.DefaultTransport], which honours the proxy settings.
	Transport http.RoundTripper
}

// Client reads and writes registries. It never retries; an error that a retry
// can't mend is [stages.Permanent], any other is worth one. A Client is safe for
// concurrent use.
type Client struct {
	auth      authn.Keychain
	insecure  map[string]bool
	userAgent string
	transport http.RoundTripper
	updates   keyedLock
	// owned is the transport that Close may empty.
	owned *http.Transport
}

// New returns a client, or an error matching [stages.ErrInvalid].
func New(cfg Config) (*Client, error) {
	c := &Client{auth: cfg.Auth, insecure: map[string]bool{}, userAgent: cfg.UserAgent, transport: cfg.Transport}
	for _, host := range cfg.Insecure {
		// A reference in it would be a host with a path, so any path will do.
		if err := stages.ValidateRepository(withPort(host) + "/any"); err != nil {
			return nil, fmt.Errorf("%w: registry.Config.Insecure: an entry must be a host or host:port, without scheme, path or credentials", stages.ErrInvalid)
		}
		c.insecure[host] = true
	}
	if c.auth == nil {
		c.auth = anonymous{}
	}
	if c.userAgent == "" {
		c.userAgent = "fairlead"
	}
	if strings.ContainsAny(c.userAgent, "\r\n") {
		return nil, fmt.Errorf("%w: registry.Config.UserAgent has a line break", stages.ErrInvalid)
	}
	if c.transport == nil {
		c.owned = defaultTransport()
		c.owned.MaxIdleConnsPerHost = 16 // a push talks to one host only
		c.transport = c.owned
	}
	return c, nil
}

func defaultTransport() *http.Transport {
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		return t.Clone()
	}
	// The program has put something of its own in place; it said nothing of us.
	return &http.Transport{Proxy: http.ProxyFromEnvironment}
}

// Close drops idle connections. The client stays usable.
func (c *Client) Close() error {
	if c.owned != nil {
		c.owned.CloseIdleConnections()
	}
	return nil
}

// withPort lets a bare name pass for a registry host, which needs a dot or port.
func withPort(host string) string {
	if strings.HasSuffix(host, "]") || !strings.Contains(host, ":") {
		return host + ":1"
	}
	return host
}

// plain reports whether a host, with or without port, may be reached over plain
// HTTP.
func (c *Client) plain(host string) bool {
	hostname, _, err := net.SplitHostPort(host)
	if err != nil {
		hostname = host
	}
	bare := strings.Trim(hostname, "[]")
	if ip := net.ParseIP(bare); ip != nil && ip.IsLoopback() {
		return true
	}
	return bare == "localhost" || strings.HasSuffix(bare, ".localhost") ||
		c.insecure[host] || c.insecure[hostname] || c.insecure["["+bare+"]"]
}

// repository returns a validated name for go-containerregistry.
func (c *Client) repository(repo string) (name.Repository, error) {
	if err := validateRepository(repo); err != nil {
		return name.Repository{}, err
	}
	host, _, _ := strings.Cut(repo, "/")
	var opts []name.Option
	if c.plain(host) {
		opts = append(opts, name.Insecure)
	}
	r, err := name.NewRepository(repo, opts...)
	if err != nil {
		return r, fmt.Errorf("%w: repository %q: %w", stages.ErrInvalid, repo, err)
	}
	return r, nil
}

func (c *Client) digest(img stages.Image) (name.Digest, error) {
	if img.IsZero() {
		return name.Digest{}, fmt.Errorf("%w: there is no image", stages.ErrInvalid)
	}
	repo, err := c.repository(img.Repository())
	if err != nil {
		return name.Digest{}, err
	}
	return repo.Digest(img.Digest().String()), nil
}

// request is one operation on a registry: what it is about, for its errors, and
// the secrets that were used, to keep them out of those.
type request struct {
	what    string
	secrets *secrets
	opts    []remote.Option
}

// begin prepares an operation; what completes "could not …".
func (c *Client) begin(what string) *request {
	s := &secrets{}
	return &request{what: what, secrets: s, opts: []remote.Option{
		remote.WithAuthFromKeychain(recordingKeychain{c.auth, s}),
		remote.WithUserAgent(c.userAgent),
		remote.WithTransport(&guard{inner: c.transport, plain: c.plain, secrets: s}),
		// The engine retries, so nothing here does.
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
		remote.WithRetryPredicate(func(error) bool { return false }),
		remote.WithRetryStatusCodes(),
	}}
}

func (r *request) puller() (*remote.Puller, error) { return remote.NewPuller(r.opts...) }
func (r *request) pusher() (*remote.Pusher, error) { return remote.NewPusher(r.opts...) }

// started refuses a context that has ended, before anything is asked.
func (r *request) started(ctx context.Context) error {
	if ctx.Err() != nil {
		return r.fail(ctx, ctx.Err())
	}
	return nil
}
