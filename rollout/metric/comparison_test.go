package metric_test

import (
	"context"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/sequential"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// fleet is a source of counters that grow with time, as those of pods do.
type fleet struct {
	mu    sync.Mutex
	began time.Time
	pods  []pod
}

// pod serves requests from a time on, and may be gone or start again.
type pod struct {
	name, track string
	from        time.Time
	until       time.Time     // zero: it stays
	missing     time.Duration // it is not scraped for so long, from the first question on
	restarts    time.Duration // it begins again from zero this often; zero for never
	offset      float64       // what it had counted before
	rate        float64       // requests a second
	failing     float64       // share of them
	slow        float64       // share of them that takes longer than 0.5 s
}

func (p pod) served(at, began time.Time) (float64, bool) {
	age := at.Sub(p.from)
	hidden := !at.Before(began) && at.Sub(began) < p.missing
	if age < 0 || hidden || !p.until.IsZero() && at.After(p.until) {
		return 0, false
	}
	offset := p.offset
	if p.restarts > 0 && age >= p.restarts {
		offset, age = 0, age%p.restarts
	}
	return offset + p.rate*age.Seconds(), true
}

// Query knows requests{track}, failures{track}, coded{track} and buckets{track}.
func (f *fleet) Query(ctx context.Context, q metric.Query) (metric.Result, error) {
	if ctx.Err() != nil {
		return metric.Result{}, context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	kind, track, _ := strings.Cut(strings.TrimSuffix(q.Expression, "}"), "{")
	at := time.Now()
	if f.began.IsZero() {
		f.began = at
	}
	if !q.At.IsZero() {
		at = q.At
	}
	r := metric.Result{Source: "fleet", Evaluated: at}
	add := func(p pod, value float64, labels ...string) {
		s := metric.Sample{Labels: map[string]string{"pod": p.name}, Time: at, Value: math.Floor(value)}
		for i := 0; i < len(labels); i += 2 {
			s.Labels[labels[i]] = labels[i+1]
		}
		r.Samples = append(r.Samples, s)
	}
	for _, p := range f.pods {
		served, up := p.served(at, f.began)
		if p.track != track || !up {
			continue
		}
		failed := math.Floor(served * p.failing)
		switch kind {
		case "requests":
			add(p, served)
		case "failures":
			if failed > 0 { // as client libraries do, a counter begins with its first event
				add(p, failed)
			}
		case "coded":
			add(p, served-failed, "code", "200")
			if failed > 0 {
				add(p, failed, "code", "503")
			}
		case "buckets":
			add(p, 0, "le", "0.05")
			add(p, served*(1-p.slow), "le", "0.1")
			add(p, served*(1-p.slow), "le", "0.5")
			add(p, served, "le", "1")
			add(p, served, "le", "+Inf")
		}
	}
	return r, nil
}

func sides(kinds ...string) (canary, baseline metric.Side) {
	for _, kind := range kinds {
		switch kind {
		case "requests", "coded":
			canary.Requests, baseline.Requests = kind+"{canary}", kind+"{stable}"
		case "failures":
			canary.Failures, baseline.Failures = kind+"{canary}", kind+"{stable}"
		case "buckets":
			canary.Latency, baseline.Latency = kind+"{canary}", kind+"{stable}"
		}
	}
	return canary, baseline
}

const interval = 5 * time.Second // between two looks

func comparison(t *testing.T, c metric.ComparisonConfig) *metric.Comparison {
	t.Helper()
	c.Watch.Interval = interval
	gate, err := metric.NewComparison(c)
	require.NoError(t, err)
	return gate
}

// stable is a baseline with a long history that is nothing like the present.
func stable(now time.Time) pod {
	return pod{name: "stable-1", track: "stable", from: now.Add(-time.Second), offset: 5e6, rate: 200, failing: 0.01}
}

func TestComparisonOfFailures(t *testing.T) {
	for _, kinds := range [][]string{{"coded"}, {"requests", "failures"}} {
		for name, test := range map[string]struct {
			canary  func(now time.Time) []pod
			verdict stages.Verdict
			within  time.Duration
		}{
			"harm": {func(now time.Time) []pod {
				return []pod{{name: "canary-1", track: "canary", from: now, rate: 50, failing: 0.2}}
			}, stages.Fail, 30 * time.Second},
			"no harm": {func(now time.Time) []pod {
				return []pod{{name: "canary-1", track: "canary", from: now, rate: 200, failing: 0.01}}
			}, stages.Pass, 5 * time.Minute},
			"no traffic": {func(now time.Time) []pod {
				return []pod{{name: "canary-1", track: "canary", from: now, failing: 0.01}}
			}, stages.Inconclusive, 6 * time.Minute},
			"a crash loop that forgets its failures": {func(now time.Time) []pod {
				return []pod{{name: "canary-1", track: "canary", from: now, rate: 50, failing: 0.2, restarts: 12 * time.Second}}
			}, stages.Fail, time.Minute},
			"pods that come and go": {func(now time.Time) []pod {
				return []pod{
					{name: "canary-1", track: "canary", from: now, until: now.Add(11 * time.Second), rate: 50, failing: 0.2},
					{name: "canary-2", track: "canary", from: now.Add(8 * time.Second), rate: 50, failing: 0.2},
				}
			}, stages.Fail, time.Minute},
		} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					now := time.Now()
					c := metric.ComparisonConfig{Source: &fleet{pods: append(test.canary(now), stable(now))}, AbsentFailuresAreNone: true}
					c.Canary, c.Baseline = sides(kinds...)
					if kinds[0] == "coded" {
						c.FailureLabel, c.FailurePattern = "code", "5.."
					}
					d := decide(t, comparison(t, c), release())
					assert.Equal(t, test.verdict, d.Verdict, "%+v", d)
					assert.LessOrEqual(t, time.Since(now), test.within)
					if test.verdict == stages.Inconclusive {
						assert.Equal(t, []string{"failure-rate-undecided"}, rules(d.Reasons))
						assert.Contains(t, d.Reasons[0].Message, "more canary requests are needed")
					}
				})
			})
		}
	}
}

// TestComparisonRemembersWhatLapsed: a pod that isn't scraped when the comparison
// begins is no new one when it is back, with millions of requests.
func TestComparisonRemembersWhatLapsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		lapsed := pod{name: "stable-2", track: "stable", from: now.Add(-time.Hour), offset: 5e7, missing: 12 * time.Second, rate: 10, failing: 0.5}
		c := metric.ComparisonConfig{
			Source:       &fleet{pods: []pod{{name: "canary-1", track: "canary", from: now, rate: 50, failing: 0.2}, stable(now), lapsed}},
			FailureLabel: "code", FailurePattern: "5..", Rate: sequential.RateConfig{MinRequests: 2000},
		}
		c.Canary, c.Baseline = sides("coded")
		d := decide(t, comparison(t, c), release())
		assert.Equal(t, stages.Fail, d.Verdict, "its old failures would hide the canary's: %+v", d)
		assert.Less(t, time.Since(now), time.Minute)
	})
}

func TestComparisonOfLatencies(t *testing.T) {
	for slow, want := range map[float64]stages.Verdict{0.001: stages.Pass, 0.5: stages.Fail} {
		synctest.Test(t, func(t *testing.T) {
			now := time.Now()
			base := stable(now)
			base.slow = 0.001
			c := metric.ComparisonConfig{
				Source:   &fleet{pods: []pod{{name: "canary-1", track: "canary", from: now, rate: 200, slow: slow}, base}},
				Quantile: sequential.QuantileConfig{Quantile: 0.9, Tolerance: 1.5},
			}
			c.Canary, c.Baseline = sides("buckets")
			d := decide(t, comparison(t, c), release())
			assert.Equal(t, want, d.Verdict, "%+v", d)
			if want == stages.Fail {
				assert.Equal(t, []string{"latency"}, rules(d.Reasons))
			}
		})
	}
}

func TestComparisonWithLimits(t *testing.T) {
	for failing, want := range map[float64]stages.Verdict{0: stages.Pass, 0.2: stages.Fail} {
		synctest.Test(t, func(t *testing.T) {
			now := time.Now()
			source := &fleet{pods: []pod{{name: "canary-1", track: "canary", from: now, rate: 100, failing: failing, slow: failing}}}
			gate := comparison(t, metric.ComparisonConfig{
				Source: source, Canary: metric.Side{Requests: "coded{canary}", Latency: "buckets{canary}"}, FailureLabel: "code", FailurePattern: "5..",
				MaxFailureRate: 0.05, MaxLatency: time.Second,
			})
			d := decide(t, gate, release())
			assert.Equal(t, want, d.Verdict, "%+v", d)
		})
	}
}

func TestComparisonNeedsBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for missing, pods := range map[string][]pod{
			"baseline": {{name: "canary-1", track: "canary", from: now, rate: 100}},
			"canary":   {stable(now)},
		} {
			c := metric.ComparisonConfig{Source: &fleet{pods: pods}, FailureLabel: "code", FailurePattern: "5.."}
			c.Canary, c.Baseline = sides("coded")
			d := decide(t, comparison(t, c), release())
			assert.Equal(t, stages.Inconclusive, d.Verdict)
			assert.Equal(t, []string{"no-data"}, rules(d.Reasons))
			assert.Contains(t, d.Reasons[0].Message, missing+": ")
		}
	})
}

func TestAbsentFailuresAreNoData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		c := metric.ComparisonConfig{Source: &fleet{pods: []pod{{name: "canary-1", track: "canary", from: now, rate: 500}, stable(now)}}}
		c.Canary, c.Baseline = sides("requests", "failures")
		d := decide(t, comparison(t, c), release())
		assert.Equal(t, []string{"no-data"}, rules(d.Reasons), "a mistyped name looks just like this")
		c.AbsentFailuresAreNone = true
		assert.Equal(t, stages.Pass, decide(t, comparison(t, c), release()).Verdict)
	})
}

func TestComparisonDecidesAnewAndConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		c := metric.ComparisonConfig{Source: &fleet{pods: []pod{{name: "canary-1", track: "canary", from: now, rate: 50, failing: 0.3}, stable(now)}}, FailureLabel: "code", FailurePattern: "5.."}
		c.Canary, c.Baseline = sides("coded")
		gate := comparison(t, c)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 3 {
					d, err := gate.Decide(t.Context(), release())
					assert.NoError(t, err)
					assert.Equal(t, stages.Fail, d.Verdict)
				}
			})
		}
		wg.Wait()
	})
}

func TestNewComparisonRefuses(t *testing.T) {
	good := metric.ComparisonConfig{Source: &fleet{}, FailureLabel: "code", FailurePattern: "5.."}
	good.Canary, good.Baseline = sides("coded", "buckets")
	_, err := metric.NewComparison(good)
	require.NoError(t, err)
	for name, spoil := range map[string]func(*metric.ComparisonConfig){
		"no source":            func(c *metric.ComparisonConfig) { c.Source = nil },
		"no canary":            func(c *metric.ComparisonConfig) { c.Canary = metric.Side{} },
		"half a baseline":      func(c *metric.ComparisonConfig) { c.Baseline.Latency = "" },
		"canary as baseline":   func(c *metric.ComparisonConfig) { c.Baseline = c.Canary },
		"limits beside it":     func(c *metric.ComparisonConfig) { c.MaxFailureRate = 0.1 },
		"no limits without it": func(c *metric.ComparisonConfig) { c.Baseline = metric.Side{} },
		"two kinds of failure": func(c *metric.ComparisonConfig) { c.Canary.Failures, c.Baseline.Failures = "x", "y" },
		"no kind of failure":   func(c *metric.ComparisonConfig) { c.FailureLabel, c.FailurePattern = "", "" },
		"a label alone":        func(c *metric.ComparisonConfig) { c.FailurePattern = "" },
		"a broken pattern":     func(c *metric.ComparisonConfig) { c.FailurePattern = "(" },
		"an impossible rate":   func(c *metric.ComparisonConfig) { c.Rate.Alpha = 2 },
		"an impossible rank":   func(c *metric.ComparisonConfig) { c.Quantile.Quantile = 2 },
		"a broken template":    func(c *metric.ComparisonConfig) { c.Canary.Requests = "{{" },
	} {
		c := good
		spoil(&c)
		_, err := metric.NewComparison(c)
		require.ErrorIs(t, err, stages.ErrInvalid, name)
	}
}

func TestComparisonConformance(t *testing.T) {
	// Each query sees a thousand requests more.
	var mu sync.Mutex
	n := map[string]float64{}
	source := metric.SourceFunc(func(ctx context.Context, q metric.Query) (metric.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			return metric.Result{}, context.Cause(ctx)
		}
		n[q.Expression]++
		count := 1000 * n[q.Expression]
		share := map[string]float64{"good": 0, "bad": 0.9, "stable": 0}
		name := strings.TrimSuffix(strings.TrimPrefix(q.Expression, `coded{release="`), `"}`)
		failing, known := share[name]
		if !known {
			return metric.Result{}, nil
		}
		var r metric.Result
		for code, value := range map[string]float64{"200": count * (1 - failing), "500": count * failing} {
			r.Samples = append(r.Samples, metric.Sample{Labels: map[string]string{"code": code}, Time: time.Now(), Value: value})
		}
		return r, nil
	})
	stagestest.TestGate(t, func(t *testing.T) stagestest.GateHarness[stages.Release] {
		gate, err := metric.NewComparison(metric.ComparisonConfig{
			Source: source, FailureLabel: "code", FailurePattern: "5..",
			Canary: metric.Side{Requests: `coded{release="{{.Release}}"}`}, Baseline: metric.Side{Requests: `coded{release="stable"}`},
			Watch: metric.Watch{Interval: time.Millisecond, Timeout: 200 * time.Millisecond},
		})
		require.NoError(t, err)
		named := func(name string) stages.Release { return stages.Release{Name: name, Namespace: "prod"} }
		return stagestest.GateHarness[stages.Release]{Gate: gate, Good: named("good"), Bad: named("bad"), Empty: named("empty")}
	})
}

// counts answers each expression by what it counts at each look, from the first
// on; the last stays, and before them there was nothing. Labels are those of the
// counters.
func counts(looks map[string][]map[string]float64) metric.Source {
	began := sync.OnceValue(time.Now)
	return metric.SourceFunc(func(_ context.Context, q metric.Query) (metric.Result, error) {
		r := metric.Result{Evaluated: orNow(q.At)}
		list, n := looks[q.Expression], int(r.Evaluated.Sub(began())/interval)
		if r.Evaluated.Before(began()) {
			return r, nil
		}
		for code, v := range list[min(n, len(list)-1)] {
			r.Samples = append(r.Samples, metric.Sample{Labels: map[string]string{"code": code}, Time: r.Evaluated, Value: v})
		}
		return r, nil
	})
}

func orNow(at time.Time) time.Time {
	if at.IsZero() {
		return time.Now()
	}
	return at
}

func TestTheFirstFailuresCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]metric.ComparisonConfig{
			"by label": {
				Source: counts(map[string][]map[string]float64{"r": {{"200": 0}, {"200": 0, "503": 1000}}}),
				Canary: metric.Side{Requests: "r"}, FailureLabel: "code", FailurePattern: "5..",
			},
			"by metric": {
				Source: counts(map[string][]map[string]float64{"r": {{"": 0}, {"": 1000}}, "f": {{}, {"": 1000}}}),
				Canary: metric.Side{Requests: "r", Failures: "f"}, AbsentFailuresAreNone: true,
			},
			"read a scrape apart": {
				Source: counts(map[string][]map[string]float64{"r": {{"": 0}, {"": 1000}}, "f": {{"": 0}, {"": 1003}}}),
				Canary: metric.Side{Requests: "r", Failures: "f"},
			},
		} {
			c.MaxFailureRate = 0.5
			d := decide(t, comparison(t, c), release())
			assert.Equal(t, stages.Fail, d.Verdict, "%s: %+v", name, d)
		}
	})
}
