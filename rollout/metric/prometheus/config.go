package prometheus

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/fairlead-dev/fairlead/stages"
)

// Config configures a [Source].
type Config struct {
	// URL is the server's, required, such as "https://prometheus.example/prefix",
	// without credentials, query or fragment.
	URL string
	// BearerToken returns the token for a request, where one is needed. It is called
	// for each request, so that it can be renewed.
	BearerToken func(ctx context.Context) (string, error)
	// Username and Password are for basic authentication, in place of a token.
	Username string
	Password func(ctx context.Context) (string, error)
	// Headers are sent with each request, such as X-Scope-OrgID. Their values are
	// kept out of errors.
	Headers map[string]string
	// CA are the PEM certificates of the authorities to trust in place of the
	// system's.
	CA []byte
	// Certificate and Key are the client's own, in PEM.
	Certificate, Key []byte
	// ServerName is the name that the server's certificate must have, if that isn't
	// the one in URL.
	ServerName string
	// Proxy returns the proxy for a request, as [http.ProxyFromEnvironment] does; no
	// proxy by default.
	Proxy func(*http.Request) (*url.URL, error)
	// Transport sends the requests in place of one with the certificates and the
	// proxy above: for example that of a cluster's REST config, to reach a server
	// through the API server. It authenticates by itself, or leaves it to the rest.
	Transport http.RoundTripper
	// Timeout bounds one query, with what belongs to it. Default 10 seconds.
	Timeout time.Duration
	// MaxSeries bounds the series of an answer, and MaxBytes its size. Default 10000
	// and 32 MiB. What is over is refused as [metric.TooManySeries].
	MaxSeries int
	MaxBytes  int64
	// AcceptPartial takes answers with warnings for whole ones. The warnings end up
	// in the decision.
	AcceptPartial bool
}

// The defaults of [Config].
const (
	DefaultTimeout   = 10 * time.Second
	DefaultMaxSeries = 10_000
	DefaultMaxBytes  = 32 << 20
)

func (c Config) complete() (Config, *url.URL, error) {
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.MaxSeries = cmp.Or(c.MaxSeries, DefaultMaxSeries)
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultMaxBytes)
	address, err := url.Parse(c.URL)
	switch {
	case c.URL == "":
		return c, nil, fmt.Errorf("%w: URL is required", stages.ErrInvalid)
	case err != nil:
		// The error would repeat the URL, which may hold a password.
		return c, nil, fmt.Errorf("%w: URL can't be parsed", stages.ErrInvalid)
	case address.User != nil || strings.Contains(c.URL, "@"):
		return c, nil, fmt.Errorf("%w: URL holds credentials: use BearerToken or Username and Password", stages.ErrInvalid)
	case address.Scheme != "http" && address.Scheme != "https" || address.Host == "":
		return c, nil, fmt.Errorf("%w: URL %q must begin with http:// or https:// and a host", stages.ErrInvalid, address.Redacted())
	case address.RawQuery != "" || address.ForceQuery || address.Fragment != "":
		return c, nil, fmt.Errorf("%w: URL must have no query and no fragment", stages.ErrInvalid)
	case c.BearerToken != nil && (c.Username != "" || c.Password != nil):
		return c, nil, fmt.Errorf("%w: there is both a BearerToken and a Username or Password", stages.ErrInvalid)
	case c.Transport != nil && (len(c.CA)+len(c.Certificate)+len(c.Key) > 0 || c.ServerName != "" || c.Proxy != nil):
		return c, nil, fmt.Errorf("%w: with Transport, certificates and Proxy are its own affair", stages.ErrInvalid)
	case (c.Username != "") != (c.Password != nil):
		return c, nil, fmt.Errorf("%w: Username and Password go together", stages.ErrInvalid)
	case c.Timeout < 0 || c.MaxSeries < 0 || c.MaxBytes < 0:
		return c, nil, fmt.Errorf("%w: Timeout, MaxSeries and MaxBytes can't be negative", stages.ErrInvalid)
	}
	return c, address, c.checkHeaders()
}

func (c Config) checkHeaders() error {
	for name, value := range c.Headers {
		switch {
		case !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value):
			return fmt.Errorf("%w: header %q is malformed", stages.ErrInvalid, name)
		case strings.EqualFold(name, "Authorization"):
			return fmt.Errorf("%w: header Authorization: use BearerToken or Username and Password", stages.ErrInvalid)
		}
	}
	return nil
}

// transport returns what the requests go through.
func (c Config) transport() (http.RoundTripper, error) {
	if c.Transport != nil {
		return c.Transport, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if len(c.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, fmt.Errorf("%w: CA holds no certificate in PEM", stages.ErrInvalid)
		}
	}
	if len(c.Certificate) > 0 || len(c.Key) > 0 {
		pair, err := tls.X509KeyPair(c.Certificate, c.Key)
		if err != nil {
			return nil, errors.Join(stages.ErrInvalid, fmt.Errorf("read Certificate and Key: %w", err))
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Transport{
		Proxy:                 c.Proxy,
		TLSClientConfig:       config,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       30 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: c.Timeout,
	}, nil
}
