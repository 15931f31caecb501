package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/metric/metrictest"
	"github.com/fairlead-dev/fairlead/rollout/metric/prometheus"
	"github.com/fairlead-dev/fairlead/rollout/sequential"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestPrometheus asks a real server about apps that behave as the test says.
func TestPrometheus(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"keeps the contract", testContract},
		{"tells failures apart", testFailures},
		{"tells how old data is", testAge},
		{"no junk passes", testJunk},
		{"threshold", testThreshold},
		{"canary against baseline", testCanary},
		{"error budget", testBudget},
		{"a target that is gone", testGone}, // last: it takes an app down
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, w) })
	}
}

// world is a server that scrapes five apps.
type world struct {
	source                                 *prometheus.Source
	stable, good, bad, restarted, crashing *app
}

const odd = "ratio NaN\nlimit +Inf\n"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{stable: startApp(t, 400, 0.01), good: startApp(t, 400, 0.01), bad: startApp(t, 100, 0.15), restarted: startApp(t, 200, 0.06), crashing: startApp(t, 400, 0.01)}
	w.restarted.restarts, w.crashing.restarts = 3*time.Second, 3*time.Second
	w.bad.slow = 0.5
	// What has a time of its own gets no staleness marker, as what is pushed or
	// written remotely: Prometheus goes on answering with it for five minutes.
	w.stable.extra = odd + fmt.Sprintf("pushed 1 %d", time.Now().Add(-4*time.Minute).UnixMilli())
	url := startPrometheus(t, map[string]string{"stable": w.stable.address(), "good": w.good.address(), "bad": w.bad.address(), "restarted": w.restarted.address(), "crashing": w.crashing.address()})
	w.source = source(t, url)
	require.Eventually(t, func() bool {
		r, err := w.source.Query(t.Context(), metric.Query{Expression: "min_over_time(count(sum by (job) (rate(http_requests_total[10s])))[3s:1s])"})
		return err == nil && len(r.Samples) == 1 && r.Samples[0].Value == 5
	}, 60*time.Second, 200*time.Millisecond, "every app must have been scraped")
	return w
}

func source(t *testing.T, url string) *prometheus.Source {
	t.Helper()
	s, err := prometheus.New(prometheus.Config{URL: url})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

func release(name string) stages.Release {
	return stages.Release{Name: name, Namespace: "prod", Revision: 2, Previous: 1, Deployed: time.Now()}
}

func (w *world) ask(t *testing.T, expression string) metric.Result {
	t.Helper()
	r, err := w.source.Query(t.Context(), metric.Query{Expression: expression})
	require.NoError(t, err)
	return r
}

func testContract(t *testing.T, w *world) {
	metrictest.TestSource(t, func(t *testing.T) metrictest.Harness {
		return metrictest.Harness{
			Source: w.source, Present: "http_requests_total", Absent: "nothing", Malformed: "sum(", NotANumber: "ratio", Stale: "pushed",
			Unreachable: source(t, "http://"+freeAddress(t)),
		}
	})
}

func testFailures(t *testing.T, w *world) {
	for expression, class := range map[string]metric.Class{
		"rate(http_requests_total)": metric.BadExpression,
		`"text"`:                    metric.BadExpression,
		"http_requests_total[10s]":  metric.BadExpression,
		"http_requests_total * on(job) http_requests_total": metric.BadExpression,
		"count_over_time(vector(1)[10000s:1s])":             metric.TooManySeries,
	} {
		_, err := w.source.Query(t.Context(), metric.Query{Expression: expression})
		failed, ok := errors.AsType[*metric.QueryError](err)
		if assert.True(t, ok, "%s: %v", expression, err) {
			assert.Equal(t, class, failed.Class, "%s: %v", expression, err)
		}
	}
}

func testAge(t *testing.T, w *world) {
	for expression, age := range map[string]time.Duration{
		`http_requests_total`:                          0,
		`sum(rate(http_requests_total[10s]))`:          0,
		`scalar(sum(http_requests_total))`:             0,
		`sum(rate(nothing[1m])) or sum(ratio)`:         0,
		ratioOf(`job="good",code="599"`, `job="good"`): 0,
		`pushed`:                                 4 * time.Minute,
		`sum(pushed)`:                            4 * time.Minute,
		`sum(pushed) / sum(http_requests_total)`: 4 * time.Minute,
		`sum(sum_over_time(pushed{job="stable"}[5m]))`: 4 * time.Minute,
	} {
		r := w.ask(t, expression)
		if assert.NotEmpty(t, r.Samples, expression) {
			for _, s := range r.Samples {
				assert.InDelta(t, age.Seconds(), r.Evaluated.Sub(s.Time).Seconds(), 50, expression)
			}
		}
	}
	for _, s := range w.ask(t, "vector(1)").Samples {
		assert.Zero(t, s.Time, "nothing was observed")
	}
}

var quick = metric.Watch{Interval: 500 * time.Millisecond, Timeout: 3 * time.Second, AllowUndecided: true}

func testJunk(t *testing.T, w *world) {
	for expression, rule := range map[string]string{
		"nothing":                               "no-data",
		"sum(rate(nothing[1m]))":                "no-data",
		ratioOf(`job="gone"`, `job="gone"`):     "no-data",
		ratioOf(`job="good"`, `job="gone"`):     "no-data",
		"ratio":                                 "not-finite",
		"limit":                                 "not-finite",
		"sum(nothing) or vector(0) / vector(0)": "not-finite",
		"pushed":                                "stale",
		"sum(pushed)":                           "stale",
		"vector(1)":                             "stale",
		"absent(nothing)":                       "stale",
		"sum(":                                  "query-bad-expression",
		"count_over_time(vector(1)[10000s:1s])": "query-too-many-series",
	} {
		t.Run(rule+" "+expression, func(t *testing.T) {
			t.Parallel()
			requireNoAnswer(t, w.source, expression, rule)
		})
	}
}

const errorRatio = `(sum(rate(http_requests_total{job="{{.Release}}",code=~"5.."}[{{.Window}}])) or vector(0)) / sum(rate(http_requests_total{job="{{.Release}}"}[{{.Window}}]))`

// ratioOf is a ratio like that of package metric's documentation, of any requests.
func ratioOf(failed, all string) string {
	return fmt.Sprintf(`(sum(rate(http_requests_total{%s}[10s])) or vector(0)) / sum(rate(http_requests_total{%s}[10s]))`, failed, all)
}

func testThreshold(t *testing.T, w *world) {
	gate, err := metric.NewThreshold(metric.ThresholdConfig{
		Source: w.source, Expression: errorRatio, Max: new(0.05), Looks: 2, For: 3 * time.Second,
		Traffic: `sum(increase(http_requests_total{job="{{.Release}}"}[{{.Window}}]))`, MinTraffic: 100,
		Watch: metric.Watch{Interval: 500 * time.Millisecond, Timeout: 30 * time.Second},
	})
	require.NoError(t, err)
	for name, want := range map[string]stages.Verdict{"good": stages.Pass, "bad": stages.Fail, "hostile\"} or vector(0) #": stages.Inconclusive} {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 8*time.Second, errors.New("it would wait for traffic"))
		began := time.Now()
		d, err := gate.Decide(ctx, release(name))
		cancel()
		if want != stages.Inconclusive {
			require.NoError(t, err)
		}
		assert.Equal(t, want, d.Verdict, "%s: %+v", name, d)
		t.Logf("%s: %s after %s", name, d.Verdict, time.Since(began).Round(100*time.Millisecond))
	}
}

func testCanary(t *testing.T, w *world) {
	side := func(job string) metric.Side {
		return metric.Side{Requests: fmt.Sprintf(`http_requests_total{job=%q}`, job), Latency: fmt.Sprintf(`http_request_duration_seconds_bucket{job=%q}`, job)}
	}
	for _, test := range []struct {
		canary  string
		verdict stages.Verdict
		latency bool
	}{{"good", stages.Pass, true}, {"bad", stages.Fail, false}, {"bad", stages.Fail, true}, {"restarted", stages.Fail, false}, {"crashing", stages.Pass, false}} {
		c := metric.ComparisonConfig{
			Source: w.source, Canary: side(test.canary), Baseline: side("stable"), FailureLabel: "code", FailurePattern: "5..",
			Rate: sequential.RateConfig{Tolerance: 0.02}, Quantile: sequential.QuantileConfig{Quantile: 0.9, Tolerance: 1.5},
			Watch: metric.Watch{Interval: 500 * time.Millisecond, Timeout: 45 * time.Second},
		}
		if !test.latency {
			c.Canary.Latency, c.Baseline.Latency = "", ""
		}
		gate, err := metric.NewComparison(c)
		require.NoError(t, err)
		began := time.Now()
		d, err := gate.Decide(t.Context(), release(test.canary))
		require.NoError(t, err)
		assert.Equal(t, test.verdict, d.Verdict, "%s: %+v", test.canary, d)
		t.Logf("%s: %s after %s: %v", test.canary, d.Verdict, time.Since(began).Round(100*time.Millisecond), d.Reasons)
	}
}

func testBudget(t *testing.T, w *world) {
	gate, err := metric.NewBurnRate(metric.BurnRateConfig{
		Source: w.source, ErrorRatio: errorRatio, Objective: 0.97, For: 3 * time.Second,
		Windows: []metric.BurnWindow{{Long: 8 * time.Second, Short: 3 * time.Second, Rate: 2}},
		Watch:   metric.Watch{Interval: 500 * time.Millisecond, Timeout: 30 * time.Second},
	})
	require.NoError(t, err)
	decide := func(name string) stages.Decision {
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		d, err := gate.Decide(ctx, release(name))
		require.NoError(t, err)
		return d
	}
	d := decide("good")
	assert.Equal(t, stages.Pass, d.Verdict, "%+v", d)

	rel := release("good")
	w.good.change(func(a *app) { a.failing = 0.5 })
	defer w.good.change(func(a *app) { a.failing = 0.01 })
	d, err = gate.Decide(t.Context(), rel)
	require.NoError(t, err)
	assert.Equal(t, stages.Fail, d.Verdict, "%+v", d)
	require.NotEmpty(t, d.Reasons)
	assert.Equal(t, "budget-burning", d.Reasons[0].Rule)
	t.Logf("burning: after %s: %s", time.Since(rel.Deployed).Round(100*time.Millisecond), d.Reasons[0].Message)

	short, err := metric.NewBurnRate(metric.BurnRateConfig{
		Source: w.source, ErrorRatio: errorRatio, Objective: 0.97, For: time.Second,
		Windows: []metric.BurnWindow{{Long: 8 * time.Second, Short: 3 * time.Second, Rate: 2}}, Watch: metric.Watch{Interval: 500 * time.Millisecond, Timeout: 4 * time.Second},
	})
	require.NoError(t, err)
	d, err = short.Decide(t.Context(), release("bad"))
	require.NoError(t, err)
	assert.Equal(t, stages.Inconclusive, d.Verdict, "%+v", d)
	require.NotEmpty(t, d.Reasons)
	assert.Equal(t, "budget-burning-before", d.Reasons[0].Rule, "it is no fault of this release")
}

// testGone: a range still has the counters of a target that is not scraped any
// more, and its rate looks as well as ever.
func testGone(t *testing.T, w *world) {
	w.good.change(func(a *app) { a.down = true })
	require.Eventually(t, func() bool { return len(w.ask(t, `http_requests_total{job="good"}`).Samples) == 0 }, 10*time.Second, 200*time.Millisecond)
	const rate = `sum(rate(http_requests_total{job="good"}[1m]))`
	require.NotEmpty(t, w.ask(t, rate).Samples, "Prometheus still answers")
	gate, err := metric.NewThreshold(metric.ThresholdConfig{
		Source: w.source, Expression: rate, Min: new(1.0), Watch: metric.Watch{Interval: 500 * time.Millisecond, Timeout: 2 * time.Second, MaxAge: time.Second},
	})
	require.NoError(t, err)
	d, err := gate.Decide(t.Context(), release("good"))
	require.NoError(t, err)
	assert.Equal(t, stages.Inconclusive, d.Verdict)
	require.NotEmpty(t, d.Reasons)
	assert.Equal(t, "stale", d.Reasons[0].Rule, "%+v", d)

	side := func(job string) metric.Side {
		return metric.Side{Requests: fmt.Sprintf(`http_requests_total{job=%q}`, job)}
	}
	canary, err := metric.NewComparison(metric.ComparisonConfig{
		Source: w.source, Canary: side("good"), Baseline: side("stable"), FailureLabel: "code", FailurePattern: "5..", Watch: quick,
	})
	require.NoError(t, err)
	d, err = canary.Decide(t.Context(), release("good"))
	require.NoError(t, err)
	assert.Equal(t, stages.Inconclusive, d.Verdict)
	require.NotEmpty(t, d.Reasons)
	assert.Equal(t, "no-data", d.Reasons[0].Rule, "%+v", d)
}
