package lab

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// prometheus is version 3.13.0.
var prometheus = server{
	name:    "prometheus",
	public:  "docker.io/prom/prometheus@sha256:c6b27ea434f8389bfe233fbc7be381cf50587c286e871bc842008f5a1b1908a7",
	program: "github.com/prometheus/prometheus/cmd/prometheus",
	// They leave out of its service discoveries all but Kubernetes', whose
	// dependencies the node image has as well.
	tags:    "remove_all_sd,enable_kubernetes_sd",
	usually: 2 * time.Minute,
}

// PushPrometheus pushes an image of the Prometheus server to a registry, such as
// localhost:5000, as lab/prometheus:latest, and returns the reference pinned by
// digest. The server is the image's entrypoint, and runs as nobody. Where images
// can be pulled it is Prometheus's own; elsewhere it is built from source, without
// the web interface.
func (l *Lab) PushPrometheus(ctx context.Context, registry string) (string, error) {
	return l.push(ctx, registry, prometheus)
}

// Prometheus returns the path of the Prometheus server's program, for tests that
// need no cluster. It is that of the image that PushPrometheus pushes, and runs on
// Linux only.
func (l *Lab) Prometheus(ctx context.Context) (program string, err error) {
	if runtime.GOOS != "linux" {
		return "", fmt.Errorf("lab: the Prometheus server runs on Linux, not on %s", runtime.GOOS)
	}
	err = l.locked(ctx, prometheus.name, func() error {
		image, err := l.serverImageLocked(ctx, prometheus)
		if err != nil {
			return err
		}
		if program, err = l.entrypoint(image); err != nil {
			return fmt.Errorf("lab: take Prometheus out of its image: %w", err)
		}
		return nil
	})
	return program, err
}
