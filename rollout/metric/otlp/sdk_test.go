package otlp_test

import (
	"context"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	api "go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// TestRealExporter takes what the SDK of OpenTelemetry sends, in both
// temporalities.
func TestRealExporter(t *testing.T) {
	for name, temporality := range map[string]metricdata.Temporality{"cumulative": metricdata.CumulativeTemporality, "delta": metricdata.DeltaTemporality} {
		t.Run(name, func(t *testing.T) {
			r := receiver(t, nil)
			server := httptest.NewServer(r)
			t.Cleanup(server.Close)
			exporter, err := otlpmetrichttp.New(t.Context(),
				otlpmetrichttp.WithEndpointURL(server.URL+"/v1/metrics"), otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression),
				otlpmetrichttp.WithTemporalitySelector(func(sdk.InstrumentKind) metricdata.Temporality { return temporality }))
			require.NoError(t, err)
			provider := sdk.NewMeterProvider(sdk.WithReader(sdk.NewPeriodicReader(exporter)))
			t.Cleanup(func() { assert.NoError(t, provider.Shutdown(context.WithoutCancel(t.Context()))) })
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
