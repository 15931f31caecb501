package smoke

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// HTTPConfig configures a smoke test over HTTP by port-forward; see [NewHTTP].
type HTTPConfig struct {
	// REST is how to reach the cluster. It is copied. Required, unless Cluster is set.
	REST *rest.Config
	// Cluster is a connection to share with verifiers and other tests, see
	// [rollout.Connect]. Closing the test leaves it open.
	Cluster *rollout.Cluster
	// Target is whom to ask.
	Target Target
	// Path is what to get, with its query. Default "/". {{.Release}} and the like are
	// filled in.
	Path string
	// Host is sent as the request's host. Default the target's name in the cluster,
	// such as "shop.shop.svc".
	Host string
	// Headers are sent along. Credentials are refused: they go into SecretHeaders.
	Headers map[string]string
	// SecretHeaders, where set, returns headers whose values are secret. They are
	// masked in whatever is shown.
	SecretHeaders func(ctx context.Context) (http.Header, error)
	// TLS, where set, says how to speak HTTPS.
	TLS *TLS
	// Redirects is how many redirects are followed, within the same host. By default
	// none is: a redirect is an answer.
	Redirects int
	// Expect is what must be answered. Without a Status, any below 400.
	Expect Expect
	// RequestTimeout bounds one request. Default 5 seconds.
	RequestTimeout time.Duration
	// Timeout bounds everything. Default 1 minute.
	Timeout time.Duration
	// Redact masks secrets in bodies and messages, after [rollout.Redact]. It must be
	// safe for concurrent use.
	Redact func(text string) string
}

// TLS is how a server proves who it is.
type TLS struct {
	// ServerName is what its certificate must be for. Default the target's name in
	// the cluster, such as "shop.shop.svc".
	ServerName string
	// CA holds the certificates to trust, in PEM. Default this machine's.
	CA []byte
	// DangerouslyTrustAnyCertificate switches the check of the certificate off.
	DangerouslyTrustAnyCertificate bool
}

// Config returns the configuration for a connection to a host. Its error matches
// [stages.ErrInvalid].
func (t TLS) Config(host string) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: cmp.Or(t.ServerName, host),
		InsecureSkipVerify: t.DangerouslyTrustAnyCertificate, //nolint:gosec // says so by its name
	}
	if len(t.CA) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(t.CA) {
			return nil, fmt.Errorf("%w: TLS.CA holds no certificate in PEM", stages.ErrInvalid)
		}
	}
	return c, nil
}

// httpTest is the HTTP of a dialTest.
type httpTest struct {
	HTTPConfig
	path pattern

	mu      sync.Mutex
	secrets []string
}

// NewHTTP returns a smoke test that gets a page from a ready pod of the release,
// from here, by port-forward. It asks the cluster nothing yet. Its error matches
// [stages.ErrInvalid].
func NewHTTP(config HTTPConfig) (*Test, error) {
	d, err := prepareHTTP(config)
	if err == nil {
		err = d.connect()
	}
	if err != nil {
		return nil, fmt.Errorf("smoke test over HTTP: %w", err)
	}
	return d.test(), nil
}

func prepareHTTP(c HTTPConfig) (*dialTest, error) {
	c.Path = cmp.Or(c.Path, "/")
	c.Headers = maps.Clone(c.Headers)
	h := &httpTest{HTTPConfig: c}
	var err error
	if h.path, err = parsePattern("Path", c.Path); err != nil {
		return nil, err
	}
	u, err := h.url(stages.Release{Name: "release", Namespace: "namespace", Revision: 1}, "release.namespace.svc")
	if err != nil {
		return nil, err
	}
	switch {
	case c.Redirects < 0:
		return nil, fmt.Errorf("%w: Redirects can't be negative", stages.ErrInvalid)
	case strings.ContainsAny(c.Host, "/@ \r\n") || u.Host == "":
		return nil, fmt.Errorf("%w: Host %q is no host", stages.ErrInvalid, c.Host)
	}
	if c.TLS != nil {
		if _, err := c.TLS.Config("host"); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(c.Expect.forHTTP(), checkHeaders(c.Headers, "SecretHeaders")); err != nil {
		return nil, err
	}
	d, err := prepareDial(DialConfig{
		REST: c.REST, Cluster: c.Cluster, Name: "GET " + c.Path, Target: c.Target, Try: h.try, Expect: c.Expect,
		RequestTimeout: c.RequestTimeout, Timeout: c.Timeout, Redact: c.Redact,
	})
	if err != nil {
		return nil, err
	}
	if d.expect.Status == 0 {
		d.expect.noErrors = true
	}
	d.secrets = h.masks
	return d, nil
}

// url returns what to get.
func (h *httpTest) url(rel stages.Release, host string) (*url.URL, error) {
	path, err := h.path.fill(rel)
	if err != nil {
		return nil, err
	}
	scheme := "http"
	if h.TLS != nil {
		scheme = "https"
	}
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("%w: Path must begin with a slash", stages.ErrInvalid)
	}
	return checkURL(scheme + "://" + cmp.Or(h.Host, host) + path)
}

func (h *httpTest) try(ctx context.Context, to Endpoint) (Answer, error) {
	u, err := h.url(to.Release, to.Host)
	if err != nil {
		return Answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return Answer{}, fmt.Errorf("make the request: %w", err)
	}
	if err := h.fill(ctx, req.Header); err != nil {
		return Answer{}, err
	}
	var dialled time.Duration
	transport := &http.Transport{
		Proxy: nil, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			began := time.Now()
			defer func() { dialled += time.Since(began) }()
			return to.Dial(ctx)
		},
	}
	defer transport.CloseIdleConnections()
	if h.TLS != nil {
		if transport.TLSClientConfig, err = h.TLS.Config(to.Host); err != nil {
			return Answer{}, err
		}
	}
	client := &http.Client{Transport: transport, CheckRedirect: h.redirect}
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err // the rest is known
		}
		return Answer{}, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	closing := resp.Body.Close()
	a := Answer{Status: resp.StatusCode, Body: body, Latency: time.Since(began) - dialled}
	if err != nil {
		return a, fmt.Errorf("read the body of status %d: %w", resp.StatusCode, err)
	}
	return a, closing
}

// redirect follows a redirect within the same host, as often as is allowed.
func (h *httpTest) redirect(req *http.Request, via []*http.Request) error {
	switch first := via[0].URL; {
	case len(via) > h.Redirects && h.Redirects > 0:
		return fmt.Errorf("redirected more than %d times", h.Redirects)
	case h.Redirects == 0:
		return http.ErrUseLastResponse
	case req.URL.Host != first.Host || req.URL.Scheme != first.Scheme:
		return fmt.Errorf("redirected to another host, %s://%s", req.URL.Scheme, req.URL.Host)
	}
	return nil
}

// fill sets the request's headers, and remembers which values are secret.
func (h *httpTest) fill(ctx context.Context, header http.Header) error {
	for name, value := range h.Headers {
		header.Set(name, value)
	}
	if h.SecretHeaders == nil {
		return nil
	}
	secret, err := h.SecretHeaders(ctx)
	if err != nil {
		return fmt.Errorf("get the secret headers: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, values := range secret {
		header[http.CanonicalHeaderKey(name)] = values
		for _, v := range values {
			h.remember(v)
		}
	}
	return nil
}

// remember has a value masked, and without its scheme too: "Bearer x" as x.
func (h *httpTest) remember(value string) {
	for _, v := range append(strings.Fields(value), value) {
		known := false
		for _, s := range h.secrets {
			known = known || s == v
		}
		if !known && len(v) >= 4 && !strings.EqualFold(v, "bearer") && !strings.EqualFold(v, "basic") {
			h.secrets = append(h.secrets, v)
		}
	}
}

func (h *httpTest) masks() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return forms(h.secrets)
}
