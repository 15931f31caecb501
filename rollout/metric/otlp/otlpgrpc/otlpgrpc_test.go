package otlpgrpc_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	api "go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/metric/otlp"
	"github.com/fairlead-dev/fairlead/rollout/metric/otlp/otlpgrpc"
)

// serve starts a server for a receiver, and returns its address.
func serve(t *testing.T) (*otlp.Receiver, string) {
	t.Helper()
	receiver, err := otlp.New(otlp.Config{Keep: []string{"requests", "latency"}})
	require.NoError(t, err)
	server := grpc.NewServer()
	otlpgrpc.Register(server, receiver)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		assert.NoError(t, <-done)
	})
	return receiver, listener.Addr().String()
}

func client(t *testing.T, address string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient(address, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, connection.Close()) })
	return connection
}

func query(t *testing.T, r metric.Source, expression string) metric.Sample {
	t.Helper()
	result, err := r.Query(t.Context(), metric.Query{Expression: expression})
	require.NoError(t, err)
	require.Len(t, result.Samples, 1)
	return result.Samples[0]
}

// TestRealExporter takes what the SDK of OpenTelemetry sends, in both
// temporalities.
func TestRealExporter(t *testing.T) {
	for name, temporality := range map[string]metricdata.Temporality{"cumulative": metricdata.CumulativeTemporality, "delta": metricdata.DeltaTemporality} {
		t.Run(name, func(t *testing.T) {
			r, address := serve(t)
			exporter, err := otlpmetricgrpc.New(t.Context(), otlpmetricgrpc.WithEndpoint(address), otlpmetricgrpc.WithInsecure(), otlpmetricgrpc.WithCompressor(gzip.Name),
				otlpmetricgrpc.WithTemporalitySelector(func(sdk.InstrumentKind) metricdata.Temporality { return temporality }),
				otlpmetricgrpc.WithAggregationSelector(func(kind sdk.InstrumentKind) sdk.Aggregation {
					if kind == sdk.InstrumentKindHistogram {
						return sdk.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}
					}
					return sdk.DefaultAggregationSelector(kind)
				}))
			require.NoError(t, err)
			provider := sdk.NewMeterProvider(sdk.WithReader(sdk.NewPeriodicReader(exporter)))
			t.Cleanup(func() { assert.NoError(t, provider.Shutdown(context.WithoutCancel(t.Context()))) })
			requests, err := provider.Meter("app").Int64Counter("requests")
			require.NoError(t, err)
			latency, err := provider.Meter("app").Float64Histogram("latency")
			require.NoError(t, err)
			for i := range 3 {
				requests.Add(t.Context(), 5, api.WithAttributes(attribute.Int("code", 200)))
				latency.Record(t.Context(), 0)
				latency.Record(t.Context(), 0.001)
				latency.Record(t.Context(), float64(i)) // the third makes the buckets coarser
				require.NoError(t, provider.ForceFlush(t.Context()))
			}
			assert.InDelta(t, 15, query(t, r, `requests{code="200"}`).Value, 0)
			counts := []float64{}
			for _, b := range query(t, r, "latency").Histogram.Buckets {
				counts = append(counts, b.Count)
			}
			assert.Equal(t, []float64{4, 3, 1, 1}, counts, "of 0, 0.001, 1 and 2")
		})
	}
}

// points is a request with a point of a sum, of which the receiver keeps nothing
// unless its temporality is known.
func points(temporality metrics.AggregationTemporality, label string) *collector.ExportMetricsServiceRequest {
	sum := &metrics.Sum{AggregationTemporality: temporality, DataPoints: []*metrics.NumberDataPoint{{
		Value:      &metrics.NumberDataPoint_AsInt{AsInt: 1},
		Attributes: []*common.KeyValue{{Key: "label", Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: label}}}},
	}}}
	return &collector.ExportMetricsServiceRequest{ResourceMetrics: []*metrics.ResourceMetrics{{ScopeMetrics: []*metrics.ScopeMetrics{{
		Metrics: []*metrics.Metric{{Name: "requests", Data: &metrics.Metric_Sum{Sum: sum}}},
	}}}}}
}

func TestRejectedPointsAreTold(t *testing.T) {
	_, address := serve(t)
	service := collector.NewMetricsServiceClient(client(t, address))
	response, err := service.Export(t.Context(), points(metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_UNSPECIFIED, "x"))
	require.NoError(t, err)
	assert.EqualValues(t, 1, response.GetPartialSuccess().GetRejectedDataPoints())
	assert.Contains(t, response.GetPartialSuccess().GetErrorMessage(), "temporality")
	response, err = service.Export(t.Context(), points(metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA, "x"))
	require.NoError(t, err)
	assert.Nil(t, response.GetPartialSuccess())
}

func TestMessagesAreBounded(t *testing.T) {
	r, address := serve(t)
	service := collector.NewMetricsServiceClient(client(t, address))
	large := points(metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA, strings.Repeat("x", 5<<20))
	for name, options := range map[string][]grpc.CallOption{"plain": nil, "a bomb": {grpc.UseCompressor(gzip.Name)}} {
		_, err := service.Export(t.Context(), large, options...)
		assert.Equal(t, codes.ResourceExhausted, status.Code(err), "%s: %v", name, err)
	}
	result, err := r.Query(t.Context(), metric.Query{Expression: "requests"})
	require.NoError(t, err)
	assert.Empty(t, result.Samples)
}

// raw sends bytes as they are.
type raw struct{ encoding.Codec }

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal([]byte, any) error   { return nil }
func (raw) Name() string                  { return "proto" }

func TestMalformedMessagesAreRefused(t *testing.T) {
	_, address := serve(t)
	connection := client(t, address, grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	message, reply := []byte{0x0a, 0xff}, []byte{}
	err := connection.Invoke(t.Context(), "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", &message, &reply)
	assert.Equal(t, codes.Internal, status.Code(err), "%v", err)
}
