package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// buckets are the upper bounds, in seconds, of the latency histogram: the ones
// that Prometheus's own libraries start with.
var buckets = [...]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// metrics counts requests by status code and how long they took, and serves both
// in Prometheus's text format 0.0.4. It is written by hand because the image is
// built without a network, and so without Prometheus's library.
type metrics struct {
	version string // escaped as a label's value

	mu       sync.Mutex
	requests map[int]uint64           // by status code
	within   [len(buckets) + 1]uint64 // by bucket, not cumulated; the last is beyond all bounds
	seconds  float64
}

func newMetrics(version string) *metrics {
	// Counters that start at zero show the first failure as an increase.
	return &metrics{
		version:  strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(version),
		requests: map[int]uint64{http.StatusOK: 0, http.StatusInternalServerError: 0},
	}
}

// count measures what next serves.
func (m *metrics) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &statusWriter{ResponseWriter: w, code: http.StatusOK}
		began := time.Now()
		next.ServeHTTP(answer, r)
		m.observe(answer.code, time.Since(began))
	})
}

func (m *metrics) observe(code int, took time.Duration) {
	seconds := took.Seconds()
	// A bound is part of its bucket, so an exact match belongs where it was found.
	bucket, _ := slices.BinarySearch(buckets[:], seconds)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests[code]++
	m.within[bucket]++
	m.seconds += seconds
}

// ServeHTTP answers a scrape.
func (m *metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(m.text())
}

func (m *metrics) text() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b bytes.Buffer
	b.WriteString("# HELP http_requests_total Requests of the page, by status code.\n# TYPE http_requests_total counter\n")
	for _, code := range slices.Sorted(maps.Keys(m.requests)) {
		fmt.Fprintf(&b, "http_requests_total{version=\"%s\",code=\"%d\"} %d\n", m.version, code, m.requests[code])
	}
	b.WriteString("# HELP http_request_duration_seconds How long requests of the page took.\n# TYPE http_request_duration_seconds histogram\n")
	var total uint64
	for i, n := range m.within {
		total += n
		bound := "+Inf"
		if i < len(buckets) {
			bound = strconv.FormatFloat(buckets[i], 'g', -1, 64)
		}
		fmt.Fprintf(&b, "http_request_duration_seconds_bucket{version=\"%s\",le=\"%s\"} %d\n", m.version, bound, total)
	}
	fmt.Fprintf(&b, "http_request_duration_seconds_sum{version=\"%s\"} %g\n", m.version, m.seconds)
	fmt.Fprintf(&b, "http_request_duration_seconds_count{version=\"%s\"} %d\n", m.version, total)
	return b.Bytes()
}

// statusWriter remembers the status code that was sent.
type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}
