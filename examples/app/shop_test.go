package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func get(h http.Handler, path string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestShop(t *testing.T) {
	s := newShop("1.2.3", "hello", flaws{})
	if code, body := get(s, "/"); code != http.StatusOK || !strings.Contains(body, "shop 1.2.3: hello") {
		t.Errorf("GET /: %d %q", code, body)
	}
	for _, path := range []string{"/healthz/startup", "/healthz/ready", "/healthz/live"} {
		if code, _ := get(s, path); code != http.StatusOK {
			t.Errorf("GET %s: %d", path, code)
		}
	}
	if code, _ := get(s, "/nowhere"); code != http.StatusNotFound {
		t.Errorf("GET /nowhere: %d", code)
	}
}

func TestFlaws(t *testing.T) {
	f, err := parseFlaws("0.2", "300ms")
	if err != nil || f != (flaws{failRate: 0.2, slow: 300 * time.Millisecond}) {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err := parseFlaws("", ""); err != nil || f != (flaws{}) {
		t.Errorf("%+v, %v", f, err)
	}
	for _, bad := range [][2]string{{"1.1", ""}, {"-0.1", ""}, {"NaN", ""}, {"often", ""}, {"", "300"}, {"", "-1s"}} {
		if _, err := parseFlaws(bad[0], bad[1]); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestFlawedShopFailsAsOftenAsItShould(t *testing.T) {
	s := newShop("2.0.0", "", flaws{failRate: 0.2})
	failed := 0
	for range 2000 {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if got := w.Header().Get("X-Version"); got != "2.0.0" {
			t.Fatalf("an answer with status %d is of version %q", w.Code, got)
		}
		if w.Code == http.StatusInternalServerError {
			failed++
		}
	}
	// Eleven standard deviations either way.
	if failed < 200 || failed > 600 {
		t.Errorf("%d of 2000 requests failed", failed)
	}
	if code, _ := get(s, "/healthz/ready"); code != http.StatusOK {
		t.Error("a regression passes its probes")
	}
}

func TestFlawedShopIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop("2.0.0", "", flaws{slow: 300 * time.Millisecond})
		began := time.Now()
		if code, _ := get(s, "/"); code != http.StatusOK || time.Since(began) != 300*time.Millisecond {
			t.Errorf("%d after %s", code, time.Since(began))
		}
	})
}

func TestMetrics(t *testing.T) {
	m := newMetrics(`1.0 "beta"` + "\n")
	for _, d := range []time.Duration{0, 5 * time.Millisecond, 250 * time.Millisecond, 300 * time.Millisecond, time.Minute} {
		m.observe(http.StatusOK, d)
	}
	m.observe(http.StatusInternalServerError, time.Second)
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if got := w.Header().Get("Content-Type"); got != "text/plain; version=0.0.4; charset=utf-8" {
		t.Error(got)
	}
	want := `# HELP http_requests_total Requests of the page, by status code.
# TYPE http_requests_total counter
http_requests_total{version="1.0 \"beta\"\n",code="200"} 5
http_requests_total{version="1.0 \"beta\"\n",code="500"} 1
# HELP http_request_duration_seconds How long requests of the page took.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{version="1.0 \"beta\"\n",le="0.005"} 2
http_request_duration_seconds_bucket{version="1.0 \"beta\"\n",le="0.01"} 2
http_request_duration_seconds_bucket{version="1.0 \"beta\"\n",le="0.025"} 2
http_request_duration_seconds_bucket{version="1.0 \"beta\"\n",le="0.05"} 2
http_request_duration_seconds_bucket{version="1.0 \"beta\"\n",le="0.1"} 2
http_request_duration_seconds_bucket{version="1.0 \"beta\"\n",le="0.25"} 3
http_request_duration_seconds_bucket{version="1.0 \"beta\"\n",le="0.5"} 4
http_request_duration_seconds_bucket{version="1.0 \"beta\"\n",le="1"} 5
http_request_duration_seconds_bucket{version="1.0 \"beta\"\n",le="2.5"} 5
http_request_duration_seconds_bucket{version="1.0 \"beta\"\n",le="5"} 5
http_request_duration_seconds_bucket{version="1.0 \"beta\"\n",le="10"} 5
http_request_duration_seconds_bucket{version="1.0 \"beta\"\n",le="+Inf"} 6
http_request_duration_seconds_sum{version="1.0 \"beta\"\n"} 61.555
http_request_duration_seconds_count{version="1.0 \"beta\"\n"} 6
`
	if got := w.Body.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestMetricsAreOfThePageAlone(t *testing.T) {
	s := newShop("1.0.0", "", flaws{})
	for _, path := range []string{"/", "/", "/healthz/ready", "/metrics"} {
		get(s, path)
	}
	if _, text := get(s, "/metrics"); !strings.Contains(text, `http_requests_total{version="1.0.0",code="200"} 2`+"\n") {
		t.Error(text)
	}
}
