package registry

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/fairlead-dev/fairlead/stages"
)

// Basic returns a keychain that logs in to one registry, named as in image
// references ("ghcr.io", "localhost:5000"), and is anonymous elsewhere. The
// password stays in memory and is not printed with the keychain.
func Basic(host, username, password string) (authn.Keychain, error) {
	if err := stages.ValidateRepository(withPort(host) + "/any"); err != nil {
		return nil, fmt.Errorf("%w: registry login: the host must be as in image references, without scheme or path", stages.ErrInvalid)
	}
	if username == "" || password == "" {
		return nil, fmt.Errorf("%w: registry login for %s needs a user name and a password", stages.ErrInvalid, host)
	}
	return &basic{host: host, username: username, password: password}, nil
}

// DockerConfig returns the keychain that the docker and podman command lines
// share: it reads the user's configuration files, where the environment says
// they are, and runs the credential helpers that they name.
func DockerConfig() authn.Keychain { return authn.DefaultKeychain }

type anonymous struct{}

// Resolve knows no credentials.
func (anonymous) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }

type basic struct{ host, username, password string }

// Resolve implements [authn.Keychain].
func (b *basic) Resolve(r authn.Resource) (authn.Authenticator, error) {
	host := r.RegistryStr()
	if host != b.host && (b.host != "docker.io" || host != "index.docker.io") {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: b.username, Password: b.password}), nil
}

// Format keeps the password out of every verb of package fmt.
func (b *basic) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "login for "+b.host) }

// secrets are what must not appear in an error.
type secrets struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

func (s *secrets) add(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[string]struct{}{}
	}
	for _, v := range values {
		if v != "" {
			s.seen[v] = struct{}{}
		}
	}
}

// remove replaces each secret in text.
func (s *secrets) remove(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The longest first: one may be part of another.
	for _, v := range slices.SortedFunc(maps.Keys(s.seen), func(a, b string) int { return cmp.Compare(len(b), len(a)) }) {
		text = strings.ReplaceAll(text, v, "[redacted]")
	}
	return text
}

// recordingKeychain notes the secrets that a keychain hands out.
type recordingKeychain struct {
	inner   authn.Keychain
	secrets *secrets
}

// Resolve is ResolveContext for callers without a context.
func (k recordingKeychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r)
}

// ResolveContext implements [authn.ContextKeychain].
func (k recordingKeychain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	auth, err := authn.Resolve(ctx, k.inner, r)
	if err != nil {
		return nil, &authError{err}
	}
	return recordingAuth{auth, k.secrets}, nil
}

type recordingAuth struct {
	inner   authn.Authenticator
	secrets *secrets
}

// Authorization is AuthorizationContext for callers without a context.
func (a recordingAuth) Authorization() (*authn.AuthConfig, error) {
	return a.AuthorizationContext(context.Background())
}

// AuthorizationContext implements [authn.ContextAuthenticator].
func (a recordingAuth) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	cfg, err := authn.Authorization(ctx, a.inner)
	if err != nil {
		return nil, &authError{err}
	}
	a.secrets.add(cfg.Password, cfg.Auth, cfg.IdentityToken, cfg.RegistryToken)
	if cfg.Username != "" || cfg.Password != "" {
		a.secrets.add(base64.StdEncoding.EncodeToString([]byte(cfg.Username + ":" + cfg.Password)))
	}
	return cfg, nil
}

// authError is a keychain that failed, as against a registry that refused.
type authError struct{ err error }

func (e *authError) Error() string { return "find credentials: " + e.err.Error() }
func (e *authError) Unwrap() error { return e.err }
