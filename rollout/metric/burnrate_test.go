package metric_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// outage is a time, reckoned from the deployment, during which a share of the
// requests fails.
type outage struct {
	from, until time.Duration
	share       float64
}

// service serves ten requests a second, and answers ratio[window] and
// requests[window] from what happened.
type service struct {
	deployed time.Time
	outages  []outage
	silent   time.Duration // if not zero, there are no requests before that
	pause    time.Duration // for which there were none before the deployment
	gone     bool          // there are no samples
	junk     float64       // if not zero, what every ratio is
	every    time.Duration // between two scrapes: a window has to hold two
}

func (s service) Query(_ context.Context, q metric.Query) (metric.Result, error) {
	at := time.Now()
	if !q.At.IsZero() {
		at = q.At
	}
	kind, rest, _ := strings.Cut(q.Expression, "[")
	window, err := time.ParseDuration(strings.TrimSuffix(rest, "]"))
	if err != nil || s.gone {
		return metric.Result{Source: "slo", Evaluated: at}, err
	}
	if window < 2*s.every {
		return metric.Result{Source: "slo", Evaluated: at}, nil
	}
	serving := outage{-long, long, 1}
	if s.silent > 0 {
		serving.from = s.silent
	}
	served, failed := s.within(at, window, serving)-s.within(at, window, outage{-s.pause, 0, 1}), 0.0
	for _, o := range s.outages {
		failed += s.within(at, window, o)
	}
	value := map[string]float64{"ratio": failed / served, "requests": 10 * served}[kind]
	if s.junk != 0 {
		value = s.junk
	}
	return metric.Result{Source: "slo", Evaluated: at, Samples: []metric.Sample{{Time: at, Value: value}}}, nil
}

// within returns for how many seconds of a window requests failed in an outage.
func (s service) within(at time.Time, window time.Duration, o outage) float64 {
	now := at.Sub(s.deployed)
	return o.share * max(0, min(now, o.until)-max(now-window, o.from)).Seconds()
}

const long = 1e6 * time.Hour

func budget(t *testing.T, source metric.Source, change func(*metric.BurnRateConfig)) *metric.BurnRate {
	t.Helper()
	c := metric.BurnRateConfig{Source: source, ErrorRatio: "ratio[{{.Window}}]", Objective: 0.999}
	if change != nil {
		change(&c)
	}
	gate, err := metric.NewBurnRate(c)
	require.NoError(t, err)
	return gate
}

func TestBurnRate(t *testing.T) {
	ever := func(share float64) outage { return outage{-long, long, share} }
	period := func(c *metric.BurnRateConfig) { c.Period = 720 * time.Hour }
	allowed := func(c *metric.BurnRateConfig) { c.Period, c.AllowSpent = 720*time.Hour, true }
	twoNines := func(c *metric.BurnRateConfig) { c.Objective = 0.99 }
	traffic := func(c *metric.BurnRateConfig) { c.Traffic, c.MinTraffic = "requests[{{.Window}}]", 500 }
	lenient := func(c *metric.BurnRateConfig) { traffic(c); c.Watch.AllowUndecided = true }
	for name, test := range map[string]struct {
		service service
		release func(*stages.Release)
		config  func(*metric.BurnRateConfig)
		verdict stages.Verdict
		within  time.Duration // what a failure may take
		reason  string
		warning string
	}{
		"calm":                          {service: service{outages: []outage{ever(0.0005)}}, config: period, verdict: stages.Pass},
		"all fails since":               {service: service{outages: []outage{{0, long, 1}}}, verdict: stages.Fail, within: time.Minute, reason: "budget-burning"},
		"all fails, of a lax objective": {service: service{outages: []outage{{0, long, 1}}}, config: twoNines, verdict: stages.Fail, within: time.Minute, reason: "budget-burning"},
		"all fails after a minute":      {service: service{outages: []outage{{time.Minute, long, 1}}}, config: twoNines, verdict: stages.Fail, within: 2 * time.Minute, reason: "budget-burning"},
		"a part fails, for too long": {
			service: service{outages: []outage{{0, long, 0.2}}}, config: twoNines, verdict: stages.Fail, within: 2 * time.Minute, reason: "budget-burning",
		},
		"a blip":                               {service: service{outages: []outage{{5 * time.Second, 20 * time.Second, 0.1}}}, verdict: stages.Pass},
		"a blip of a lax objective":            {service: service{outages: []outage{{5 * time.Second, 20 * time.Second, 1}}}, config: twoNines, verdict: stages.Pass},
		"a burst at the start, and over":       {service: service{outages: []outage{{3 * time.Second, 8 * time.Second, 1}}}, verdict: stages.Pass},
		"a burst in a minute, and over":        {service: service{outages: []outage{{time.Minute, 65 * time.Second, 1}}}, release: deployed(65 * time.Second), verdict: stages.Fail, within: 0, reason: "budget-burning"},
		"a burst before the gate, and over":    {service: service{outages: []outage{{time.Minute, 65 * time.Second, 1}}}, release: deployed(90 * time.Second), verdict: stages.Pass},
		"slower than the first window's":       {service: service{outages: []outage{{0, long, 0.01}}}, verdict: stages.Pass},
		"old, and slower than the first's":     {service: service{outages: []outage{{0, long, 0.01}}}, release: deployed(4 * time.Hour), verdict: stages.Fail, within: time.Second, reason: "budget-burning"},
		"old, and burnt for a while":           {service: service{outages: []outage{{0, 20 * time.Minute, 0.1}}}, release: deployed(50 * time.Minute), verdict: stages.Pass},
		"old, and all fails since the first":   {service: service{silent: 2 * time.Hour, outages: []outage{{2 * time.Hour, long, 1}}}, release: deployed(2 * time.Hour), verdict: stages.Fail, within: time.Minute, reason: "budget-burning", warning: "no-data-before"},
		"burning before":                       {service: service{outages: []outage{ever(0.2)}}, verdict: stages.Inconclusive, reason: "budget-burning-before"},
		"burning before, allowed, and burning": {service: service{outages: []outage{ever(0.2)}}, config: allowed, verdict: stages.Fail, within: time.Minute, reason: "budget-burning", warning: "budget-burning-before"},
		"burning since just before":            {service: service{outages: []outage{{-20 * time.Second, long, 1}}}, config: twoNines, verdict: stages.Inconclusive, reason: "budget-burning-before"},
		"burning for minutes before":           {service: service{outages: []outage{{-2 * time.Minute, long, 0.05}}}, verdict: stages.Inconclusive, reason: "budget-burning-before"},
		"an outage before, long over":          {service: service{outages: []outage{{-30 * time.Minute, -10 * time.Minute, 1}, {0, long, 1}}}, verdict: stages.Fail, within: time.Minute, reason: "budget-burning"},
		"burning before, and now much faster":  {service: service{outages: []outage{{-long, 0, 0.2}, {0, long, 0.5}}}, verdict: stages.Fail, within: 2 * time.Minute, reason: "budget-burning"},
		"burning before, and now a bit faster": {service: service{outages: []outage{{-long, 0, 0.2}, {0, long, 0.35}}}, verdict: stages.Inconclusive, reason: "budget-burning-before"},
		"burning before, mended, and harmed":   {service: service{outages: []outage{{-long, time.Minute, 0.2}, {100 * time.Second, long, 1}}}, verdict: stages.Fail, within: 3 * time.Minute, reason: "budget-burning"},
		"spent before, and burning now":        {service: service{outages: []outage{{-720 * time.Hour, -time.Hour, 0.0012}, {0, long, 1}}}, config: period, verdict: stages.Fail, within: time.Minute, reason: "budget-burning"},
		"burning before, and mended":           {service: service{outages: []outage{{-long, 0, 0.2}}}, verdict: stages.Pass},
		"burning slowly before, and now fast":  {service: service{outages: []outage{{-long, 0, 0.002}, {0, long, 0.5}}}, verdict: stages.Fail, within: time.Minute, reason: "budget-burning"},
		"spent by the release": {
			service: service{outages: []outage{{-long, 0, 0.00099}, {0, long, 0.0144}}}, config: func(c *metric.BurnRateConfig) { c.Period = time.Hour },
			verdict: stages.Fail, within: time.Minute, reason: "budget-spent-by-release",
		},
		"spent before":                         {service: service{outages: []outage{{-720 * time.Hour, 0, 0.0012}}}, config: period, verdict: stages.Inconclusive, reason: "budget-spent-before"},
		"spent before, and allowed":            {service: service{outages: []outage{{-720 * time.Hour, 0, 0.0012}}}, config: allowed, verdict: stages.Pass, warning: "budget-spent-before"},
		"spent before, allowed, and burning":   {service: service{outages: []outage{{-720 * time.Hour, 0, 0.0012}, {0, long, 1}}}, config: allowed, verdict: stages.Fail, within: time.Minute, reason: "budget-burning", warning: "budget-spent-before"},
		"a first install has no before":        {service: service{silent: time.Second, outages: []outage{{time.Second, long, 0.2}}}, release: first, verdict: stages.Fail, within: time.Minute, reason: "budget-burning"},
		"a canary of what burnt before":        {service: service{outages: []outage{ever(0.2)}}, release: first, verdict: stages.Inconclusive, reason: "budget-burning-before"},
		"a first install that is calm":         {service: service{}, release: first, verdict: stages.Pass},
		"nothing known of before":              {service: service{silent: time.Second, outages: []outage{{time.Second, long, 1}}}, verdict: stages.Fail, within: time.Minute, reason: "budget-burning", warning: "no-data-before"},
		"no data":                              {service: service{gone: true}, verdict: stages.Inconclusive, reason: "no-data", warning: "no-data-before"},
		"no requests since":                    {service: service{silent: long}, verdict: stages.Inconclusive, reason: "not-finite", warning: "no-data-before"},
		"no share of requests":                 {service: service{junk: 7}, release: first, verdict: stages.Inconclusive, reason: "unfit-data"},
		"enough traffic":                       {service: service{}, config: traffic, verdict: stages.Pass},
		"enough traffic, and all of it fails":  {service: service{outages: []outage{{0, long, 1}}}, config: traffic, verdict: stages.Fail, within: time.Minute + time.Second, reason: "budget-burning"},
		"too little traffic":                   {service: service{silent: 4*time.Minute + 30*time.Second}, config: traffic, release: first, verdict: stages.Inconclusive, reason: "too-little-traffic"},
		"too little traffic, allowed, failed":  {service: service{silent: 4*time.Minute + 30*time.Second, outages: []outage{{4*time.Minute + 30*time.Second, long, 1}}}, config: lenient, release: first, verdict: stages.Inconclusive, reason: "too-little-traffic"},
		"too little traffic, all of it failed": {service: service{silent: 4*time.Minute + 30*time.Second, outages: []outage{{4*time.Minute + 30*time.Second, long, 1}}}, config: traffic, release: first, verdict: stages.Inconclusive, reason: "too-little-traffic"},
		"fails while its deployer waits for hooks": {
			service: service{outages: []outage{{-50 * time.Second, long, 1}}}, release: hooked,
			verdict: stages.Fail, within: time.Minute, reason: "budget-burning",
		},
		"spent before, and quiet at the deployment": {
			service: service{outages: []outage{{-200 * time.Hour, -100 * time.Hour, 0.01}}, pause: 10 * time.Minute}, config: period,
			verdict: stages.Inconclusive, reason: "budget-spent-before",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rel := release()
				if test.release != nil {
					test.release(&rel)
				}
				test.service.deployed = rel.Deployed
				began := time.Now()
				d := decide(t, budget(t, test.service, test.config), rel)
				assert.Equal(t, test.verdict, d.Verdict, "%+v", d)
				if test.verdict == stages.Fail {
					assert.LessOrEqual(t, time.Since(began), test.within)
				}
				if test.reason == "" {
					assert.Empty(t, d.Reasons)
					assert.Equal(t, max(metric.DefaultBurnFor, began.Sub(rel.Deployed)), time.Since(rel.Deployed), "a pass takes its time")
				} else {
					assert.Equal(t, []string{test.reason}, rules(d.Reasons))
				}
				if test.warning != "" {
					assert.Contains(t, rules(d.Warnings), test.warning)
				} else {
					assert.Empty(t, d.Warnings)
				}
			})
		})
	}
}

func first(r *stages.Release) { r.Previous = 0 }

// hooked is a release whose deployer was still busy with hooks when its pods served.
func hooked(r *stages.Release) { r.Began = r.Deployed.Add(-time.Minute) }

func deployed(ago time.Duration) func(*stages.Release) {
	return func(r *stages.Release) { r.Deployed = r.Deployed.Add(-ago) }
}

// TestBurnRateSaysWhatItCut has a person see over which time the budget burnt.
func TestBurnRateSaysWhatItCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rel := release()
		rel.Deployed = rel.Deployed.Add(-10 * time.Minute)
		d := decide(t, budget(t, service{deployed: rel.Deployed, outages: []outage{{0, long, 0.5}}}, nil), rel)
		require.Len(t, d.Reasons, 1)
		assert.Contains(t, d.Reasons[0].Message, "1h0m0s, cut to the 10m0s since the deployment, and 5m0s, cut to 50s, burn at 500 and 500 times")
	})
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
	good := metric.BurnRateConfig{Source: service{}, ErrorRatio: "ratio[{{.Window}}]", Objective: 0.999}
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
		"traffic of any amount": func(c *metric.BurnRateConfig) { c.Traffic = "requests" },
		"no traffic to count":   func(c *metric.BurnRateConfig) { c.MinTraffic = 5 },
		"no finite traffic":     func(c *metric.BurnRateConfig) { c.Traffic, c.MinTraffic = "requests", math.Inf(1) },
		"no rate":               func(c *metric.BurnRateConfig) { c.Windows = []metric.BurnWindow{{Long: time.Hour, Short: time.Minute}} },
	} {
		c := good
		spoil(&c)
		_, err := metric.NewBurnRate(c)
		require.ErrorIs(t, err, stages.ErrInvalid, name)
	}
}

func TestBurnRateConformance(t *testing.T) {
	began := time.Now().Add(-3 * time.Second)
	source := metric.SourceFunc(func(ctx context.Context, q metric.Query) (metric.Result, error) {
		if ctx.Err() != nil {
			return metric.Result{}, context.Cause(ctx)
		}
		for name, ratio := range map[string]float64{`ratio{release="good"}`: 0, `ratio{release="bad"}`: 0.9} {
			if (q.At.IsZero() || q.At.After(began)) && strings.HasPrefix(q.Expression, name) {
				return value(ratio), nil
			}
		}
		return metric.Result{}, nil
	})
	stagestest.TestGate(t, func(t *testing.T) stagestest.GateHarness[stages.Release] {
		named := func(name string) stages.Release {
			return stages.Release{Name: name, Namespace: "prod", Deployed: began}
		}
		gate := budget(t, source, func(c *metric.BurnRateConfig) {
			c.ErrorRatio, c.For = `ratio{release="{{.Release}}"}[{{.Window}}]`, time.Millisecond
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
