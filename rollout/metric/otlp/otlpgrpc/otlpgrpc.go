// Package otlpgrpc receives metrics by OTLP/gRPC, for a receiver of package otlp:
//
//	receiver, err := otlp.New(otlp.Config{Keep: []string{"http.server.request.duration"}})
//	…
//	server := grpc.NewServer(grpc.Creds(…))
//	otlpgrpc.Register(server, receiver)
//	go server.Serve(listener) // port 4317 by convention
//
// Messages may be compressed by gzip. How large they may be, decompressed, is up to
// the server: 4 MiB, unless [grpc.MaxRecvMsgSize] says otherwise. The rest is as
// with OTLP/HTTP.
//
// It listens nowhere by itself and authenticates nobody: give the server an
// interceptor. It is a package of its own so that only its users compile gRPC.
package otlpgrpc

import (
	"context"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // senders may choose it

	"github.com/fairlead-dev/fairlead/rollout/metric/otlp"
)

// Register has a server take in metrics for a receiver.
func Register(server grpc.ServiceRegistrar, receiver *otlp.Receiver) {
	collector.RegisterMetricsServiceServer(server, service{receiver: receiver})
}

type service struct {
	collector.UnimplementedMetricsServiceServer
	receiver *otlp.Receiver
}

// Export takes in a request.
func (s service) Export(_ context.Context, request *collector.ExportMetricsServiceRequest) (*collector.ExportMetricsServiceResponse, error) {
	response := &collector.ExportMetricsServiceResponse{}
	if rejected := s.receiver.Take(request.GetResourceMetrics()); rejected.Points > 0 {
		response.PartialSuccess = &collector.ExportMetricsPartialSuccess{RejectedDataPoints: rejected.Points, ErrorMessage: rejected.Reason}
	}
	return response, nil
}
