package cloudkms_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The hosts that the SDKs ask, by the names that they make of keys in files.
const (
	awsHost   = "kms.eu-west-2.amazonaws.com"
	stsHost   = "sts.eu-west-2.amazonaws.com"
	gcpHost   = "cloudkms.googleapis.com"
	azureHost = "shop.vault.azure.net"
	loginHost = "login.microsoftonline.com"
)

// internet is what the tests, and the sops command that they run, have for one.
var internet = &network{hosts: map[string]http.Handler{}}

// environment is that of programs which need the real one.
var environment = os.Environ()

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("", "cloudkms")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	stop, err := internet.start(folder)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stop()
	return m.Run()
}

// network is a proxy through which the SDKs reach stand-ins for the hosts of the
// clouds: over TLS, by the hosts' own names, and no other host.
type network struct {
	mu    sync.Mutex
	hosts map[string]http.Handler
	asked []string
	env   []string
}

// start serves the hosts, and leaves nothing in the environment but what leads to them.
func (n *network) start(folder string) (stop func(), err error) {
	certificate, err := selfSigned(awsHost, stsHost, gcpHost, azureHost, loginHost)
	if err != nil {
		return nil, err
	}
	authority := filepath.Join(folder, "authority.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})
	if err := os.WriteFile(authority, block, 0o600); err != nil {
		return nil, err
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		handler := n.hosts[strings.TrimSuffix(r.Host, ":443")]
		n.mu.Unlock()
		if handler == nil {
			handler = http.NotFoundHandler()
		}
		handler.ServeHTTP(w, r)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	server.EnableHTTP2 = true
	server.StartTLS()
	proxy := httptest.NewServer(n.tunnel(server.Listener.Addr().String()))

	n.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + folder, "TMPDIR=" + os.TempDir(), "HTTPS_PROXY=" + proxy.URL, "SSL_CERT_FILE=" + authority,
		"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
	os.Clearenv()
	for _, setting := range n.env {
		name, value, _ := strings.Cut(setting, "=")
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	return func() { proxy.Close(); server.Close() }, nil
}

// tunnel is a proxy that connects to one address for all known hosts.
func (n *network) tunnel(address string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.Host)
		n.mu.Lock()
		n.asked = append(n.asked, host)
		known := n.hosts[host] != nil
		n.mu.Unlock()
		if r.Method != http.MethodConnect || !known {
			http.Error(w, "no such host", http.StatusBadGateway)
			return
		}
		there, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", address)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(there, buffered)
			_ = there.Close()
		}()
		_, _ = io.Copy(here, there)
	})
}

// serve answers for a host until the test ends.
func (n *network) serve(t *testing.T, host string, handler http.Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[host], n.asked = handler, nil
	t.Cleanup(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.hosts, host)
	})
}

// connections returns the hosts that were asked for since the last one was served.
func (n *network) connections() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

func selfSigned(hosts ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: hosts, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
