package sandbox

import (
	"context"
	_ "embed"
	"fmt"
)

const (
	prometheusName      = "prometheus"
	prometheusNamespace = "fairlead-prometheus"
	prometheusPort      = "9090"
)

//go:embed prometheus.yaml
var prometheusManifests string

// RunPrometheus runs Prometheus in the cluster, as Config.Prometheus does, and
// returns once it answers at the URL. Calling it again changes nothing.
func (b *Sandbox) RunPrometheus(ctx context.Context) error {
	if b.Prometheus != "" {
		return nil
	}
	image, err := b.maker.PushPrometheus(ctx, b.Registry)
	if err != nil {
		return err
	}
	access, err := b.run(ctx, prometheusManifests, image)
	if err != nil {
		return fmt.Errorf("run Prometheus: %w", err)
	}
	service, err := serveService(ctx, access, prometheusNamespace, prometheusName, prometheusPort)
	if err != nil {
		return err
	}
	b.closeWith(service.Close)
	if err := awaitOK(ctx, service.URL+"/-/ready"); err != nil {
		return fmt.Errorf("run Prometheus: %w", err)
	}
	b.Prometheus = service.URL
	return nil
}
