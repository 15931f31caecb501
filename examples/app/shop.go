package main

import (
	"fmt"
	"net/http"
)

// newShop serves the page and the health endpoints.
func newShop(version, greeting string) http.Handler {
	if greeting == "" {
		greeting = "welcome"
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "shop %s: %s\n", version, greeting)
	})
	for _, probe := range []string{"startup", "ready", "live"} {
		mux.HandleFunc("GET /healthz/"+probe, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintln(w, "ok")
		})
	}
	return mux
}
