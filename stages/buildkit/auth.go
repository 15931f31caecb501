package buildkit

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc"
)

// Credentials let somebody into a registry. The zero value is nobody.
type Credentials struct {
	// Username and Password are for basic authentication.
	Username, Password string
	// IdentityToken, where a registry hands out such, takes their place.
	IdentityToken string
}

// Auth returns the credentials for a registry, named by host and, where it isn't
// the usual one, port; Docker Hub is "docker.io". The zero Credentials mean
// anonymous access. It may be called from several goroutines at once.
type Auth func(ctx context.Context, host string) (Credentials, error)

// StaticAuth returns an Auth that knows the given hosts and is anonymous to all
// others.
func StaticAuth(byHost map[string]Credentials) Auth {
	known := make(map[string]Credentials, len(byHost))
	for host, credentials := range byHost {
		known[host] = credentials
	}
	return func(_ context.Context, host string) (Credentials, error) { return known[host], nil }
}

// authServer answers the daemon's questions for credentials during a build. It
// leaves the exchange of tokens to the daemon, as the embedded server's refusals
// ask it to.
type authServer struct {
	auth.UnimplementedAuthServer
	lookup   Auth
	redactor *redactor
}

// Register makes the server part of a session.
func (s *authServer) Register(server *grpc.Server) { auth.RegisterAuthServer(server, s) }

// Credentials returns what the caller's Auth knows. An identity token travels,
// as Docker's own clients send it, as a secret without a user.
func (s *authServer) Credentials(ctx context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	found, err := s.find(ctx, req.Host)
	if err != nil {
		return nil, err
	}
	if found.IdentityToken != "" {
		return &auth.CredentialsResponse{Secret: found.IdentityToken}, nil
	}
	return &auth.CredentialsResponse{Username: found.Username, Secret: found.Password}, nil
}

// find asks the caller's Auth, and has its answer kept out of all that is told.
func (s *authServer) find(ctx context.Context, host string) (Credentials, error) {
	if s.lookup == nil {
		return Credentials{}, nil
	}
	if host == "registry-1.docker.io" {
		host = "docker.io"
	}
	found, err := s.lookup(ctx, host)
	if err != nil {
		return Credentials{}, fmt.Errorf("find credentials for %s: %w", host, err)
	}
	s.redactor.add(found.Password)
	s.redactor.add(found.IdentityToken)
	return found, nil
}
