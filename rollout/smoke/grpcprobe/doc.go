// Package grpcprobe is the smoke test of a gRPC service: by port-forward, from
// here, to a ready pod that runs the released image. It asks the standard health
// service, or calls a function of yours with the connection.
//
//	test, err := grpcprobe.New(grpcprobe.Config{REST: restConfig, Target: smoke.Target{Port: "grpc"}})
//	…
//	verification, err := test.Verify(ctx, release)
//
// It creates nothing in the cluster, and needs the same rights as
// [smoke.NewHTTP]. It is a package of its own so that only its users compile gRPC.
package grpcprobe
