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
	mux.Handle("GET /{$}", requests.count(f.spoil(version, page)))
	mux.Handle("GET /metrics", requests)
	for _, probe := range []string{"startup", "ready", "live"} {
		mux.HandleFunc("GET /healthz/"+probe, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintln(w, "ok")
		})
	}
	return mux
}
