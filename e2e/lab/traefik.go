package lab

import (
	"context"
	"time"
)

// traefik is version 3.7.6.
var traefik = server{
	name:    "traefik",
	public:  "docker.io/library/traefik:v3.7.6",
	program: "github.com/traefik/traefik/v3/cmd/traefik",
	usually: 3 * time.Minute,
}

// PushTraefik pushes an image of the Traefik proxy to a registry, such as
// localhost:5000, as lab/traefik:latest, and returns the reference pinned by
// digest. The proxy is the image's entrypoint. Where images can be pulled it is
// Traefik's own, which runs as root unless told otherwise; elsewhere it is built
// from source, without the web interface and without the client for certificates.
func (l *Lab) PushTraefik(ctx context.Context, registry string) (string, error) {
	return l.push(ctx, registry, traefik)
}
