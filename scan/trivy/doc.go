// Package trivy scans images with Trivy inside the process: no binary, no
// daemon, no temporary report. It is a module of its own, because Trivy's
// dependencies must not reach those who only deploy.
//
//	scanner, err := trivy.New(trivy.Config{CacheDir: dir})
//	...
//	defer scanner.Close()
//	report, err := scanner.Scan(ctx, image)
//
// # What it guarantees
//
// An image is read by digest, straight from its registry, and everything read
// is compared with that digest: manifest, configuration, and each layer's
// content, before any result about it is kept. Of an index the manifest for
// [Config.Platform] is scanned; the report names the index that was asked about.
//
// The vulnerability database is an OCI artifact. It is downloaded once, shared
// by all scanners and processes that use the same cache directory, and checked
// before it is used; see [DatabaseError]. With [Config.Offline] the network is
// used for the image alone.
//
// Results about layers are cached in files that are only ever replaced whole, so
// there is no cache lock for concurrent scans and processes to fail on.
//
// It never resolves a tag of an image, never looks into a container engine,
// never scans for secrets or misconfiguration, and never writes to standard
// output or standard error.
//
// # Building
//
// Trivy v0.72 needs the second version of encoding/json. Under Go 1.26 that is
// an experiment; without it, the build stops with
//
//	build constraints exclude all Go files in .../encoding/json/jsontext
//
// Set GOEXPERIMENT=jsonv2 for every go command. Go 1.27 needs nothing.
//
// # Trivy's process-wide state
//
// Trivy keeps some of its state in package variables, its analyzers among them,
// so the scans of one process take turns. Trivy also replaces the default logger of log/slog with one that
// only keeps records in memory; importing this package puts an ordinary one
// back, and sends Trivy's messages to [Config.Logger] where they can be told
// apart by scan. A program that sets its own default logger is not affected.
package trivy
