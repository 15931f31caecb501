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

// ratios answers ratio[window] for the past, which is asked for by a time, and
// for the present.
func ratios(before, now map[string]float64) metric.Source {
	return metric.SourceFunc(func(_ context.Context, q metric.Query) (metric.Result, error) {
		list := now
		if !q.At.IsZero() {
			list = before
		}
		v, ok := list[q.Expression]
		if !ok {
			return metric.Result{Source: "slo", Evaluated: q.At}, nil
		}
		r := value(v)
		r.Source = "slo"
		if !q.At.IsZero() {
			r.Evaluated, r.Samples[0].Time = q.At, q.At
		}
		return r, nil
	})
}

func windows(period, long, short float64) map[string]float64 {
	return map[string]float64{"ratio[2592000s]": period, "ratio[3600s]": long, "ratio[300s]": short}
}

func budget(t *testing.T, source metric.Source, change func(*metric.BurnRateConfig)) *metric.BurnRate {
	t.Helper()
	c := metric.BurnRateConfig{
		Source: source, ErrorRatio: "ratio[{{.Window}}]", Objective: 0.999, Period: 720 * time.Hour,
		Windows: metric.DefaultBurnWindows()[:1],
	}
	if change != nil {
		change(&c)
	}
	gate, err := metric.NewBurnRate(c)
	require.NoError(t, err)
	return gate
}

func TestBurnRate(t *testing.T) {
	first := func(r *stages.Release) { r.Previous = 0 }
	for name, test := range map[string]struct {
		before, now map[string]float64
		release     func(*stages.Release)
		config      func(*metric.BurnRateConfig)
		verdict     stages.Verdict
		reason      string
		warning     string
	}{
		"calm":                            {before: windows(0.0005, 0.0005, 0.0005), now: windows(0.0005, 0.0005, 0.0005), verdict: stages.Pass},
		"burning now":                     {before: windows(0.0005, 0, 0), now: windows(0.0006, 0.02, 0.2), verdict: stages.Fail, reason: "budget-burning"},
		"burnt for a while, not any more": {before: windows(0.0005, 0, 0), now: windows(0.0006, 0.02, 0.001), verdict: stages.Pass},
		"a blip":                          {before: windows(0.0005, 0, 0), now: windows(0.0006, 0.002, 0.2), verdict: stages.Pass},
		"burning before":                  {before: windows(0.0005, 0.02, 0.2), now: windows(0.0006, 0.02, 0.2), verdict: stages.Inconclusive, reason: "budget-burning-before"},
		"burning before, and mended":      {before: windows(0.0005, 0.02, 0.2), now: windows(0.0006, 0.02, 0), verdict: stages.Pass},
		"spent by the release":            {before: windows(0.0009, 0, 0), now: windows(0.0011, 0.001, 0.001), verdict: stages.Fail, reason: "budget-spent-by-release"},
		"spent before":                    {before: windows(0.0012, 0, 0), now: windows(0.0011, 0.001, 0.001), verdict: stages.Inconclusive, reason: "budget-spent-before"},
		"spent before, and allowed": {
			before: windows(0.0012, 0, 0), now: windows(0.0011, 0.001, 0.001), verdict: stages.Pass, warning: "budget-spent-before",
			config: func(c *metric.BurnRateConfig) { c.AllowSpent = true },
		},
		"spent before, allowed, and burning": {
			before: windows(0.0012, 0, 0), now: windows(0.0011, 0.02, 0.02), verdict: stages.Fail, reason: "budget-burning", warning: "budget-spent-before",
			config: func(c *metric.BurnRateConfig) { c.AllowSpent = true },
		},
		"a first install has no before": {now: windows(0.0005, 0.02, 0.2), release: first, verdict: stages.Fail, reason: "budget-burning"},
		"a first install that is calm":  {now: windows(0.0005, 0, 0), release: first, verdict: stages.Pass},
		"nothing known of before":       {now: windows(0.0005, 0.02, 0.2), verdict: stages.Fail, reason: "budget-burning"},
		"no data":                       {before: windows(0, 0, 0), verdict: stages.Inconclusive, reason: "no-data"},
		"no share of requests":          {before: windows(0, 0, 0), now: windows(7, 7, 7), verdict: stages.Inconclusive, reason: "unfit-data"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rel := release()
				if test.release != nil {
					test.release(&rel)
				}
				d := decide(t, budget(t, ratios(test.before, test.now), test.config), rel)
				assert.Equal(t, test.verdict, d.Verdict, "%+v", d)
				if test.reason == "" {
					assert.Empty(t, d.Reasons)
					assert.Equal(t, metric.DefaultBurnFor, time.Since(rel.Deployed), "a pass takes its time")
				} else {
					assert.Equal(t, []string{test.reason}, rules(d.Reasons))
				}
				if test.warning != "" {
					assert.Equal(t, []string{test.warning}, rules(d.Warnings))
				}
			})
		})
	}
}

func TestBurnRateAsksAboutTheDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		source := metric.SourceFunc(func(_ context.Context, q metric.Query) (metric.Result, error) {
			if !q.At.IsZero() {
				at = append(at, q.At)
				return metric.Result{}, &metric.QueryError{Class: metric.Unreachable, Err: errors.New("not yet")}
			}
			return value(0), nil
		})
		rel := release()
		d := decide(t, budget(t, source, nil), rel)
		assert.Equal(t, []string{"query-unreachable"}, rules(d.Reasons), "as long as it isn't known, nothing is decided")
		require.NotEmpty(t, at)
		assert.Equal(t, rel.Deployed, at[0])
	})
}

func TestNewBurnRateRefuses(t *testing.T) {
	good := metric.BurnRateConfig{Source: ratios(nil, nil), ErrorRatio: "ratio[{{.Window}}]", Objective: 0.999}
	_, err := metric.NewBurnRate(good)
	require.NoError(t, err)
	for name, spoil := range map[string]func(*metric.BurnRateConfig){
		"no source":        func(c *metric.BurnRateConfig) { c.Source = nil },
		"no window":        func(c *metric.BurnRateConfig) { c.ErrorRatio = "ratio" },
		"no expression":    func(c *metric.BurnRateConfig) { c.ErrorRatio = "" },
		"per cent":         func(c *metric.BurnRateConfig) { c.Objective = 99.9 },
		"nothing may fail": func(c *metric.BurnRateConfig) { c.Objective = 1 },
		"no time":          func(c *metric.BurnRateConfig) { c.For = time.Hour },
		"windows crossed": func(c *metric.BurnRateConfig) {
			c.Windows = []metric.BurnWindow{{Long: time.Minute, Short: time.Hour, Rate: 2}}
		},
		"an impossible rate": func(c *metric.BurnRateConfig) {
			c.Windows = []metric.BurnWindow{{Long: time.Hour, Short: time.Minute, Rate: 1000}}
		},
		"no rate": func(c *metric.BurnRateConfig) { c.Windows = []metric.BurnWindow{{Long: time.Hour, Short: time.Minute}} },
	} {
		c := good
		spoil(&c)
		_, err := metric.NewBurnRate(c)
		require.ErrorIs(t, err, stages.ErrInvalid, name)
	}
}

func TestBurnRateConformance(t *testing.T) {
	source := metric.SourceFunc(func(ctx context.Context, q metric.Query) (metric.Result, error) {
		if ctx.Err() != nil {
			return metric.Result{}, context.Cause(ctx)
		}
		for name, ratio := range map[string]float64{`ratio{release="good"}`: 0, `ratio{release="bad"}`: 0.9} {
			if len(q.Expression) > len(name) && q.Expression[:len(name)] == name {
				return value(ratio), nil
			}
		}
		return metric.Result{}, nil
	})
	stagestest.TestGate(t, func(t *testing.T) stagestest.GateHarness[stages.Release] {
		named := func(name string) stages.Release { return stages.Release{Name: name, Namespace: "prod"} }
		gate := budget(t, source, func(c *metric.BurnRateConfig) {
			c.ErrorRatio, c.Period, c.For = `ratio{release="{{.Release}}"}[{{.Window}}]`, 0, time.Millisecond
			c.Watch = metric.Watch{Interval: time.Millisecond, Timeout: 100 * time.Millisecond}
		})
		return stagestest.GateHarness[stages.Release]{Gate: gate, Good: named("good"), Bad: named("bad"), Empty: named("empty")}
	})
}

func TestAll(t *testing.T) {
	says := func(v stages.Verdict, after time.Duration, err error) stages.Gate[stages.Release] {
		return stages.GateFunc[stages.Release](func(ctx context.Context, _ stages.Release) (stages.Decision, error) {
			select {
			case <-time.After(after):
			case <-ctx.Done():
				return stages.Decision{Gate: "slow"}, context.Cause(ctx)
			}
			d := stages.Decision{Gate: "g", Verdict: v}
			if v != stages.Pass {
				d.Reasons = []stages.Reason{{Rule: v.String(), Message: "why"}}
			}
			return d, err
		})
	}
	broken := errors.New("broken")
	panics := stages.GateFunc[stages.Release](func(context.Context, stages.Release) (stages.Decision, error) { panic("boom") })
	for name, test := range map[string]struct {
		gates   []stages.Gate[stages.Release]
		verdict stages.Verdict
		after   time.Duration
		err     error
		reasons []string
	}{
		"all pass":            {[]stages.Gate[stages.Release]{says(stages.Pass, time.Second, nil), says(stages.Pass, time.Minute, nil)}, stages.Pass, time.Minute, nil, nil},
		"doubt is weaker":     {[]stages.Gate[stages.Release]{says(stages.Inconclusive, time.Second, nil), says(stages.Pass, time.Minute, nil)}, stages.Inconclusive, time.Minute, nil, []string{"inconclusive"}},
		"harm ends it":        {[]stages.Gate[stages.Release]{says(stages.Pass, time.Minute, nil), says(stages.Fail, time.Second, nil)}, stages.Fail, time.Second, nil, []string{"fail"}},
		"harm beats doubt":    {[]stages.Gate[stages.Release]{says(stages.Inconclusive, 0, nil), says(stages.Fail, time.Second, nil)}, stages.Fail, time.Second, nil, []string{"inconclusive", "fail"}},
		"a broken gate":       {[]stages.Gate[stages.Release]{says(stages.Pass, 0, broken), says(stages.Pass, time.Second, nil)}, stages.Inconclusive, time.Second, broken, nil},
		"harm beats a broken": {[]stages.Gate[stages.Release]{says(stages.Pass, 0, broken), says(stages.Fail, time.Second, nil)}, stages.Fail, time.Second, nil, []string{"fail"}},
		"a gate that panics":  {[]stages.Gate[stages.Release]{panics, says(stages.Pass, 0, nil)}, stages.Inconclusive, 0, stages.ErrPanicked, nil},
		"no verdict":          {[]stages.Gate[stages.Release]{says(stages.Verdict(9), 0, nil)}, stages.Inconclusive, 0, nil, []string{"verdict(9)"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate, err := metric.All("metrics", test.gates...)
				require.NoError(t, err)
				began := time.Now()
				d, err := gate.Decide(t.Context(), release())
				require.ErrorIs(t, err, test.err)
				assert.Equal(t, test.verdict, d.Verdict)
				assert.Equal(t, test.after, time.Since(began))
				assert.Equal(t, test.reasons, rules(d.Reasons))
			})
		})
	}
	for _, refused := range [][]stages.Gate[stages.Release]{nil, {nil}} {
		_, err := metric.All("metrics", refused...)
		require.ErrorIs(t, err, stages.ErrInvalid)
	}
}

func TestBurnRateNeedsOneRatio(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := always(func() (metric.Result, error) {
			r := value(0)
			r.Samples = append(r.Samples, value(1).Samples...)
			return r, nil
		})
		rel := release()
		rel.Previous = 0
		d := decide(t, budget(t, source, nil), rel)
		assert.Equal(t, stages.Inconclusive, d.Verdict)
		assert.Equal(t, []string{"unfit-data"}, rules(d.Reasons))
	})
}
