package main

import (
	"fmt"
	"net/http"
)

// newShop serves the page, the health endpoints and the metrics. The metrics are
// of the page alone: probes and scrapes would only dilute them.
func newShop(version, greeting string, f flaws) http.Handler {
	if greeting == "" {
		greeting = "welcome"
	}
	requests := newMetrics(version)
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "shop %s: %s\n", version, greeting)
	})
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", named(version, requests.count(f.spoil(page))))
	mux.Handle("GET /metrics", requests)
	for _, probe := range []string{"startup", "ready", "live"} {
		mux.HandleFunc("GET /healthz/"+probe, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintln(w, "ok")
		})
	}
	return mux
}

// named has every answer say which version it is of, also those that fail, so that
// a client can tell whose failure it was.
func named(version string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Version", version)
		next.ServeHTTP(w, r)
	})
}
