package otlp_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	api "go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/metric/otlp"
	"github.com/fairlead-dev/fairlead/rollout/sequential"
	"github.com/fairlead-dev/fairlead/stages"
)

var temporalities = map[string]metricdata.Temporality{"cumulative": metricdata.CumulativeTemporality, "delta": metricdata.DeltaTemporality}

// provider is OpenTelemetry's SDK, which sends to a receiver over HTTP when it is
// flushed.
func provider(t *testing.T, r *otlp.Receiver, temporality metricdata.Temporality, options ...sdk.Option) *sdk.MeterProvider {
	t.Helper()
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	exporter, err := otlpmetrichttp.New(t.Context(),
		otlpmetrichttp.WithEndpointURL(server.URL+"/v1/metrics"), otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression),
		otlpmetrichttp.WithTemporalitySelector(func(sdk.InstrumentKind) metricdata.Temporality { return temporality }))
	require.NoError(t, err)
	p := sdk.NewMeterProvider(append(options, sdk.WithReader(sdk.NewPeriodicReader(exporter)))...)
	t.Cleanup(func() { assert.NoError(t, p.Shutdown(context.WithoutCancel(t.Context()))) })
	return p
}

// exponentially has the SDK measure in exponential histograms of some buckets.
func exponentially(maxSize int32) sdk.Option {
	return sdk.WithView(sdk.NewView(sdk.Instrument{Kind: sdk.InstrumentKindHistogram},
		sdk.Stream{Aggregation: sdk.AggregationBase2ExponentialHistogram{MaxSize: maxSize, MaxScale: 20}}))
}

// TestRealExporter takes what the SDK of OpenTelemetry sends, in both
// temporalities.
func TestRealExporter(t *testing.T) {
	for name, temporality := range temporalities {
		t.Run(name, func(t *testing.T) {
			r := receiver(t, nil)
			provider := provider(t, r, temporality)
			meter := provider.Meter("app")
			requests, err := meter.Int64Counter("requests")
			require.NoError(t, err)
			latency, err := meter.Float64Histogram("latency", api.WithExplicitBucketBoundaries(0.1, 1))
			require.NoError(t, err)
			ok, failed := api.WithAttributes(attribute.Int("code", 200)), api.WithAttributes(attribute.Int("code", 500))
			for range 3 {
				requests.Add(t.Context(), 5, ok)
				requests.Add(t.Context(), 1, failed)
				latency.Record(t.Context(), 0.05)
				latency.Record(t.Context(), 3)
				require.NoError(t, provider.ForceFlush(t.Context()))
			}
			list := query(t, r, `requests{code=~"2..",otel.scope.name="app"}`)
			require.Len(t, list, 1)
			assert.InDelta(t, 15, list[0].Value, 0)
			assert.False(t, list[0].Start.IsZero())
			list = query(t, r, "latency")
			require.Len(t, list, 1)
			counts := []float64{}
			for _, b := range list[0].Histogram.Buckets {
				counts = append(counts, b.Count)
			}
			assert.Equal(t, []float64{3, 0, 3}, counts)
		})
	}
}

// TestRealExponentialHistograms holds the buckets to the values that were recorded,
// whose range grows, so that the SDK makes its histogram coarser again and again.
func TestRealExponentialHistograms(t *testing.T) {
	for name, temporality := range temporalities {
		t.Run(name, func(t *testing.T) {
			r := receiver(t, nil)
			provider := provider(t, r, temporality, exponentially(20))
			latency, err := provider.Meter("app").Float64Histogram("latency")
			require.NoError(t, err)
			random := rand.New(rand.NewPCG(1, 2))
			var recorded, widths []float64
			for _, spread := range []float64{0.001, 0.1, 1, 3, 0.01} {
				recorded = append(recorded, 0)
				for range 200 {
					recorded = append(recorded, 0.1*math.Exp(spread*random.NormFloat64()))
				}
				for _, value := range recorded[len(recorded)-201:] {
					latency.Record(t.Context(), value)
				}
				require.NoError(t, provider.ForceFlush(t.Context()))
				got := buckets(t, r)
				for _, b := range got {
					inside := 0
					for _, value := range recorded {
						if value > b.Lower && value <= b.Upper {
							inside++
						}
					}
					assert.InDelta(t, inside, b.Count, 0, "from %v to %v", b.Lower, b.Upper)
				}
				assert.InDelta(t, len(recorded), query(t, r, "latency")[0].Histogram.Total(), 0)
				last := got[len(got)-1]
				widths = append(widths, last.Upper/last.Lower)
			}
			assert.Less(t, widths[0], 1.001)
			assert.Greater(t, widths[4], 1.5, "the range of the values must have made the buckets wide")
			assert.True(t, slices.IsSorted(widths), "%v", widths)
		})
	}
}

// TestGateOnExponentialHistograms compares two services whose buckets aren't equally
// wide.
func TestGateOnExponentialHistograms(t *testing.T) {
	for name, temporality := range temporalities {
		for canary, want := range map[float64]stages.Verdict{1: stages.Pass, 2: stages.Fail} {
			t.Run(fmt.Sprintf("%s, %v times as slow", name, canary), func(t *testing.T) {
				r := receiver(t, nil)
				random := rand.New(rand.NewPCG(3, 4))
				// serve returns a function that has a service record a thousand requests.
				serve := func(track string, slow float64, maxSize int32) func() {
					p := provider(t, r, temporality, exponentially(maxSize), sdk.WithResource(resource.NewSchemaless(attribute.String("track", track))))
					latency, err := p.Meter("app").Float64Histogram("latency")
					require.NoError(t, err)
					rounds := 0.0
					return func() {
						rounds++
						for range 1000 {
							latency.Record(t.Context(), 0.1*slow*math.Exp(0.2*random.NormFloat64()))
						}
						latency.Record(t.Context(), 0.1/rounds)
						require.NoError(t, p.ForceFlush(t.Context()))
					}
				}
				stable := serve("stable", 1, 160)
				next := serve("canary", canary, 60)
				stable()
				next()
				looks := 0
				gate, err := metric.NewComparison(metric.ComparisonConfig{
					// More requests come in before each look but the first.
					Source: metric.SourceFunc(func(ctx context.Context, q metric.Query) (metric.Result, error) {
						if looks++; looks%2 == 1 {
							stable()
							next()
						}
						return r.Query(ctx, q)
					}),
					Canary: metric.Side{Latency: `latency{track="canary"}`}, Baseline: metric.Side{Latency: `latency{track="stable"}`},
					Quantile: sequential.QuantileConfig{Quantile: 0.9, Tolerance: 0.5},
					Watch:    metric.Watch{Interval: time.Millisecond, Timeout: 20 * time.Second},
				})
				require.NoError(t, err)
				d, err := gate.Decide(t.Context(), stages.Release{Name: "shop", Namespace: "prod", Revision: 2, Previous: 1, Deployed: time.Now()})
				require.NoError(t, err)
				assert.Equal(t, want, d.Verdict, "%+v", d)
				assert.Empty(t, d.Warnings, "coarser buckets hold all that was counted in finer ones")
			})
		}
	}
}

// TestLatePods compares while the metrics of a pod arrive for the first time, which
// has failed for long before.
func TestLatePods(t *testing.T) {
	for name, temporality := range temporalities {
		t.Run(name, func(t *testing.T) {
			r := receiver(t, nil)
			// serve returns a function that has a pod serve a thousand requests, and export.
			serve := func(pod string, code int) (served func(), export func()) {
				p := provider(t, r, temporality, sdk.WithResource(resource.NewSchemaless(attribute.String("pod", pod))))
				requests, err := p.Meter("app").Int64Counter("requests")
				require.NoError(t, err)
				return func() { requests.Add(t.Context(), 1000, api.WithAttributes(attribute.Int("code", code))) },
					func() { require.NoError(t, p.ForceFlush(t.Context())) }
			}
			served, export := serve("early", 200)
			fails, exportLate := serve("late", 500)
			served()
			export()
			for range 100 {
				fails()
			}
			looks := 0
			gate, err := metric.NewComparison(metric.ComparisonConfig{
				Source: metric.SourceFunc(func(ctx context.Context, q metric.Query) (metric.Result, error) {
					if looks++; looks > 1 {
						exportLate()
						served()
						export()
					}
					return r.Query(ctx, q)
				}),
				Canary: metric.Side{Requests: "requests"}, FailureLabel: "code", FailurePattern: "5..", MaxFailureRate: 0.1,
				Watch: metric.Watch{Interval: time.Millisecond, Timeout: 20 * time.Second},
			})
			require.NoError(t, err)
			d, err := gate.Decide(t.Context(), stages.Release{Name: "shop", Namespace: "prod", Revision: 2, Previous: 1, Deployed: time.Now()})
			require.NoError(t, err)
			assert.Equal(t, stages.Pass, d.Verdict, "%+v", d)
		})
	}
}
