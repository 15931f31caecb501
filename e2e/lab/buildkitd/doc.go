// Package buildkitd gives a test or a demonstration a real BuildKit to build
// images with.
//
// Where Docker works, its engine's own BuildKit is used and nothing is started.
// Elsewhere, on Linux and as root, the daemon is built from its Go module, which
// takes a minute or two the first time, and run with runc until Close:
//
//	daemon, err := buildkitd.Start(ctx, buildkitd.Config{Progress: os.Stderr})
//	if err != nil { ... }
//	defer daemon.Close()
//	builder, err := buildkit.New(buildkit.Config{Address: daemon.Address(), ...})
//
// Program and build cache stay in the user's cache directory. Daemons that run
// at the same time have caches of their own. A daemon doesn't outlive the process
// that started it, however that ends. There is no rootless mode: without root,
// install Docker.
package buildkitd
