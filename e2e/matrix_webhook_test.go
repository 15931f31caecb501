package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	admission "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// webhooks is an admission webhook on this host that answers as the first part of the
// path says.
type webhooks struct {
	server *http.Server
	addr   string
	pem    []byte // of the certificate

	mu    sync.Mutex
	asked map[string]int // by path
}

// failures is how often a failing webhook fails, for each namespace.
const failures = 3

// startWebhooks listens where the API server reaches this host.
func startWebhooks(ctx context.Context, gateway netip.Addr) (*webhooks, error) {
	certificate, text, err := selfSigned(gateway)
	if err != nil {
		return nil, fmt.Errorf("start the admission webhook: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(gateway.String(), "0"))
	if err != nil {
		return nil, fmt.Errorf("start the admission webhook: %w", err)
	}
	h := &webhooks{addr: listener.Addr().String(), pem: text, asked: map[string]int{}}
	h.server = &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12,
	}}
	go h.server.ServeTLS(listener, "", "") //nolint:errcheck // it ends with Close
	return h, nil
}

func (h *webhooks) Close() error { return h.server.Close() }

func selfSigned(at netip.Addr) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{at.AsSlice()}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

// ServeHTTP answers /<what it does>/<namespace>.
func (h *webhooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.asked[r.URL.Path]++
	n := h.asked[r.URL.Path]
	h.mu.Unlock()
	var review admission.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
		http.Error(w, "no admission review", http.StatusBadRequest)
		return
	}
	answer := &admission.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	switch does, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); {
	case does == "fail" && n <= failures:
		http.Error(w, "no policy loaded yet", http.StatusInternalServerError)
		return
	case does == "deny":
		answer.Allowed, answer.Result = false, &metav1.Status{Message: "spec.containers[0].image: of no registry that is allowed"}
	}
	review.Request, review.Response = nil, answer
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

// webhook has the pods of a namespace admitted by what does so.
func webhook(does string) func(context.Context, *matrix, string) error {
	return func(ctx context.Context, m *matrix, namespace string) error {
		err := m.admitBy(ctx, namespace, admissionv1.WebhookClientConfig{
			URL: new("https://" + m.webhooks.addr + "/" + does + "/" + namespace), CABundle: m.webhooks.pem,
		})
		if err != nil || does != "deny" {
			pause(ctx, time.Second) // for the API server to know of it
			return err
		}
		return m.refused(ctx, namespace)
	}
}

// sawWebhookFail checks that the webhook was asked, and failed.
func sawWebhookFail(_ context.Context, m *matrix, namespace string, _ *workload) error {
	m.webhooks.mu.Lock()
	defer m.webhooks.mu.Unlock()
	if m.webhooks.asked["/fail/"+namespace] <= failures {
		return errors.New("the webhook was not asked often enough to fail, and then to admit a pod")
	}
	return nil
}
