package buildkit

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/grpchijack"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
)

const pushedDigest = "sha256:93c023e86e858bbc73acfe0caf1f27943588061dfc1389f73832143d72a9d684"

// fakeDaemon is the part of BuildKit's control server that a build talks to.
type fakeDaemon struct {
	controlapi.UnimplementedControlServer

	// solve stands for the build; tell reports its progress.
	solve func(ctx context.Context, req *controlapi.SolveRequest, tell func(*client.SolveStatus)) (map[string]string, error)

	mu      sync.Mutex
	builds  map[string]chan *client.SolveStatus
	address string
}

// startFake serves a daemon whose builds are done by solve; nil is one that
// pushes without a word.
func startFake(t *testing.T, solve func(context.Context, *controlapi.SolveRequest, func(*client.SolveStatus)) (map[string]string, error)) *fakeDaemon {
	if solve == nil {
		solve = func(context.Context, *controlapi.SolveRequest, func(*client.SolveStatus)) (map[string]string, error) {
			return map[string]string{"containerimage.digest": pushedDigest}, nil
		}
	}
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	d := &fakeDaemon{solve: solve, builds: make(map[string]chan *client.SolveStatus), address: "unix://" + socket}
	server := grpc.NewServer(grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor), grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor))
	controlapi.RegisterControlServer(server, d)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; !errors.Is(err, grpc.ErrServerStopped) { // it may not have begun yet
			require.NoError(t, err)
		}
	})
	return d
}

func (d *fakeDaemon) ListWorkers(context.Context, *controlapi.ListWorkersRequest) (*controlapi.ListWorkersResponse, error) {
	return &controlapi.ListWorkersResponse{}, nil
}

// build is the progress of one build, made by whoever asks first.
func (d *fakeDaemon) build(ref string) chan *client.SolveStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.builds[ref] == nil {
		d.builds[ref] = make(chan *client.SolveStatus)
	}
	return d.builds[ref]
}

func (d *fakeDaemon) Solve(ctx context.Context, req *controlapi.SolveRequest) (*controlapi.SolveResponse, error) {
	records := d.build(req.Ref)
	defer close(records)
	response, err := d.solve(ctx, req, func(s *client.SolveStatus) {
		select {
		case records <- s:
		case <-ctx.Done():
		}
	})
	if err != nil {
		return nil, err
	}
	return &controlapi.SolveResponse{ExporterResponse: response}, nil
}

func (d *fakeDaemon) Status(req *controlapi.StatusRequest, stream controlapi.Control_StatusServer) error {
	for {
		select {
		case s, open := <-d.build(req.Ref):
			if !open {
				return nil
			}
			for _, part := range s.Marshal() {
				if err := stream.Send(part); err != nil {
					return err
				}
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (d *fakeDaemon) Session(stream controlapi.Control_SessionServer) error {
	conn, _, _ := grpchijack.Hijack(stream)
	_, err := io.Copy(io.Discard, conn) // it asks nothing back
	return err
}

func timeAt(seconds float64) *time.Time {
	at := time.Unix(1_700_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
	return &at
}
