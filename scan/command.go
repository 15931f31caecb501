package scan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/fairlead-dev/fairlead/stages"
)

const (
	// maxScans is more than any machine runs at once; the rest waits.
	maxScans = 64
	// javaMissing is in what Trivy says when it would need its Java index.
	javaMissing = "Java DB"
)

// refusedTrivy lists releases that must not run: they were published by an
// attacker. A version can only be asked of the program itself, so this protects
// what it would have been handed, not the machine that it is on.
var refusedTrivy = map[string]string{
	"0.69.4": malicious, "0.69.5": malicious, "0.69.6": malicious,
}

const malicious = "this release is malicious; treat the machine that ran it as compromised"

// CommandConfig says how to run Trivy.
type CommandConfig struct {
	// Path is the trivy binary: a path, or a name that [exec.LookPath] finds. Empty
	// stands for "trivy".
	Path string
	// CacheDir is where Trivy keeps its database, required. Trivy's own locks make
	// it unfit for sharing between processes that download; give each its own.
	CacheDir string
	// Database and JavaDatabase are the OCI references of Trivy's databases. Empty
	// stands for Trivy's own choice.
	Database, JavaDatabase string
	// Offline uses what is in CacheDir and never fetches a database.
	Offline bool
	// Platform is what to scan of a multi-platform image. Empty stands for
	// "linux/amd64".
	Platform string
	// Insecure permits registries without TLS or with a certificate that does not
	// verify, for images and databases alike: Trivy knows no finer switch.
	Insecure bool
	// Credentials, if set, returns what to log in to the image's registry with;
	// an empty username means anonymous. It is called for each scan, and the answer
	// reaches Trivy through its environment only.
	Credentials func(ctx context.Context, registry string) (username, password string, err error)
	// Env is the environment of the process, as in [exec.Cmd], such as proxy
	// settings or SSL_CERT_FILE. Nothing is inherited, so that no setting, ignore
	// file or login of whoever runs the program changes the result. HOME is set
	// to CacheDir unless it is here.
	Env []string
}

// Command scans with a trivy binary. It is safe for concurrent use: scans run
// side by side, and wait for each other only while a database is replaced.
type Command struct {
	cfg     CommandConfig
	path    string
	version string
	// databases is shared by scans, and taken whole while Trivy replaces one, which
	// it does in place.
	databases             *semaphore.Weighted
	vulnerabilities, java commandDatabase
}

var _ stages.Scanner = (*Command)(nil)

// NewCommand finds the binary and asks it for its version. A binary that can't be
// used, or must not be, gives an error matching [stages.ErrInvalid].
func NewCommand(ctx context.Context, cfg CommandConfig) (*Command, error) {
	if cfg.CacheDir == "" {
		return nil, fmt.Errorf("%w: Trivy command: CacheDir is empty; use a folder below os.UserCacheDir", stages.ErrInvalid)
	}
	dir, err := filepath.Abs(cfg.CacheDir)
	if err != nil {
		return nil, fmt.Errorf("%w: Trivy command: CacheDir: %w", stages.ErrInvalid, err)
	}
	if cfg.CacheDir = dir; os.MkdirAll(dir, 0o700) != nil {
		return nil, fmt.Errorf("%w: Trivy command: can't create CacheDir %s", stages.ErrInvalid, dir)
	}
	if cfg.Path == "" {
		cfg.Path = "trivy"
	}
	if cfg.Platform == "" {
		cfg.Platform = "linux/amd64"
	}
	path, err := exec.LookPath(cfg.Path)
	if err == nil {
		// Trivy runs in a folder of its own, where a relative path leads elsewhere.
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: Trivy command: install Trivy or set Path: %w", stages.ErrInvalid, err)
	}
	c := &Command{
		cfg: cfg, path: path, databases: semaphore.NewWeighted(maxScans),
		vulnerabilities: commandDatabase{folder: "db", download: "--download-db-only", source: cfg.Database, keep: time.Hour},
		java:            commandDatabase{folder: "java-db", download: "--download-java-db-only", source: cfg.JavaDatabase, keep: 24 * time.Hour},
	}
	if c.version, err = c.askVersion(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Command) askVersion(ctx context.Context) (string, error) {
	out, err := c.run(ctx, nil, "version", "--format", "json")
	if cause := context.Cause(ctx); cause != nil {
		return "", fmt.Errorf("ask %s for its version: %w", c.path, cause)
	}
	var v struct{ Version string }
	if err == nil {
		err = json.Unmarshal(out, &v)
	}
	if err == nil && v.Version == "" {
		err = errors.New("it names none")
	}
	if err != nil {
		return "", fmt.Errorf("%w: ask %s for its version: %w", stages.ErrInvalid, c.path, err)
	}
	version := strings.TrimPrefix(v.Version, "v")
	if why, refused := refusedTrivy[version]; refused {
		return "", fmt.Errorf("%w: %s is Trivy %s: %s", stages.ErrInvalid, c.path, version, why)
	}
	return version, nil
}

// Version returns the version of the binary, such as "0.72.0".
func (c *Command) Version() string { return c.version }

// Scan runs Trivy on image, by digest and straight from its registry. When the
// context ends, the process is killed and waited for.
func (c *Command) Scan(ctx context.Context, image stages.Image) (stages.Report, error) {
	if image.IsZero() {
		return stages.Report{}, fmt.Errorf("%w: Trivy command: there is no image to scan", stages.ErrInvalid)
	}
	report, err := c.scan(ctx, image)
	if cause := context.Cause(ctx); cause != nil {
		return stages.Report{}, fmt.Errorf("scan %s: %w", image, cause)
	}
	if err != nil {
		return stages.Report{}, fmt.Errorf("scan %s: %w", image, err)
	}
	return report, nil
}

func (c *Command) scan(ctx context.Context, image stages.Image) (stages.Report, error) {
	login, err := c.login(ctx, image)
	if err != nil {
		return stages.Report{}, err
	}
	if c.vulnerabilities.due(ctx, c) {
		if err := c.update(ctx, c.vulnerabilities, image, login); err != nil {
			return stages.Report{}, err
		}
	}
	if c.java.installed(c) && c.java.due(ctx, c) {
		if err := c.update(ctx, c.java, image, login); err != nil {
			return stages.Report{}, err
		}
	}
	report, err := c.inspect(ctx, image, login)
	if err != nil && strings.Contains(err.Error(), javaMissing) && !c.cfg.Offline {
		// The image holds Java archives, and there is no index to identify them with.
		if err := c.update(ctx, c.java, image, login); err != nil {
			return stages.Report{}, err
		}
		return c.inspect(ctx, image, login)
	}
	return report, err
}

// inspect runs the scan, during which no database may be replaced.
func (c *Command) inspect(ctx context.Context, image stages.Image, login []string) (stages.Report, error) {
	if err := c.databases.Acquire(ctx, 1); err != nil {
		return stages.Report{}, err
	}
	defer c.databases.Release(1)
	meta, err := c.vulnerabilities.metadata(c)
	if err != nil {
		return stages.Report{}, stages.Permanent(fmt.Errorf("there is no usable Trivy database: %w", err))
	}
	out, err := c.run(ctx, login, append(c.flags(), "--scanners", "vuln", "--format", "json", "--list-all-pkgs",
		"--image-src", "remote", "--platform", c.cfg.Platform, "--cache-backend", "memory",
		"--skip-db-update", "--skip-java-db-update", "--", image.String())...)
	if err != nil {
		return stages.Report{}, err
	}
	report, err := ParseTrivyJSON(bytes.NewReader(out))
	if err != nil {
		return stages.Report{}, stages.Permanent(err)
	}
	if report.Image != image {
		return stages.Report{}, fmt.Errorf("%w: Trivy reported on %s", stages.ErrSubjectMismatch, report.Image)
	}
	report.Scanner = "trivy " + c.version
	report.Database = meta.UpdatedAt.UTC()
	return report, nil
}

func registryOf(reference string) string {
	registry, _, _ := strings.Cut(reference, "/")
	return registry
}

func (c *Command) flags() []string {
	// The context limits the time, so Trivy's own limit of five minutes is lifted.
	flags := []string{
		"image", "--cache-dir", c.cfg.CacheDir, "--quiet", "--no-progress", "--timeout", "720h",
		"--skip-version-check", "--disable-telemetry",
	}
	if c.cfg.Database != "" {
		flags = append(flags, "--db-repository", c.cfg.Database)
	}
	if c.cfg.JavaDatabase != "" {
		flags = append(flags, "--java-db-repository", c.cfg.JavaDatabase)
	}
	if c.cfg.Insecure {
		flags = append(flags, "--insecure")
	}
	if c.cfg.Offline {
		flags = append(flags, "--offline-scan")
	}
	return flags
}

// login returns the environment variables with the credentials for image.
func (c *Command) login(ctx context.Context, image stages.Image) ([]string, error) {
	if c.cfg.Credentials == nil {
		return nil, nil
	}
	registry := registryOf(image.Repository())
	username, password, err := c.cfg.Credentials(ctx, registry)
	if err != nil {
		return nil, fmt.Errorf("get credentials for %s: %w", registry, err)
	}
	if username == "" {
		return nil, nil
	}
	return []string{"TRIVY_USERNAME=" + username, "TRIVY_PASSWORD=" + password}, nil
}
