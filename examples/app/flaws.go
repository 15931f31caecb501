package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// flaws are what is wrong with a build.
type flaws struct {
	failRate float64       // share of requests that fail, from 0 to 1
	slow     time.Duration // added to each request
}

// clientGone is what nginx counts a request as whose client didn't wait.
const clientGone = 499

// parseFlaws reads a share such as "0.2" and a duration such as "300ms"; each may
// be empty.
func parseFlaws(failRate, slow string) (flaws, error) {
	var f flaws
	var err error
	if failRate != "" {
		if f.failRate, err = strconv.ParseFloat(failRate, 64); err != nil || !(f.failRate >= 0 && f.failRate <= 1) {
			return flaws{}, fmt.Errorf("FAIL_RATE %q is no share from 0 to 1", failRate)
		}
	}
	if slow != "" {
		if f.slow, err = time.ParseDuration(slow); err != nil || f.slow < 0 {
			return flaws{}, fmt.Errorf("SLOW %q is no duration such as 300ms", slow)
		}
	}
	return f, nil
}

// spoil makes next as bad as the build is.
func (f flaws) spoil(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.slow > 0 {
			delay := time.NewTimer(f.slow)
			defer delay.Stop()
			select {
			case <-delay.C:
			case <-r.Context().Done():
				w.WriteHeader(clientGone)
				return
			}
		}
		if rand.Float64() < f.failRate { //nolint:gosec // chance is all it takes
			http.Error(w, "out of order", http.StatusInternalServerError)
			return
		}
		next.ServeHTTP(w, r)
	})
}
