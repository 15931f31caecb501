package metric_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func threshold(t *testing.T, c metric.ThresholdConfig) *metric.Threshold {
	t.Helper()
	if c.Expression == "" {
		c.Expression = "errors"
	}
	gate, err := metric.NewThreshold(c)
	require.NoError(t, err)
	return gate
}

func TestThreshold(t *testing.T) {
	type answers = map[string]func(int, metric.Query) (metric.Result, error)
	for name, test := range map[string]struct {
		config  metric.ThresholdConfig
		answers answers
		verdict stages.Verdict
		after   time.Duration
		reason  string
	}{
		"within at once": {
			metric.ThresholdConfig{Max: new(0.01)}, answers{"errors": values(0.01)}, stages.Pass, 0, "",
		},
		"above": {
			metric.ThresholdConfig{Max: new(0.01)}, answers{"errors": values(0.02)}, stages.Fail, 0, "out-of-bounds",
		},
		"below": {
			metric.ThresholdConfig{Min: new(3.0)}, answers{"errors": values(2)}, stages.Fail, 0, "out-of-bounds",
		},
		"for a while": {
			metric.ThresholdConfig{Max: new(1.0), For: time.Minute}, answers{"errors": values(0)}, stages.Pass, time.Minute, "",
		},
		"harm ends it early": {
			metric.ThresholdConfig{Max: new(1.0), For: time.Minute}, answers{"errors": values(0, 0, 2)}, stages.Fail, 30 * time.Second, "out-of-bounds",
		},
		"some looks in a row": {
			metric.ThresholdConfig{Max: new(1.0), Looks: 3, Breaches: 2}, answers{"errors": values(0, 0, 2, 0, 0, 0)}, stages.Pass, 75 * time.Second, "",
		},
		"some breaches in a row": {
			metric.ThresholdConfig{Max: new(1.0), Looks: 9, Breaches: 2}, answers{"errors": values(0, 2, 0, 2, 2)}, stages.Fail, 60 * time.Second, "out-of-bounds",
		},
		"never long enough": {
			metric.ThresholdConfig{Max: new(1.0), Looks: 2, Breaches: 2}, answers{"errors": func(n int, _ metric.Query) (metric.Result, error) { return value(float64(n%2) * 2), nil }},
			stages.Inconclusive, metric.DefaultTimeout, "out-of-bounds",
		},
		"out of bounds every other look is not for AllowUndecided": {
			metric.ThresholdConfig{Max: new(1.0), Looks: 2, Breaches: 2, Watch: metric.Watch{AllowUndecided: true}},
			answers{"errors": func(n int, _ metric.Query) (metric.Result, error) { return value(float64((n+1)%2) * 2), nil }},
			stages.Inconclusive, metric.DefaultTimeout, "not-held",
		},
		"too little traffic": {
			metric.ThresholdConfig{Max: new(1.0), Traffic: "requests", MinTraffic: 100}, answers{"errors": values(5), "requests": values(99)},
			stages.Inconclusive, metric.DefaultTimeout, "too-little-traffic",
		},
		"enough traffic in the end": {
			metric.ThresholdConfig{Max: new(1.0), Traffic: "requests", MinTraffic: 100}, answers{"errors": values(5), "requests": values(1, 2, 100)},
			stages.Fail, 30 * time.Second, "out-of-bounds",
		},
		"too little traffic, allowed": {
			metric.ThresholdConfig{Max: new(1.0), Traffic: "requests", MinTraffic: 100, Watch: metric.Watch{AllowUndecided: true}}, answers{"errors": values(1), "requests": values(3)},
			stages.Pass, metric.DefaultTimeout, "",
		},
		"no traffic, allowed": {
			metric.ThresholdConfig{Max: new(1.0), Traffic: "requests", MinTraffic: 100, Watch: metric.Watch{AllowUndecided: true}}, answers{"errors": values(nan()), "requests": values(0)},
			stages.Pass, metric.DefaultTimeout, "",
		},
		"too little traffic, out of bounds, is not for AllowUndecided": {
			metric.ThresholdConfig{Max: new(1.0), Traffic: "requests", MinTraffic: 100, Watch: metric.Watch{AllowUndecided: true}}, answers{"errors": values(5), "requests": values(3)},
			stages.Inconclusive, metric.DefaultTimeout, "too-little-traffic",
		},
		"too little traffic, out of bounds only at first": {
			metric.ThresholdConfig{Max: new(1.0), Traffic: "requests", MinTraffic: 100, Watch: metric.Watch{AllowUndecided: true}}, answers{"errors": values(5, 1), "requests": values(3)},
			stages.Pass, metric.DefaultTimeout, "",
		},
		"too little traffic, and a query that fails": {
			metric.ThresholdConfig{Max: new(1.0), Traffic: "requests", MinTraffic: 100, Watch: metric.Watch{AllowUndecided: true}}, answers{"requests": values(3)},
			stages.Inconclusive, 0, "query-bad-expression",
		},
		"a wrong expression ends it": {
			metric.ThresholdConfig{Max: new(1.0), Watch: metric.Watch{AllowUndecided: true}}, answers{}, stages.Inconclusive, 0, "query-bad-expression",
		},
		"too few series": {
			metric.ThresholdConfig{Max: new(1.0), MinSeries: 2}, answers{"errors": values(0)}, stages.Inconclusive, metric.DefaultTimeout, "no-data",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				test.config.Source = &script{answers: test.answers}
				began := time.Now()
				d := decide(t, threshold(t, test.config), release())
				assert.Equal(t, test.verdict, d.Verdict, "%+v", d)
				assert.Equal(t, test.after, time.Since(began))
				if test.reason == "" {
					assert.Empty(t, d.Reasons)
				} else {
					assert.Equal(t, []string{test.reason}, rules(d.Reasons))
				}
			})
		})
	}
}

func TestThresholdCountsASampleOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rel := release()
		observed := time.Now()
		source := always(func() (metric.Result, error) {
			if time.Since(rel.Deployed) >= 40*time.Second {
				observed = time.Now()
			}
			return metric.Result{Samples: []metric.Sample{{Time: observed, Value: 0}}}, nil
		})
		d := decide(t, threshold(t, metric.ThresholdConfig{Source: source, Max: new(1.0), Looks: 2}), rel)
		assert.Equal(t, stages.Pass, d.Verdict)
		assert.Equal(t, 45*time.Second, time.Since(rel.Deployed), "the same sample three times is one look")
	})
}

func TestThresholdSaysWhatItSaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &script{answers: map[string]func(int, metric.Query) (metric.Result, error){`errors{release="shop"}`: func(int, metric.Query) (metric.Result, error) {
			r := value(0.25)
			r.Warnings = []string{"approximate"}
			return r, nil
		}}}
		var told []string
		ctx := stages.WithProgress(t.Context(), func(p stages.Progress) { told = append(told, p.ID+"|"+p.Message) })
		gate := threshold(t, metric.ThresholdConfig{Name: "errors", Source: source, Expression: `errors{release="{{.Release}}"}`, Max: new(0.01)})
		d, err := gate.Decide(ctx, release())
		require.NoError(t, err)
		assert.Equal(t, stages.Decision{
			Gate: "errors", Verdict: stages.Fail,
			Reasons:  []stages.Reason{{Rule: "out-of-bounds", Subject: "script", Message: `"errors{release=\"shop\"}" {job="shop"} is 0.25, allowed is at most 0.01 (1 of 1 looks in a row, 1 series)`}},
			Warnings: []stages.Reason{{Rule: "source-warning", Subject: "script", Message: "approximate"}},
		}, d)
		assert.Equal(t, []string{"errors|errors: " + d.Reasons[0].Message}, told)
	})
}

func TestThresholdHarmOutweighsMissingData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, partial := range []bool{false, true} {
			source := always(func() (metric.Result, error) {
				r := value(5)
				r.Partial = partial
				r.Samples = append(r.Samples, metric.Sample{Value: 0})
				return r, nil
			})
			want := stages.Fail
			if partial {
				want = stages.Inconclusive // what is missing may be what would mend a ratio
			}
			assert.Equal(t, want, decide(t, threshold(t, metric.ThresholdConfig{Source: source, Max: new(1.0)}), release()).Verdict)
		}
	})
}

func TestThresholdStopsWhenCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(20*time.Second, func() { cancel(why) })
		gate := threshold(t, metric.ThresholdConfig{Source: always(func() (metric.Result, error) { return value(0), nil }), Max: new(1.0), For: time.Minute})
		began := time.Now()
		d, err := gate.Decide(ctx, release())
		require.ErrorIs(t, err, why)
		assert.Equal(t, stages.Inconclusive, d.Verdict)
		assert.Equal(t, 20*time.Second, time.Since(began))
	})
}

func TestThresholdBoundsEachQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := metric.SourceFunc(func(ctx context.Context, _ metric.Query) (metric.Result, error) {
			<-ctx.Done()
			return metric.Result{}, ctx.Err()
		})
		d := decide(t, threshold(t, metric.ThresholdConfig{Source: source, Max: new(1.0)}), release())
		assert.Equal(t, stages.Inconclusive, d.Verdict)
		assert.Equal(t, []string{"query-timeout"}, rules(d.Reasons))
	})
}

func TestNewThresholdRefuses(t *testing.T) {
	good := metric.ThresholdConfig{Source: &script{}, Expression: "x", Max: new(1.0)}
	_, err := metric.NewThreshold(good)
	require.NoError(t, err)
	for name, spoil := range map[string]func(*metric.ThresholdConfig){
		"no source":             func(c *metric.ThresholdConfig) { c.Source = nil },
		"no expression":         func(c *metric.ThresholdConfig) { c.Expression = "" },
		"no bounds":             func(c *metric.ThresholdConfig) { c.Max = nil },
		"bounds crossed":        func(c *metric.ThresholdConfig) { c.Min = new(2.0) },
		"NaN as a bound":        func(c *metric.ThresholdConfig) { c.Max = new(nan()) },
		"traffic alone":         func(c *metric.ThresholdConfig) { c.Traffic = "y" },
		"minimum traffic alone": func(c *metric.ThresholdConfig) { c.MinTraffic = 3 },
		"no time for it":        func(c *metric.ThresholdConfig) { c.For = time.Hour },
		"no time for the looks": func(c *metric.ThresholdConfig) { c.Looks = 100 },
		"negative":              func(c *metric.ThresholdConfig) { c.Watch.Interval = -1 },
	} {
		c := good
		spoil(&c)
		_, err := metric.NewThreshold(c)
		require.ErrorIs(t, err, stages.ErrInvalid, name)
	}
	gate, err := metric.NewThreshold(good)
	require.NoError(t, err)
	_, err = gate.Decide(t.Context(), stages.Release{})
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func TestThresholdConformance(t *testing.T) {
	stagestest.TestGate(t, func(t *testing.T) stagestest.GateHarness[stages.Release] {
		named := func(name string) stages.Release { return stages.Release{Name: name, Namespace: "prod"} }
		source := &script{answers: map[string]func(int, metric.Query) (metric.Result, error){
			`errors{release="good"}`:  values(0),
			`errors{release="bad"}`:   values(9),
			`errors{release="empty"}`: func(int, metric.Query) (metric.Result, error) { return metric.Result{}, nil },
		}}
		return stagestest.GateHarness[stages.Release]{
			Gate: threshold(t, metric.ThresholdConfig{Source: source, Expression: `errors{release="{{.Release}}"}`, Max: new(1.0), Watch: metric.Watch{Timeout: time.Millisecond}}),
			Good: named("good"), Bad: named("bad"), Empty: named("empty"),
		}
	})
}

func TestThresholdCountsABreachOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		observed := time.Now()
		source := always(func() (metric.Result, error) {
			return metric.Result{Samples: []metric.Sample{{Time: observed, Value: 5}}}, nil
		})
		gate := threshold(t, metric.ThresholdConfig{Source: source, Max: new(1.0), Breaches: 2, Watch: metric.Watch{Timeout: time.Minute}})
		assert.Equal(t, stages.Inconclusive, decide(t, gate, release()).Verdict, "one sample is no trend")
	})
}

func TestABreachIsNotForgottenWhenTrafficCeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &script{answers: map[string]func(int, metric.Query) (metric.Result, error){"errors": values(5), "requests": values(100, 0)}}
		gate := threshold(t, metric.ThresholdConfig{
			Source: source, Max: new(1.0), Breaches: 2, Traffic: "requests", MinTraffic: 10, Watch: metric.Watch{AllowUndecided: true},
		})
		assert.Equal(t, stages.Inconclusive, decide(t, gate, release()).Verdict)
	})
}
