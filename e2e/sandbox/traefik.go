package sandbox

import (
	"context"
	_ "embed"
	"fmt"
)

// Where Traefik is, and the Gateway that HTTPRoutes of any namespace name.
const (
	TraefikNamespace = "fairlead-traefik"
	TraefikGateway   = "traefik"

	traefikPort = "8000"
)

//go:embed traefik.yaml
var traefikManifests string

// RunTraefik runs Traefik in the cluster, which must have the definitions of the
// Gateway API, and returns the URL at which this machine reaches it once it
// answers. It serves HTTPRoutes, and Ingresses of the class nginx as ingress-nginx
// does.
func (b *Sandbox) RunTraefik(ctx context.Context) (string, error) {
	image, err := b.maker.PushTraefik(ctx, b.Registry)
	if err != nil {
		return "", err
	}
	access, err := b.run(ctx, traefikManifests, image)
	if err != nil {
		return "", fmt.Errorf("run Traefik: %w", err)
	}
	// A node port refuses connections until there is an endpoint.
	service, err := serveService(ctx, access, TraefikNamespace, "traefik", traefikPort)
	if err != nil {
		return "", err
	}
	b.closeWith(service.Close)
	if err := awaitOK(ctx, service.URL+"/ping"); err != nil {
		return "", fmt.Errorf("run Traefik: %w", err)
	}
	return b.ServiceURL(ctx, TraefikNamespace, "traefik")
}
