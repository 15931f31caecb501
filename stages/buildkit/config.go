package buildkit

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/session/secrets/secretsprovider"

	"github.com/fairlead-dev/fairlead/stages"
)

// Config says what to build and where. Address and Repository are required.
type Config struct {
	// Address is where BuildKit answers, required: unix:///path, tcp://host:port,
	// npipe:////./pipe/name, or by way of another program docker-container://name,
	// podman-container://name, kube-pod://name and ssh://host. DockerEngine makes
	// the address of Docker Engine's own BuildKit.
	Address string

	// TLS encrypts a tcp:// address and, with certificates, proves who is
	// building. Without it, whatever listens on the way sees source and secrets.
	TLS *tls.Config

	// Repository is what the image is pushed to, without a tag, such as
	// "ghcr.io/acme/shop", required.
	Repository string

	// Dockerfile is the file's path below the source folder; empty means
	// "Dockerfile". A file of the same name with ".dockerignore" added beside it
	// takes the place of the folder's .dockerignore.
	Dockerfile string

	// Target is the stage to build; empty means the last one.
	Target string

	// Platform is what to build for, such as "linux/arm64"; empty means what the
	// daemon runs on.
	Platform string

	// BuildArgs set the Dockerfile's ARGs; those of a Source come on top. They end
	// up in the image's history, so they are no place for a secret.
	BuildArgs map[string]string

	// Labels are added to the image's configuration. The label
	// org.opencontainers.image.revision is set from Source.Revision.
	Labels map[string]string

	// Annotations are added to the image's manifest.
	Annotations map[string]string

	// Secrets are what instructions may mount, by id, each at most 500 KiB.
	Secrets map[string][]byte

	// CacheFrom are image references whose build cache is used, where they exist;
	// CacheTo those that this build's cache is written to, intermediate stages
	// included. A reference names its tag: "ghcr.io/acme/shop:buildcache".
	CacheFrom, CacheTo []string

	// InsecureRegistries are the hosts, with port where it isn't the usual one,
	// that images and cache are pushed to without verified TLS, or over plain
	// HTTP. Loopback hosts need no mention. Where base images come from is the
	// daemon's own configuration.
	InsecureRegistries []string

	// Auth finds credentials for registries, those of base images included. Nil
	// means that everything is anonymous.
	Auth Auth

	// SourceDate, if not zero, makes builds reproducible as far as their
	// instructions are: it becomes SOURCE_DATE_EPOCH, and the date of every
	// file and of the image. The commit's date is the usual choice. Docker
	// Engine's classic image store leaves the dates of files alone.
	SourceDate time.Time

	// FollowSyntaxLine has a "# syntax=" line obeyed, which pulls and runs the image
	// that it names.
	FollowSyntaxLine bool
}

// dockerScheme marks an address made by DockerEngine.
const dockerScheme = "docker+"

// DockerEngine returns the address of the BuildKit inside Docker Engine, which
// answers on host: "unix:///var/run/docker.sock" or "tcp://host:port", as in
// DOCKER_HOST. An image built there is also kept in the engine's image store,
// and has to be pushed under a tag, so a Source without tags is refused.
func DockerEngine(host string) string { return dockerScheme + host }

var (
	argPattern    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	secretPattern = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
)

// validate returns cfg with defaults filled in, sharing nothing with cfg that the
// caller could change, or an error matching stages.ErrInvalid.
func (cfg Config) validate() (Config, error) {
	if cfg.Dockerfile == "" {
		cfg.Dockerfile = "Dockerfile"
	}
	cfg.Dockerfile = path.Clean(filepath.ToSlash(cfg.Dockerfile))
	cfg.BuildArgs, cfg.Labels = maps.Clone(cfg.BuildArgs), maps.Clone(cfg.Labels)
	cfg.Annotations = maps.Clone(cfg.Annotations)
	cfg.CacheFrom, cfg.CacheTo = slices.Clone(cfg.CacheFrom), slices.Clone(cfg.CacheTo)
	cfg.InsecureRegistries = slices.Clone(cfg.InsecureRegistries)
	cfg.Secrets = cloneSecrets(cfg.Secrets)

	for _, check := range []func() error{
		cfg.checkAddress, cfg.checkPlatform, cfg.checkCache, cfg.checkSecrets,
		func() error { return stages.ValidateRepository(cfg.Repository) },
		func() error { return checkBuildArgs(cfg.BuildArgs) },
	} {
		if err := check(); err != nil {
			return Config{}, fmt.Errorf("buildkit: %w", err)
		}
	}
	if !filepath.IsLocal(filepath.FromSlash(cfg.Dockerfile)) || cfg.Dockerfile == "." {
		return Config{}, fmt.Errorf("buildkit: %w: Dockerfile %q must be a path below the source folder", stages.ErrInvalid, cfg.Dockerfile)
	}
	if !cfg.SourceDate.IsZero() && cfg.SourceDate.Unix() < 0 {
		return Config{}, fmt.Errorf("buildkit: %w: source date %s is before 1970", stages.ErrInvalid, cfg.SourceDate)
	}
	return cfg, nil
}

func cloneSecrets(secrets map[string][]byte) map[string][]byte {
	clone := maps.Clone(secrets)
	for id, value := range clone {
		clone[id] = slices.Clone(value)
	}
	return clone
}

func (cfg Config) checkAddress() error {
	address, docker := strings.CutPrefix(cfg.Address, dockerScheme)
	u, err := url.Parse(address)
	if err != nil {
		// The parser's own error repeats the address, which may hold a password.
		return fmt.Errorf("%w: the address is no URL; use unix:///path or tcp://host:port", stages.ErrInvalid)
	}
	known := []string{"unix", "tcp"}
	if !docker {
		known = append(known, "npipe", "docker-container", "podman-container", "kube-pod", "ssh")
	}
	switch {
	case !slices.Contains(known, u.Scheme):
		return fmt.Errorf("%w: address %q must begin with one of %s", stages.ErrInvalid, u.Redacted(), strings.Join(known, "://, ")+"://")
	case u.Scheme == "unix" && !path.IsAbs(u.Path), u.Scheme == "npipe" && u.Path == "",
		u.Scheme != "unix" && u.Scheme != "npipe" && u.Host == "":
		return fmt.Errorf("%w: address %q is not complete", stages.ErrInvalid, u.Redacted())
	case u.Scheme == "tcp" && u.Port() == "":
		return fmt.Errorf("%w: address %q has no port", stages.ErrInvalid, u.Redacted())
	case cfg.TLS != nil && u.Scheme != "tcp":
		return fmt.Errorf("%w: TLS is for tcp:// addresses, not for %q", stages.ErrInvalid, u.Redacted())
	}
	return nil
}

func (cfg Config) checkPlatform() error {
	if cfg.Platform == "" {
		return nil
	}
	if _, err := platforms.Parse(cfg.Platform); err != nil || strings.Contains(cfg.Platform, ",") {
		return fmt.Errorf("%w: platform %q is not of the form os/architecture, such as linux/amd64", stages.ErrInvalid, cfg.Platform)
	}
	return nil
}

func (cfg Config) checkCache() error {
	for _, ref := range slices.Concat(cfg.CacheFrom, cfg.CacheTo) {
		named, err := reference.ParseNormalizedNamed(ref)
		if err != nil {
			return fmt.Errorf("%w: cache reference %q: %w", stages.ErrInvalid, ref, err)
		}
		if _, tagged := named.(reference.Tagged); !tagged {
			return fmt.Errorf("%w: cache reference %q names no tag; add one, such as %s:buildcache", stages.ErrInvalid, ref, ref)
		}
	}
	return nil
}

func (cfg Config) checkSecrets() error {
	for id, value := range cfg.Secrets {
		switch {
		case !secretPattern.MatchString(id):
			return fmt.Errorf("%w: secret id %q must consist of letters, digits, '_', '.' and '-'", stages.ErrInvalid, id)
		case len(value) > secretsprovider.MaxSecretSize:
			return fmt.Errorf("%w: secret %q has %d bytes, BuildKit takes %d", stages.ErrInvalid, id, len(value), secretsprovider.MaxSecretSize)
		}
	}
	return nil
}

func checkBuildArgs(args map[string]string) error {
	for name := range args {
		if !argPattern.MatchString(name) {
			return fmt.Errorf("%w: build argument %q is no identifier", stages.ErrInvalid, name)
		}
	}
	return nil
}
