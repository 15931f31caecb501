package grpcprobe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/smoke"
	"github.com/fairlead-dev/fairlead/stages"
)

// Config configures a smoke test over gRPC; see [New].
type Config struct {
	// REST is how to reach the cluster. It is copied. Required, unless Cluster is set.
	REST *rest.Config
	// Cluster is a connection to share, see [rollout.Connect]. Closing the test leaves
	// it open.
	Cluster *rollout.Cluster
	// Target is whom to ask.
	Target smoke.Target
	// Service is the name that the health service is asked for. Default "", which is
	// the server as a whole. It must be serving.
	Service string
	// Call, where set, is called in the place of the health check. Its message is
	// judged by Expect as the body is. An error is a request that failed; it is shown,
	// so it must be free of secrets. It must return soon after its context is done.
	Call func(ctx context.Context, conn grpc.ClientConnInterface) (message string, err error)
	// Metadata, where set, returns what is sent along, such as credentials. It is
	// shown nowhere; without TLS it travels as it is, though only from the kubelet to
	// the pod. A server that repeats it in its answer gives it away.
	Metadata func(ctx context.Context) (metadata.MD, error)
	// TLS, where set, says how to speak TLS.
	TLS *smoke.TLS
	// Expect is what must be answered; there is no Status. The health check's body is
	// its status, "SERVING".
	Expect smoke.Expect
	// RequestTimeout bounds one request. Default 5 seconds.
	RequestTimeout time.Duration
	// Timeout bounds everything. Default 1 minute.
	Timeout time.Duration
	// Redact masks secrets in what is shown. It must be safe for concurrent use.
	Redact func(text string) string
}

// New returns a smoke test that asks a ready pod of the release over gRPC. It asks
// the cluster nothing yet. Its error matches [stages.ErrInvalid].
func New(config Config) (*smoke.Test, error) {
	p := &probe{config}
	switch {
	case config.Expect.Status != 0:
		return nil, fmt.Errorf("smoke test over gRPC: %w: gRPC has no status to expect: an error is one, and Call may make of it what it likes", stages.ErrInvalid)
	case config.Call != nil && config.Service != "":
		return nil, fmt.Errorf("smoke test over gRPC: %w: Call and Service exclude each other", stages.ErrInvalid)
	}
	if config.TLS != nil {
		if _, err := config.TLS.Config("host"); err != nil {
			return nil, fmt.Errorf("smoke test over gRPC: %w", err)
		}
	}
	return smoke.NewDial(smoke.DialConfig{
		REST: config.REST, Cluster: config.Cluster, Name: p.name(), Target: config.Target, Try: p.try, Expect: config.Expect,
		RequestTimeout: config.RequestTimeout, Timeout: config.Timeout, Redact: config.Redact,
	})
}

type probe struct{ Config }

func (p *probe) name() string {
	switch {
	case p.Call != nil:
		return "gRPC call"
	case p.Service != "":
		return "gRPC health of " + p.Service
	}
	return "gRPC health"
}

func (p *probe) try(ctx context.Context, to smoke.Endpoint) (a smoke.Answer, err error) {
	transport := insecure.NewCredentials()
	if p.TLS != nil {
		c, err := p.TLS.Config(to.Host)
		if err != nil {
			return a, err
		}
		transport = credentials.NewTLS(c)
	}
	conn, err := grpc.NewClient("passthrough:///"+to.Host,
		grpc.WithTransportCredentials(transport), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return to.Dial(ctx) }))
	if err != nil {
		return a, fmt.Errorf("configure the connection: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if p.Metadata != nil {
		md, err := p.Metadata(ctx)
		if err != nil {
			return a, fmt.Errorf("get the metadata: %w", err)
		}
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	if p.Call != nil {
		message, err := p.Call(ctx, conn)
		return smoke.Answer{Body: []byte(message)}, err
	}
	return p.health(ctx, conn)
}

// health asks the standard health service.
func (p *probe) health(ctx context.Context, conn grpc.ClientConnInterface) (smoke.Answer, error) {
	began := time.Now()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: p.Service})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return smoke.Answer{}, fmt.Errorf("the server has no health service, grpc.health.v1.Health; use Call: %w", err)
	case status.Code(err) == codes.NotFound:
		return smoke.Answer{}, fmt.Errorf("the health service doesn't know the service %q: %w", p.Service, err)
	case err != nil:
		return smoke.Answer{}, fmt.Errorf("check the health: %w", err)
	}
	word := resp.GetStatus().String()
	a := smoke.Answer{Body: []byte(word), Latency: time.Since(began), Message: word}
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return a, fmt.Errorf("the health is %s, not SERVING", word)
	}
	return a, nil
}
