package trivy

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// The public databases, tried in this order: the mirror has no rate limit that
// builds would run into.
var (
	publicDatabases     = []string{"mirror.gcr.io/aquasec/trivy-db:2", "ghcr.io/aquasecurity/trivy-db:2"}
	publicJavaDatabases = []string{"mirror.gcr.io/aquasec/trivy-java-db:1", "ghcr.io/aquasecurity/trivy-java-db:1"}
)

// Config says where a [Scanner] finds what it needs.
type Config struct {
	// CacheDir is where databases and results about layers are kept, required.
	// Scanners and processes may share it. It may be deleted while no scanner is
	// open. A good place is a folder of your own below [os.UserCacheDir].
	CacheDir string

	// Database is the OCI reference of the vulnerability database. Empty stands
	// for the public one at mirror.gcr.io or, where that fails, ghcr.io.
	Database string
	// JavaDatabase is the OCI reference of the index that Java archives are
	// identified with. It is fetched when an image holds the first one. Empty
	// stands for the public one.
	JavaDatabase string
	// Offline uses what is in CacheDir and never fetches a database.
	Offline bool
	// MaxDatabaseAge refuses to scan with a database older than this, counted
	// from when it was made. Zero means no limit, and leaves it to the gate.
	MaxDatabaseAge time.Duration

	// Platform is what to scan of a multi-platform image, such as
	// "linux/arm64/v8". Without it, an image for several platforms is refused:
	// scanning one of them says nothing about the others. An image for one platform
	// is scanned whatever it is for, by default.
	Platform string

	// Keychain has the credentials for registries, of images and databases. Nil
	// means anonymous; authn.DefaultKeychain is what "docker login" wrote.
	Keychain authn.Keychain
	// Insecure lists registries, as host or host:port, that are spoken to without
	// TLS. Registries on localhost always may be.
	Insecure []string
	// Transport carries the requests. Nil stands for a clone of
	// [http.DefaultTransport].
	Transport http.RoundTripper

	// Parallel is how many layers of an image are read at once; zero stands for 5.
	Parallel int
	// Logger receives Trivy's messages. Nil discards them.
	Logger *slog.Logger
}

// settings is a Config with its defaults filled in and its text parsed.
type settings struct {
	Config
	platform      v1.Platform
	chosen        bool // whether the platform is the caller's
	databases     []name.Reference
	javaDatabases []name.Reference
}

func (c Config) settle() (settings, error) {
	s := settings{Config: c, chosen: c.Platform != ""}
	s.Insecure = slices.Clone(c.Insecure)
	if c.CacheDir == "" {
		return s, fmt.Errorf("%w: trivy: Config.CacheDir is empty; use a folder below os.UserCacheDir", stages.ErrInvalid)
	}
	if c.MaxDatabaseAge < 0 || c.Parallel < 0 {
		return s, fmt.Errorf("%w: trivy: Config.MaxDatabaseAge and Config.Parallel can't be negative", stages.ErrInvalid)
	}
	if s.Platform == "" {
		s.Platform = "linux/amd64"
	}
	platform, err := v1.ParsePlatform(s.Platform)
	if err != nil || platform.OS == "" || platform.Architecture == "" {
		return s, fmt.Errorf("%w: trivy: Config.Platform %q is not of the form os/architecture", stages.ErrInvalid, s.Platform)
	}
	s.platform = *platform
	if s.databases, err = s.references(c.Database, publicDatabases); err != nil {
		return s, fmt.Errorf("%w: trivy: Config.Database: %w", stages.ErrInvalid, err)
	}
	if s.javaDatabases, err = s.references(c.JavaDatabase, publicJavaDatabases); err != nil {
		return s, fmt.Errorf("%w: trivy: Config.JavaDatabase: %w", stages.ErrInvalid, err)
	}
	if s.Keychain == nil {
		s.Keychain = authn.NewMultiKeychain()
	}
	if s.Parallel == 0 {
		s.Parallel = 5
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

func (s *settings) references(configured string, public []string) ([]name.Reference, error) {
	texts := public
	if configured != "" {
		texts = []string{configured}
	}
	var refs []name.Reference
	for _, text := range texts {
		ref, err := s.parse(text)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// parse reads a reference, without TLS if its registry is listed as insecure.
func (s *settings) parse(text string) (name.Reference, error) {
	ref, err := name.ParseReference(text)
	if err != nil {
		return nil, err
	}
	if slices.Contains(s.Insecure, ref.Context().RegistryStr()) {
		return name.ParseReference(text, name.Insecure)
	}
	return ref, nil
}
