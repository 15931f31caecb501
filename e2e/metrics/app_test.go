package metrics_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// app is a scrape target whose counters grow with time.
type app struct {
	server *httptest.Server

	mu       sync.Mutex
	began    time.Time
	rate     float64       // requests a second
	failing  float64       // share of them
	slow     float64       // share of them that takes longer than 0.5 s
	restarts time.Duration // it begins again at zero this often; 0 for never
	down     bool
	extra    string // further lines
}

// startApp starts an app that has served for an hour.
func startApp(t *testing.T, rate, failing float64) *app {
	t.Helper()
	a := &app{began: time.Now().Add(-time.Hour), rate: rate, failing: failing}
	a.server = httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(a.server.Close)
	return a
}

func (a *app) address() string { return strings.TrimPrefix(a.server.URL, "http://") }

// change changes what is to be scraped.
func (a *app) change(f func(*app)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

func (a *app) serve(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	age := time.Since(a.began)
	if a.restarts > 0 {
		age %= a.restarts
	}
	served := int64(a.rate * age.Seconds())
	failed, slow := int64(float64(served)*a.failing), int64(float64(served)*a.slow)
	lines := []string{"# TYPE http_requests_total counter", fmt.Sprintf(`http_requests_total{code="200"} %d`, served-failed)}
	if failed > 0 {
		lines = append(lines, fmt.Sprintf(`http_requests_total{code="503"} %d`, failed))
	}
	lines = append(lines, "# TYPE http_request_duration_seconds histogram")
	for _, bucket := range []struct {
		le    string
		count int64
	}{{"0.05", 0}, {"0.1", served - slow}, {"0.5", served - slow}, {"1", served}, {"+Inf", served}} {
		lines = append(lines, fmt.Sprintf(`http_request_duration_seconds_bucket{le=%q} %d`, bucket.le, bucket.count))
	}
	lines = append(lines, fmt.Sprintf("http_request_duration_seconds_count %d", served), "http_request_duration_seconds_sum 1", a.extra, "")
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = w.Write([]byte(strings.Join(lines, "\n")))
}
