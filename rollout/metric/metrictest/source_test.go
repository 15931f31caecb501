package metrictest

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fairlead-dev/fairlead/rollout/metric"
)

// recorder is a T that remembers whether a check failed on it.
type recorder struct {
	ctx    context.Context
	failed bool
}

type failNow struct{}

func (r *recorder) Errorf(string, ...any)    { r.failed = true }
func (r *recorder) FailNow()                 { r.failed = true; panic(failNow{}) }
func (r *recorder) Context() context.Context { return r.ctx }

// failing returns the names of the checks that a source does not pass.
func failing(t *testing.T, source metric.Source) []string {
	t.Helper()
	var names []string
	for _, c := range checks() {
		h := harness(source)
		r := &recorder{ctx: t.Context()}
		func() {
			defer func() {
				if p := recover(); p != nil && p != any(failNow{}) {
					panic(p)
				}
			}()
			c.run(r, h)
		}()
		if r.failed {
			names = append(names, c.name)
		}
	}
	return names
}

func harness(source metric.Source) Harness {
	return Harness{
		Source: source, Present: "present", Absent: "absent", Malformed: "{", NotANumber: "nan", Stale: "stale",
		Unreachable: metric.SourceFunc(func(_ context.Context, q metric.Query) (metric.Result, error) {
			return metric.Result{}, &metric.QueryError{Source: "good", Expression: q.Expression, Class: metric.Unreachable}
		}),
	}
}

// good keeps the contract.
func good(ctx context.Context, q metric.Query) (metric.Result, error) {
	if ctx.Err() != nil {
		return metric.Result{}, context.Cause(ctx)
	}
	r := metric.Result{Source: "good"}
	add := func(v float64, age time.Duration) {
		r.Samples = []metric.Sample{{
			Labels: map[string]string{"job": "shop"}, Time: time.Now().Add(-age), Value: v,
			Histogram: &metric.Histogram{Buckets: []metric.Bucket{{Lower: 0, Upper: 1, Count: 2}}},
		}}
	}
	switch q.Expression {
	case "present":
		add(1, 0)
	case "nan":
		add(math.NaN(), 0)
	case "stale":
		add(1, 4*time.Minute)
	case "{":
		return r, &metric.QueryError{Source: "good", Expression: q.Expression, Class: metric.BadExpression}
	}
	return r, nil
}

func TestSuitePassesAGoodSource(t *testing.T) {
	TestSource(t, func(*testing.T) Harness { return harness(metric.SourceFunc(good)) })
}

func TestSuiteFindsWhatIsBroken(t *testing.T) {
	shared := map[string]string{"job": "shop"}
	for name, broken := range map[string]struct {
		spoil func(ctx context.Context, q metric.Query, r *metric.Result, err error) error
		want  string
	}{
		"no name": {func(_ context.Context, _ metric.Query, r *metric.Result, err error) error { r.Source = ""; return err }, "has no samples where there is no data"},
		"no times": {func(_ context.Context, _ metric.Query, r *metric.Result, err error) error {
			r.Samples = undated(r.Samples)
			return err
		}, "answers with labelled samples that have their own time"},
		"fresh always": {func(_ context.Context, _ metric.Query, r *metric.Result, err error) error {
			r.Samples = dated(r.Samples)
			return err
		}, "tells how old a sample is"},
		"shared memory": {func(_ context.Context, _ metric.Query, r *metric.Result, err error) error {
			for i := range r.Samples {
				r.Samples[i].Labels = shared
			}
			return err
		}, "answers with values of the caller's own"},
		"no data is an error": {func(_ context.Context, _ metric.Query, r *metric.Result, err error) error {
			if err == nil && len(r.Samples) == 0 {
				return metric.ErrNoData
			}
			return err
		}, "has no samples where there is no data"},
		"untyped errors": {func(_ context.Context, _ metric.Query, _ *metric.Result, err error) error {
			if errors.Is(err, metric.ErrQuery) {
				return errors.New("failed")
			}
			return err
		}, "refuses a malformed expression for good"},
		"zero for NaN": {func(_ context.Context, _ metric.Query, r *metric.Result, err error) error {
			for i := range r.Samples {
				if math.IsNaN(r.Samples[i].Value) {
					r.Samples[i].Value = 0
				}
			}
			return err
		}, "answers what is not a number as it is"},
		"deaf to cancellation": {func(ctx context.Context, _ metric.Query, _ *metric.Result, err error) error {
			if ctx.Err() == nil {
				return err
			}
			return nil
		}, "stops when cancelled"},
	} {
		spoiled := metric.SourceFunc(func(ctx context.Context, q metric.Query) (metric.Result, error) {
			r, err := good(ctx, q)
			err = broken.spoil(ctx, q, &r, err)
			return r, err
		})
		assert.Contains(t, failing(t, spoiled), broken.want, name)
	}
}

func undated(samples []metric.Sample) []metric.Sample {
	for i := range samples {
		samples[i].Time = time.Time{}
	}
	return samples
}

func dated(samples []metric.Sample) []metric.Sample {
	for i := range samples {
		samples[i].Time = time.Now()
	}
	return samples
}
