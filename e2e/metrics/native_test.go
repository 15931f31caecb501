package metrics_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/metric/prometheus"
	"github.com/fairlead-dev/fairlead/rollout/sequential"
	"github.com/fairlead-dev/fairlead/stages"
)

// startNative starts an app that measures by Prometheus's own library, in a native
// histogram. Before each scrape it serves a thousand requests, whose latency is
// log-normal around 0.1 s, but for one that takes no time, and one that is the
// slowest of all so far.
// It returns its address.
func startNative(t *testing.T, slow float64, options client.HistogramOpts) string {
	t.Helper()
	options.Name, options.Help = "latency_seconds", "How long requests took."
	latency := client.NewHistogram(options)
	registry := client.NewRegistry()
	registry.MustRegister(latency)
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(5, 6))
	slowest := 1.0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		slowest *= 1.05
		latency.Observe(slowest)
		latency.Observe(0)
		for range 998 {
			latency.Observe(0.1 * slow * math.Exp(0.3*random.NormFloat64()))
		}
		handler.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// TestNativeHistograms has a real server scrape real native histograms, whose
// buckets aren't equally wide.
func TestNativeHistograms(t *testing.T) {
	const factor = 1.05
	url := startPrometheus(t, map[string]string{
		"stable":  startNative(t, 1, client.HistogramOpts{NativeHistogramBucketFactor: factor}),
		"good":    startNative(t, 1, client.HistogramOpts{NativeHistogramBucketFactor: 1.2}),
		"bounded": startNative(t, 1, client.HistogramOpts{NativeHistogramBucketFactor: factor, NativeHistogramMaxBucketNumber: 40}),
		"bad":     startNative(t, 2, client.HistogramOpts{NativeHistogramBucketFactor: factor, NativeHistogramZeroThreshold: client.NativeHistogramZeroThresholdZero}),
	})
	w := &world{source: source(t, url)}
	require.Eventually(t, func() bool {
		r, err := w.source.Query(t.Context(), metric.Query{Expression: "count(rate(latency_seconds[5s]))"})
		return err == nil && len(r.Samples) == 1 && r.Samples[0].Value == 4
	}, 60*time.Second, 200*time.Millisecond, "every app must have been scraped twice")

	t.Run("are samples with buckets", func(t *testing.T) {
		list := w.ask(t, `latency_seconds{job="stable"}`).Samples
		require.Len(t, list, 1)
		require.NotNil(t, list[0].Histogram)
		assert.WithinDuration(t, time.Now(), list[0].Time, 5*time.Second)
		assert.Zero(t, math.Mod(list[0].Histogram.Total(), 1000), "every request must be in a bucket")
		assert.Greater(t, len(list[0].Histogram.Buckets), 20)
		zero := list[0].Histogram.Buckets[0]
		assert.Less(t, zero.Lower, 0.0)
		assert.Positive(t, zero.Upper)
		for _, b := range list[0].Histogram.Buckets[1:] {
			assert.LessOrEqual(t, b.Upper/b.Lower, factor+1e-9)
		}
	})

	ofRate := func(function string) string {
		return fmt.Sprintf(function, `rate(latency_seconds{job="{{.Release}}"}[{{.Window}}])`)
	}
	for name, test := range map[string]struct {
		expression string
		max        float64
	}{
		"quantile":            {ofRate("histogram_quantile(0.9, sum(%s))"), 0.2},
		"share above a bound": {ofRate("1 - histogram_fraction(0, 0.2, sum(%s))"), 0.05},
	} {
		t.Run("threshold of a "+name, func(t *testing.T) {
			t.Parallel()
			gate, err := metric.NewThreshold(metric.ThresholdConfig{
				Source: w.source, Expression: test.expression, Max: &test.max,
				Traffic: ofRate("histogram_count(sum(%s)) * 10"), MinTraffic: 100,
				Watch: metric.Watch{Interval: 500 * time.Millisecond, Timeout: 30 * time.Second},
			})
			require.NoError(t, err)
			for name, want := range map[string]stages.Verdict{"stable": stages.Pass, "bad": stages.Fail} {
				d, err := gate.Decide(t.Context(), release(name))
				require.NoError(t, err)
				assert.Equal(t, want, d.Verdict, "%s: %+v", name, d)
			}
		})
	}

	side := func(job string) metric.Side {
		return metric.Side{Latency: fmt.Sprintf(`latency_seconds{job=%q}`, job)}
	}
	for canary, want := range map[string]stages.Verdict{"good": stages.Pass, "bounded": stages.Pass, "bad": stages.Fail} {
		for _, baseline := range []string{"stable", ""} {
			t.Run(fmt.Sprintf("canary %s against baseline %q", canary, baseline), func(t *testing.T) {
				t.Parallel()
				c := metric.ComparisonConfig{
					Source: w.source, Canary: side(canary), MaxLatency: 180 * time.Millisecond,
					Quantile: sequential.QuantileConfig{Quantile: 0.9, Tolerance: 0.5},
					Watch:    metric.Watch{Interval: 500 * time.Millisecond, Timeout: 45 * time.Second},
				}
				if baseline != "" {
					c.Baseline, c.MaxLatency = side(baseline), 0
				}
				gate, err := metric.NewComparison(c)
				require.NoError(t, err)
				began := time.Now()
				d, err := gate.Decide(t.Context(), release(canary))
				require.NoError(t, err)
				assert.Equal(t, want, d.Verdict, "%+v", d)
				assert.Empty(t, d.Warnings)
				t.Logf("%s after %s: %v", d.Verdict, time.Since(began).Round(100*time.Millisecond), d.Reasons)
			})
		}
	}

	t.Run("the bounded one got wider buckets", func(t *testing.T) {
		list := w.ask(t, `latency_seconds{job="bounded"}`).Samples
		require.Len(t, list, 1)
		b := list[0].Histogram.Buckets
		assert.Greater(t, b[len(b)-1].Upper/b[len(b)-1].Lower, 1.05)
	})

	for expression, rule := range map[string]string{
		`latency_seconds{job="stable"}`:                                  "unfit-data",     // a histogram is no number
		`histogram_quantile(0.9, sum({__name__=~"latency_seconds|up"}))`: "partial-answer", // the server warns of numbers among them
		`histogram_quantile(0.9, latency_seconds{job="nobody"})`:         "no-data",
	} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			requireNoAnswer(t, w.source, expression, rule)
		})
	}
}

// TestPartialAnswers has a real server fail to read a part of its data, which
// another store should have.
func TestPartialAnswers(t *testing.T) {
	url := startPrometheus(t, map[string]string{"good": startApp(t, 100, 0).address()},
		fmt.Sprintf("remote_read: [{url: 'http://%s/read', read_recent: true}]", freeAddress(t)))
	s := source(t, url)
	var r metric.Result
	require.Eventually(t, func() bool {
		var err error
		r, err = s.Query(t.Context(), metric.Query{Expression: "up"})
		return err == nil && len(r.Samples) == 1
	}, 60*time.Second, 200*time.Millisecond)
	assert.True(t, r.Partial)
	require.NotEmpty(t, r.Warnings)
	assert.Contains(t, r.Warnings[0], "remote")
	requireNoAnswer(t, s, "up", "partial-answer")

	accepting, err := prometheus.New(prometheus.Config{URL: url, AcceptPartial: true})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, accepting.Close()) })
	gate, err := metric.NewThreshold(metric.ThresholdConfig{Source: accepting, Expression: "up", Min: new(1.0), Watch: quick})
	require.NoError(t, err)
	d, err := gate.Decide(t.Context(), release("good"))
	require.NoError(t, err)
	assert.Equal(t, stages.Pass, d.Verdict, "%+v", d)
	require.NotEmpty(t, d.Warnings, "what was accepted is in the decision")
	assert.Equal(t, "source-warning", d.Warnings[0].Rule)
}

// requireNoAnswer checks that a gate can't decide on an expression whatever value it
// has, and says why.
func requireNoAnswer(t *testing.T, s metric.Source, expression, rule string) {
	t.Helper()
	gate, err := metric.NewThreshold(metric.ThresholdConfig{Source: s, Expression: expression, Max: new(math.MaxFloat64), Watch: quick})
	require.NoError(t, err)
	d, err := gate.Decide(t.Context(), release("good"))
	require.NoError(t, err)
	assert.Equal(t, stages.Inconclusive, d.Verdict, "%+v", d)
	require.Len(t, d.Reasons, 1)
	assert.Equal(t, rule, d.Reasons[0].Rule, "%+v", d)
}
