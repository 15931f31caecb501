package prometheus_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/metric/prometheus"
)

func TestRequestsAreAuthorized(t *testing.T) {
	token := func(context.Context) (string, error) { return canary + "token", nil }
	password := func(context.Context) (string, error) { return canary + "password", nil }
	for name, test := range map[string]struct {
		change func(*prometheus.Config)
		want   string
	}{
		"nothing": {func(*prometheus.Config) {}, ""},
		"token":   {func(c *prometheus.Config) { c.BearerToken = token }, "Bearer " + canary + "token"},
		"basic":   {func(c *prometheus.Config) { c.Username, c.Password = "me", password }, "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+canary+"password"))},
	} {
		t.Run(name, func(t *testing.T) {
			s := source(t, server(t, func(w http.ResponseWriter, query string, r *http.Request) {
				assert.Equal(t, test.want, r.Header.Get("Authorization"))
				assert.Equal(t, "team-a", r.Header.Get("X-Scope-OrgID"))
				assert.Equal(t, "/prefix/api/v1/query", r.URL.Path)
				says(200, success(vector("1")))(w, query, r)
			}).URL+"/prefix", func(c *prometheus.Config) { c.Headers = map[string]string{"X-Scope-OrgID": "team-a"}; test.change(c) })
			_, err := s.Query(t.Context(), metric.Query{Expression: "x"})
			require.NoError(t, err)
		})
	}
}

// TestNoSecretInErrors has servers repeat what they got, in every way.
func TestNoSecretInErrors(t *testing.T) {
	change := func(c *prometheus.Config) {
		c.Username, c.Password = "me", func(context.Context) (string, error) { return canary + "password", nil }
		c.Headers = map[string]string{"X-Api-Key": canary + "header"}
	}
	echo := func(status int) func(http.ResponseWriter, string, *http.Request) {
		return func(w http.ResponseWriter, _ string, r *http.Request) {
			w.WriteHeader(status)
			_, pw, _ := r.BasicAuth()
			text := r.Header.Get("Authorization") + " " + pw + " " + r.Header.Get("X-Api-Key")
			_, _ = fmt.Fprintf(w, `{"status":"error","errorType":"execution","error":%q,"warnings":[%q]}`, text, text)
		}
	}
	for _, status := range []int{400, 401, 403, 422, 500, 503} {
		s := source(t, server(t, echo(status)).URL, change)
		_, err := s.Query(t.Context(), metric.Query{Expression: "x"})
		require.Error(t, err)
		for e := err; e != nil; e = errors.Unwrap(e) {
			assert.NotContains(t, fmt.Sprintf("%v %+v %#v", e, e, e), canary, status)
		}
		assert.NotContains(t, err.Error(), base64.StdEncoding.EncodeToString([]byte("me:"+canary+"password")))
	}
	s := source(t, server(t, func(w http.ResponseWriter, _ string, r *http.Request) {
		_, _ = io.WriteString(w, success(vector(), fmt.Sprintf(`,"warnings":[%q]`, r.Header.Get("X-Api-Key"))))
	}).URL, change)
	r, err := s.Query(t.Context(), metric.Query{Expression: "x"})
	require.NoError(t, err)
	assert.NotContains(t, fmt.Sprint(r.Warnings), canary)

	s = source(t, "http://127.0.0.1:1", change)
	_, err = s.Query(t.Context(), metric.Query{Expression: "x"})
	assert.NotContains(t, err.Error(), canary)
}

func TestNoCredentialsAfterARedirect(t *testing.T) {
	other := server(t, func(_ http.ResponseWriter, _ string, r *http.Request) {
		t.Errorf("followed a redirect with %v", r.Header)
	})
	s := source(t, server(t, func(w http.ResponseWriter, _ string, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}).URL, func(c *prometheus.Config) {
		c.BearerToken = func(context.Context) (string, error) { return canary, nil }
	})
	_, err := s.Query(t.Context(), metric.Query{Expression: "x"})
	require.ErrorContains(t, err, "307")
}

func TestCredentialsThatCanNotBeHad(t *testing.T) {
	why := errors.New("vault is sealed")
	s := source(t, "http://127.0.0.1:1", func(c *prometheus.Config) {
		c.BearerToken = func(context.Context) (string, error) { return "", why }
	})
	_, err := s.Query(t.Context(), metric.Query{Expression: "x"})
	require.ErrorIs(t, err, why)
	require.ErrorIs(t, err, metric.ErrQuery)
}

// roundTripper is a transport of the caller's own.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTransport(t *testing.T) {
	url := server(t, says(200, success(vector("1")))).URL
	used := 0
	s := source(t, url, func(c *prometheus.Config) {
		c.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			used++
			return http.DefaultTransport.RoundTrip(r)
		})
	})
	_, err := s.Query(t.Context(), metric.Query{Expression: "x"})
	require.NoError(t, err)
	assert.Equal(t, 2, used)
}

func TestTLS(t *testing.T) {
	certificate, key := clientCertificate(t)
	s := httptest.NewUnstartedServer(handler(says(200, success(vector("1")))))
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(certificate)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, test := range map[string]struct {
		change func(*prometheus.Config)
		works  bool
	}{
		"all of it": {func(c *prometheus.Config) { c.CA, c.Certificate, c.Key = ca, certificate, key }, true},
		"another name": {func(c *prometheus.Config) {
			c.CA, c.Certificate, c.Key, c.ServerName = ca, certificate, key, "example.com"
		}, true},
		"a wrong name": {func(c *prometheus.Config) {
			c.CA, c.Certificate, c.Key, c.ServerName = ca, certificate, key, "other.test"
		}, false},
		"without authority":    {func(c *prometheus.Config) { c.Certificate, c.Key = certificate, key }, false},
		"without client's own": {func(c *prometheus.Config) { c.CA = ca }, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := source(t, s.URL, test.change).Query(t.Context(), metric.Query{Expression: "x"})
			if test.works {
				require.NoError(t, err)
				return
			}
			failed, ok := errors.AsType[*metric.QueryError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, metric.Unreachable, failed.Class)
		})
	}
}

func clientCertificate(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fairlead"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	raw, err := x509.MarshalECPrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}
