package sequential

import (
	"fmt"
	"math"
	"slices"
)

// InputError is a configuration or an observation that makes no sense.
type InputError struct {
	// Field is what is wrong, such as "RateConfig.Alpha" or "canary.Failures".
	Field string
	// Problem says what is wrong with it.
	Problem string
}

func (e *InputError) Error() string { return e.Field + ": " + e.Problem }

// ResetError is a counter that went down: the process that kept it began again,
// or another one answered. What it counted in between is lost, so a comparison
// can't go on from it: add up each process' counts by itself and begin again at
// zero for one that restarted, or begin a new comparison.
type ResetError struct {
	// Counter is what went down, such as "Failures".
	Counter string
	// Before and After are its values.
	Before, After uint64
}

func (e *ResetError) Error() string {
	return fmt.Sprintf("counter %s went down from %d to %d: it was reset, so that what it counted since the start of the comparison is unknown", e.Counter, e.Before, e.After)
}

// Counts are requests and how many of them failed, since the comparison began.
type Counts struct {
	Requests, Failures uint64
}

// Since returns what was counted after start, an earlier reading of the same
// counters, or a [*ResetError] if a counter went down.
func (c Counts) Since(start Counts) (Counts, error) {
	switch {
	case c.Requests < start.Requests:
		return Counts{}, &ResetError{Counter: "Requests", Before: start.Requests, After: c.Requests}
	case c.Failures < start.Failures:
		return Counts{}, &ResetError{Counter: "Failures", Before: start.Failures, After: c.Failures}
	}
	return Counts{Requests: c.Requests - start.Requests, Failures: c.Failures - start.Failures}, nil
}

func (c Counts) check(side string) error {
	if c.Failures > c.Requests {
		return &InputError{Field: side + ".Failures", Problem: fmt.Sprintf("%d failures of %d requests; were both read at the same time?", c.Failures, c.Requests)}
	}
	return nil
}

// Histogram counts requests by latency, since the comparison began.
type Histogram struct {
	// UpperBounds are the buckets' upper bounds in seconds, inclusive, ascending
	// and positive. The last may be +Inf; if it is not, no request was slower.
	UpperBounds []float64
	// Counts are the requests in each bucket, those of faster buckets not included.
	Counts []uint64
}

// Requests returns the number of requests in all buckets.
func (h Histogram) Requests() uint64 {
	var n uint64
	for _, count := range h.Counts {
		n += count
	}
	return n
}

// Since returns what was counted after start, an earlier reading of the same
// histogram, a [*ResetError] if a bucket went down, or an [*InputError] if the
// buckets differ.
func (h Histogram) Since(start Histogram) (Histogram, error) {
	if err := h.check("histogram"); err != nil {
		return Histogram{}, err
	}
	if err := h.like(start, "start"); err != nil {
		return Histogram{}, err
	}
	since := Histogram{UpperBounds: h.UpperBounds, Counts: make([]uint64, len(h.Counts))}
	for i, count := range h.Counts {
		if count < start.Counts[i] {
			return Histogram{}, &ResetError{Counter: fmt.Sprintf("of bucket %g s", h.UpperBounds[i]), Before: start.Counts[i], After: count}
		}
		since.Counts[i] = count - start.Counts[i]
	}
	return since, nil
}

// Slower counts the requests that took longer than bound seconds as failures,
// so that [Rate] can compare their share. The bound must be one of UpperBounds;
// anything else would be a guess.
func (h Histogram) Slower(bound float64) (Counts, error) {
	if err := h.check("histogram"); err != nil {
		return Counts{}, err
	}
	i := slices.Index(h.UpperBounds, bound)
	if i < 0 {
		return Counts{}, &InputError{Field: "bound", Problem: fmt.Sprintf("%g s is not one of the upper bounds %v", bound, h.UpperBounds)}
	}
	slow := Histogram{Counts: h.Counts[i+1:]}
	return Counts{Requests: h.Requests(), Failures: slow.Requests()}, nil
}

func (h Histogram) check(side string) error {
	if len(h.UpperBounds) == 0 || len(h.UpperBounds) != len(h.Counts) {
		return &InputError{Field: side + ".UpperBounds", Problem: fmt.Sprintf("%d upper bounds for %d counts; at least one bucket and a bound for each is required", len(h.UpperBounds), len(h.Counts))}
	}
	last := 0.0
	for i, bound := range h.UpperBounds {
		if !(bound > last) {
			return &InputError{Field: fmt.Sprintf("%s.UpperBounds[%d]", side, i), Problem: fmt.Sprintf("%g s; bounds must be positive and ascending", bound)}
		}
		last = bound
	}
	var n uint64
	for i, count := range h.Counts {
		if n+count < n {
			return &InputError{Field: fmt.Sprintf("%s.Counts[%d]", side, i), Problem: "the number of requests exceeds 64 bits"}
		}
		n += count
	}
	return nil
}

// like refuses another histogram with other buckets.
func (h Histogram) like(other Histogram, name string) error {
	if err := other.check(name); err != nil {
		return err
	}
	if !slices.Equal(h.UpperBounds, other.UpperBounds) {
		return &InputError{Field: name + ".UpperBounds", Problem: fmt.Sprintf("%v, not %v; only equal buckets can be compared", other.UpperBounds, h.UpperBounds)}
	}
	return nil
}

// faster returns how many requests took at most each finite bound, and of how many.
func (h Histogram) faster() (cumulative []uint64, n uint64) {
	for i, bound := range h.UpperBounds {
		n += h.Counts[i]
		if !math.IsInf(bound, 1) {
			cumulative = append(cumulative, n)
		}
	}
	return cumulative, n
}

// finite returns the finite bounds.
func (h Histogram) finite() []float64 {
	if last := len(h.UpperBounds) - 1; math.IsInf(h.UpperBounds[last], 1) {
		return h.UpperBounds[:last]
	}
	return h.UpperBounds
}

// quantile interpolates as PromQL's histogram_quantile does; 0 without requests.
func (h Histogram) quantile(q float64) float64 {
	rank := q * float64(h.Requests())
	var below, lower float64
	for i, bound := range h.finite() {
		count := float64(h.Counts[i])
		if count > 0 && below+count >= rank {
			return lower + (bound-lower)*(rank-below)/count
		}
		below, lower = below+count, bound
	}
	if below == 0 && rank == 0 {
		return 0
	}
	return lower
}
