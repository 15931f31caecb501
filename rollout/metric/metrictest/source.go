package metrictest

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
)

// Harness is a source with expressions to try it on. Checks whose expression is
// empty are left out.
type Harness struct {
	// Source is the implementation.
	Source metric.Source
	// Present has at least one sample that was observed within the last minute,
	// required.
	Present string
	// Absent is well-formed and has no data, required.
	Absent string
	// Malformed is not understood; leave it empty only if there is no language.
	Malformed string
	// NotANumber has a sample that is NaN.
	NotANumber string
	// Stale has a sample that was observed more than two minutes ago.
	Stale string
	// Unreachable is the same kind of source whose server doesn't answer.
	Unreachable metric.Source
}

// T is what a check needs of a test, so that the suite itself can be tested.
type T interface {
	require.TestingT
	Context() context.Context
}

// TestSource checks that an implementation keeps the contract of [metric.Source].
func TestSource(t *testing.T, newHarness func(*testing.T) Harness) {
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t)
			if !c.applies(h) {
				t.Skip("the harness has nothing for this check")
			}
			c.run(t, h)
		})
	}
}

type check struct {
	name    string
	applies func(Harness) bool
	run     func(T, Harness)
}

const (
	fresh    = time.Minute
	stale    = 2 * time.Minute
	promptly = 10 * time.Second
	parallel = 4
)

func checks() []check {
	always := func(Harness) bool { return true }
	return []check{
		{"answers with labelled samples that have their own time", always, checkPresent},
		{"has no samples where there is no data", always, checkAbsent},
		{"answers with values of the caller's own", always, checkIsolation},
		{"refuses a malformed expression for good", func(h Harness) bool { return h.Malformed != "" }, checkMalformed},
		{"answers what is not a number as it is", func(h Harness) bool { return h.NotANumber != "" }, checkNaN},
		{"tells how old a sample is", func(h Harness) bool { return h.Stale != "" }, checkStale},
		{"says that it can't be reached", func(h Harness) bool { return h.Unreachable != nil }, checkUnreachable},
		{"stops when cancelled", always, checkCancelled},
		{"is safe for concurrent use", always, checkConcurrent},
	}
}

func checkPresent(t T, h Harness) {
	asked := time.Now()
	r, err := h.Source.Query(t.Context(), metric.Query{Expression: h.Present})
	require.NoError(t, err)
	require.NotEmpty(t, r.Samples)
	assert.NotEmpty(t, r.Source, "an answer must name who gave it")
	assert.False(t, r.Partial, "a whole answer must not be partial")
	now := r.Evaluated
	if now.IsZero() {
		now = asked
	}
	for _, s := range r.Samples {
		assert.WithinDuration(t, now, s.Time, fresh, "a fresh sample must say when it was observed")
	}
}

func checkAbsent(t T, h Harness) {
	r, err := h.Source.Query(t.Context(), metric.Query{Expression: h.Absent})
	require.NoError(t, err, "no data is an answer")
	assert.Empty(t, r.Samples)
	assert.NotEmpty(t, r.Source)
}

func checkIsolation(t T, h Harness) {
	q := metric.Query{Expression: h.Present}
	first, err := h.Source.Query(t.Context(), q)
	require.NoError(t, err)
	require.NotEmpty(t, first.Samples)
	for i := range first.Samples {
		for name := range first.Samples[i].Labels {
			first.Samples[i].Labels[name] = "overwritten"
		}
		if first.Samples[i].Histogram != nil {
			clear(first.Samples[i].Histogram.Buckets)
		}
	}
	second, err := h.Source.Query(t.Context(), q)
	require.NoError(t, err)
	require.NotEmpty(t, second.Samples)
	for _, s := range second.Samples {
		for _, value := range s.Labels {
			assert.NotEqual(t, "overwritten", value, "two answers must not share memory")
		}
		if s.Histogram != nil {
			for _, b := range s.Histogram.Buckets {
				assert.NotZero(t, b, "two answers must not share memory")
			}
		}
	}
}

func checkMalformed(t T, h Harness) {
	_, err := h.Source.Query(t.Context(), metric.Query{Expression: h.Malformed})
	failed := requireQueryError(t, err)
	assert.Equal(t, metric.BadExpression, failed.Class)
	assert.Equal(t, h.Malformed, failed.Expression)
}

func checkNaN(t T, h Harness) {
	r, err := h.Source.Query(t.Context(), metric.Query{Expression: h.NotANumber})
	require.NoError(t, err)
	found := false
	for _, s := range r.Samples {
		found = found || math.IsNaN(s.Value)
	}
	assert.True(t, found, "NaN must neither be left out nor replaced")
}

func checkStale(t T, h Harness) {
	asked := time.Now()
	r, err := h.Source.Query(t.Context(), metric.Query{Expression: h.Stale})
	require.NoError(t, err)
	now := r.Evaluated
	if now.IsZero() {
		now = asked
	}
	for _, s := range r.Samples {
		assert.Greater(t, now.Sub(s.Time), stale, "an old sample must not look fresh")
	}
}

func checkUnreachable(t T, h Harness) {
	_, err := h.Unreachable.Query(t.Context(), metric.Query{Expression: h.Present})
	failed := requireQueryError(t, err)
	assert.Equal(t, metric.Unreachable, failed.Class)
}

func requireQueryError(t T, err error) *metric.QueryError {
	require.Error(t, err)
	require.ErrorIs(t, err, metric.ErrQuery)
	failed, ok := errors.AsType[*metric.QueryError](err)
	require.True(t, ok, "a failing query must be a QueryError, not %T", err)
	return failed
}

func checkCancelled(t T, h Harness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	_, err := h.Source.Query(ctx, metric.Query{Expression: h.Present})
	require.Error(t, err, "a cancelled context must be an error")
	assert.ErrorIs(t, err, context.Canceled, "the error must match the context's cause")
	assert.Less(t, time.Since(began), promptly, "a cancelled call must return promptly")
}

func checkConcurrent(t T, h Harness) {
	errs := make([]error, parallel)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			r, err := h.Source.Query(t.Context(), metric.Query{Expression: h.Present})
			if err == nil && len(r.Samples) == 0 {
				err = errors.New("there was no sample")
			}
			errs[i] = err
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}
