// Command shop is the sample service that the examples deliver: one page and
// the health endpoints that its chart probes.
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Set at build time with -ldflags "-X main.version=…".
var (
	version = "dev"
	// requiredEnv names a variable without which this build refuses to start. It
	// is how the demo makes a release that builds, scans and then does not run.
	requiredEnv = ""
	// failRate is the share of requests that this build answers with an error, from
	// 0 to 1, and slow how much longer it takes over each. They make a release that
	// starts, is ready and still is a regression.
	failRate = ""
	slow     = ""
)

func main() {
	if err := run(); err != nil {
		log.Fatalf("shop %s: %v", version, err)
	}
}

func run() error {
	if requiredEnv != "" && os.Getenv(requiredEnv) == "" {
		return errors.New(requiredEnv + " is not set")
	}
	flaws, err := parseFlaws(failRate, slow)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	server := &http.Server{Addr: ":8080", Handler: newShop(version, os.Getenv("GREETING"), flaws), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	log.Printf("shop %s listens on %s", version, server.Addr)

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	shutdown, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return server.Shutdown(shutdown)
}
