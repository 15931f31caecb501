package metric_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/stages"
)

func nan() float64 { return math.NaN() }

// everyGate is one of each kind, as lenient as it can be made.
func everyGate(t *testing.T, source metric.Source) map[string]stages.Gate[stages.Release] {
	t.Helper()
	lenient := metric.Watch{Interval: time.Second, Timeout: 5 * time.Second, AllowUndecided: true}
	gates := map[string]stages.Gate[stages.Release]{}
	add := func(name string, gate stages.Gate[stages.Release], err error) {
		require.NoError(t, err)
		gates[name] = gate
	}
	bounds, err := metric.NewThreshold(metric.ThresholdConfig{Source: source, Expression: "x", Max: new(1e300), Min: new(-1e300), Watch: lenient})
	add("threshold", bounds, err)
	traffic, err := metric.NewThreshold(metric.ThresholdConfig{Source: source, Expression: "x", Max: new(1e300), Traffic: "y", MinTraffic: 1e-300, Watch: lenient})
	add("threshold with traffic", traffic, err)
	side := func(name string) metric.Side {
		return metric.Side{Requests: name + "_requests", Failures: name + "_failures", Latency: name + "_bucket"}
	}
	pair, err := metric.NewComparison(metric.ComparisonConfig{Source: source, Canary: side("canary"), Baseline: side("baseline"), Watch: lenient})
	add("comparison", pair, err)
	alone, err := metric.NewComparison(metric.ComparisonConfig{
		Source: source, Canary: metric.Side{Requests: "x"}, FailureLabel: "code", FailurePattern: "5..", MaxFailureRate: 0.99, Watch: lenient,
	})
	add("comparison without baseline", alone, err)
	budget, err := metric.NewBurnRate(metric.BurnRateConfig{
		Source: source, ErrorRatio: "x[{{.Window}}]", Objective: 0.9, For: time.Nanosecond, AllowSpent: true, Watch: lenient,
		Windows: []metric.BurnWindow{{Long: time.Minute, Short: time.Second, Rate: 9}},
	})
	add("burn rate", budget, err)
	for name, gate := range gates {
		both, err := metric.All("all", gate)
		add("all of "+name, both, err)
	}
	return gates
}

// TestJunkNeverPasses is the invariant: whatever a source returns that is not
// sound data, no gate passes, and the decision tells which kind of junk it was.
func TestJunkNeverPasses(t *testing.T) {
	labels := map[string]string{"code": "200", "le": "+Inf"}
	sample := func(v float64, age time.Duration) metric.Result {
		return metric.Result{Samples: []metric.Sample{{Labels: labels, Time: time.Now().Add(-age), Value: v}}}
	}
	type answer = func() (metric.Result, error)
	junk := map[string]struct {
		answer answer
		rule   string
	}{
		"no data":           {func() (metric.Result, error) { return metric.Result{}, nil }, "no-data"},
		"NaN":               {func() (metric.Result, error) { return sample(math.NaN(), 0), nil }, "not-finite"},
		"infinite":          {func() (metric.Result, error) { return sample(math.Inf(1), 0), nil }, "not-finite"},
		"minus infinite":    {func() (metric.Result, error) { return sample(math.Inf(-1), 0), nil }, "not-finite"},
		"stale":             {func() (metric.Result, error) { return sample(0, 3*time.Minute), nil }, "stale"},
		"of unknown age":    {func() (metric.Result, error) { return metric.Result{Samples: []metric.Sample{{Labels: labels}}}, nil }, "stale"},
		"from the future":   {func() (metric.Result, error) { return sample(0, -time.Hour), nil }, "stale"},
		"partial":           {func() (metric.Result, error) { r := sample(0, 0); r.Partial = true; return r, nil }, "partial-answer"},
		"partial and empty": {func() (metric.Result, error) { return metric.Result{Partial: true}, nil }, "partial-answer"},
		"any error":         {func() (metric.Result, error) { return sample(0, 0), errors.New("boom") }, "query-failed"},
		"an unknown class":  {func() (metric.Result, error) { return sample(0, 0), &metric.QueryError{Class: "new"} }, "query-failed"},
		"stale beside fresh": {func() (metric.Result, error) {
			r := sample(0, 0)
			r.Samples = append(r.Samples, metric.Sample{})
			return r, nil
		}, ""},
	}
	for _, class := range []metric.Class{metric.Unreachable, metric.Unauthorized, metric.BadExpression, metric.Timeout, metric.ServerError, metric.TooManySeries, metric.Failed} {
		junk["query "+string(class)] = struct {
			answer answer
			rule   string
		}{func() (metric.Result, error) {
			return sample(0, 0), &metric.QueryError{Class: class, Err: errors.New("why")}
		}, "query-" + string(class)}
	}
	for name, j := range junk {
		synctest.Test(t, func(t *testing.T) {
			for gateName, gate := range everyGate(t, always(j.answer)) {
				if name == "stale beside fresh" && gateName != "threshold" {
					continue // counters of vanished pods are
				}
				d, err := gate.Decide(t.Context(), stages.Release{Name: "shop", Namespace: "prod"})
				require.NoError(t, err)
				assert.NotEqual(t, stages.Pass, d.Verdict, "%s on %s: %+v", gateName, name, d)
				require.NotEmpty(t, d.Reasons, "%s on %s", gateName, name)
				if j.rule != "" {
					assert.Equal(t, j.rule, d.Reasons[0].Rule, "%s on %s: %+v", gateName, name, d)
				}
			}
		})
	}
}

// TestSamplesFromBeforeTheReleaseNeverPass: they say nothing about it.
func TestSamplesFromBeforeTheReleaseNeverPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := always(func() (metric.Result, error) {
			r := value(0)
			r.Samples[0].Time = time.Now().Add(-30 * time.Second)
			return r, nil
		})
		d := decide(t, threshold(t, metric.ThresholdConfig{Source: source, Max: new(1.0), Watch: metric.Watch{Timeout: 20 * time.Second}}), release())
		assert.Equal(t, stages.Inconclusive, d.Verdict)
		assert.Equal(t, []string{"stale"}, rules(d.Reasons))
	})
}

// FuzzGatesOnlyPassSoundData lets a source say anything: a pass is only allowed if
// its last answers could have been sound.
func FuzzGatesOnlyPassSoundData(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, seed uint64, spoil bool) {
		synctest.Test(t, func(t *testing.T) {
			for name, gate := range everyGate(t, junkSource(seed, spoil)) {
				d, err := gate.Decide(t.Context(), stages.Release{Name: "shop", Namespace: "prod"})
				if err == nil && spoil {
					require.NotEqual(t, stages.Pass, d.Verdict, "%s: %+v", name, d)
				}
				if err == nil && d.Verdict != stages.Pass {
					require.NotEmpty(t, d.Reasons, name)
				}
			}
		})
	})
}

// junkSource answers at random. With spoil, every answer has something wrong.
func junkSource(seed uint64, spoil bool) metric.Source {
	return metric.SourceFunc(func(ctx context.Context, q metric.Query) (metric.Result, error) {
		if ctx.Err() != nil {
			return metric.Result{}, context.Cause(ctx)
		}
		random := rand.New(rand.NewPCG(seed, uint64(len(q.Expression))+uint64(time.Now().Unix())))
		pick := func(list ...float64) float64 { return list[random.IntN(len(list))] }
		r := metric.Result{Source: "junk"}
		for range random.IntN(4) {
			s := metric.Sample{
				Labels: map[string]string{"code": fmt.Sprint(200 + 100*random.IntN(4)), "le": fmt.Sprint(pick(1, 2, math.Inf(1), nan())), "pod": fmt.Sprint(random.IntN(2))},
				Time:   time.Now().Add(-time.Duration(pick(0, 1, 200, -500) * float64(time.Second))),
				Value:  pick(0, 1, 1e6, 1e18, -1, nan(), math.Inf(1), math.Inf(-1)),
			}
			if random.IntN(3) == 0 {
				s.Histogram = &metric.Histogram{Buckets: []metric.Bucket{
					{Lower: pick(math.Inf(-1), 0, nan()), Upper: pick(1, 2, -1), Count: pick(0, 5, -1, nan(), 1e18)},
					{Lower: pick(0, 1, 2), Upper: pick(2, 3, math.Inf(1)), Count: pick(0, 7)},
				}}
			}
			r.Samples = append(r.Samples, s)
		}
		if !spoil {
			return r, nil
		}
		switch random.IntN(4) {
		case 0:
			return r, &metric.QueryError{Class: metric.ServerError, Err: errors.New("boom")}
		case 1:
			r.Partial = true
		case 2:
			r.Samples = nil
		default:
			for i := range r.Samples {
				r.Samples[i].Time = time.Time{}
			}
		}
		return r, nil
	})
}
