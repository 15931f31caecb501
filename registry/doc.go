// Package registry pins, tags and copies images in OCI registries, attaches
// artifacts to them, and serves a registry of its own.
//
// [Serve] starts a registry that keeps its content on disk; it needs no daemon:
//
//	server, err := registry.Serve(ctx, registry.Options{Dir: "/var/lib/registry"})
//
// The package never moves a tag that it was not told to move, never retries,
// and never writes a credential into an error, a log or a file.
package registry
