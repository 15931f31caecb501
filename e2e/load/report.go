package load

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Report is what has become of requests.
type Report struct {
	// Versions counts the requests that a version answered.
	Versions map[string]Tally
	// Lost counts those that no version answered, by what happened instead, such as
	// "connection refused", or "HTTP 503" from something in between.
	Lost map[string]int
	// Elapsed is the time since the first.
	Elapsed time.Duration
}

// Tally is what one version made of its requests.
type Tally struct {
	// Served were answered with a status below 500, Failed with another.
	Served, Failed int
	// First and Last are when the first of the answers came, and the last.
	First, Last time.Time

	took []time.Duration
}

// add counts one request in the report's maps.
func (r Report) add(version string, status int, took time.Duration, err error) {
	switch {
	case err != nil:
		r.Lost[cause(err)]++
		return
	case version == "":
		r.Lost[fmt.Sprintf("HTTP %d", status)]++
		return
	}
	tally := r.Versions[version]
	tally.Last = time.Now()
	if tally.First.IsZero() {
		tally.First = tally.Last
	}
	if status < 500 {
		tally.Served++
	} else {
		tally.Failed++
	}
	tally.took = append(tally.took, took)
	r.Versions[version] = tally
}

// cause names the kind of an error, without addresses and ports.
func cause(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, errPublic):
		return errPublic.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed early"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return err.Error()
}

func (r Report) clone() Report {
	r.Versions, r.Lost = maps.Clone(r.Versions), maps.Clone(r.Lost)
	for version, tally := range r.Versions {
		tally.took = slices.Clone(tally.took)
		r.Versions[version] = tally
	}
	return r
}

// Sent is how many requests have ended, in whatever way.
func (r Report) Sent() int {
	n := 0
	for _, tally := range r.Versions {
		n += tally.Served + tally.Failed
	}
	for _, lost := range r.Lost {
		n += lost
	}
	return n
}

// LostTotal is how many requests no version answered.
func (r Report) LostTotal() int {
	n := 0
	for _, lost := range r.Lost {
		n += lost
	}
	return n
}

// Quantile is the latency that the share q of a version's requests stayed within.
func (t Tally) Quantile(q float64) time.Duration {
	if len(t.took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t.took))
	at := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(at, 0), len(sorted)-1)]
}

// String is the report in one line for people.
func (r Report) String() string {
	parts := []string{fmt.Sprintf("%d requests in %s", r.Sent(), r.Elapsed.Round(time.Second))}
	for _, version := range slices.Sorted(maps.Keys(r.Versions)) {
		tally := r.Versions[version]
		parts = append(parts, fmt.Sprintf("%s served %d and failed %d (half within %s, 99%% within %s)", version, tally.Served, tally.Failed,
			tally.Quantile(0.5).Round(time.Millisecond), tally.Quantile(0.99).Round(time.Millisecond)))
	}
	for _, what := range slices.Sorted(maps.Keys(r.Lost)) {
		parts = append(parts, fmt.Sprintf("%s: %d", what, r.Lost[what]))
	}
	if len(r.Lost) == 0 {
		parts = append(parts, "none lost")
	}
	return strings.Join(parts, "; ")
}
