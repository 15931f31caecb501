package trivy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	trivydb "github.com/aquasecurity/trivy-db/pkg/db"
	dbtypes "github.com/aquasecurity/trivy-db/pkg/types"
	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	"github.com/aquasecurity/trivy/pkg/fanal/applier"
	"github.com/aquasecurity/trivy/pkg/fanal/artifact"
	artimage "github.com/aquasecurity/trivy/pkg/fanal/artifact/image"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/javadb"
	trivyscan "github.com/aquasecurity/trivy/pkg/scan"
	"github.com/aquasecurity/trivy/pkg/scan/langpkg"
	"github.com/aquasecurity/trivy/pkg/scan/local"
	"github.com/aquasecurity/trivy/pkg/scan/ospkg"
	"github.com/aquasecurity/trivy/pkg/types"
	"github.com/aquasecurity/trivy/pkg/vulnerability"

	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	trivyModule  = "github.com/aquasecurity/trivy"
	trivyVersion = "0.72.0"
	javaFile     = "trivy-java.db"
	// errJava is how Trivy says that an image has Java archives and that there is
	// no index to identify them with. It has no typed error for it.
	errJava = "Unable to initialize the Java DB"
)

// Version returns the version of Trivy in this program, such as "0.72.0".
var Version = sync.OnceValue(func() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == trivyModule && dep.Replace == nil {
				return strings.TrimPrefix(dep.Version, "v")
			}
		}
	}
	return trivyVersion
})

// Scanner scans images for known vulnerabilities. It is safe for concurrent use;
// scans of one process take turns, because Trivy's analyzers are shared variables.
type Scanner struct {
	cfg             settings
	transport       http.RoundTripper
	vulnerabilities databases
	java            databases

	// closing is held for reading by every scan, so that Close waits for them.
	closing sync.RWMutex
	closed  bool
}

var (
	_ stages.Scanner = (*Scanner)(nil)
	_ stages.Closer  = (*Scanner)(nil)
)

// New returns a scanner, or an error matching [stages.ErrInvalid] that says what
// is wrong with cfg. It creates the cache directory and uses no network; the
// first scan downloads the database.
func New(cfg Config) (*Scanner, error) {
	settled, err := cfg.settle()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.CacheDir, 0o700); err != nil {
		return nil, fmt.Errorf("%w: trivy: create the cache directory: %w", stages.ErrInvalid, err)
	}
	s := &Scanner{cfg: settled, transport: settled.Transport}
	if s.transport == nil {
		if standard, ok := http.DefaultTransport.(*http.Transport); ok {
			s.transport = standard.Clone()
		} else {
			s.transport = http.DefaultTransport
		}
	}
	s.vulnerabilities = databases{
		scanner: s, root: filepath.Join(cfg.CacheDir, "db"), refs: settled.databases,
		kind: databaseKind{
			name: "vulnerability", mediaType: "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip",
			file: "trivy.db", schema: trivydb.SchemaVersion, check: checkVulnerabilities,
		},
	}
	s.java = databases{
		scanner: s, root: filepath.Join(cfg.CacheDir, "java"), refs: settled.javaDatabases,
		kind: databaseKind{
			name: "Java", mediaType: "application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip",
			file: javaFile, schema: javadb.SchemaVersion, sub: "java-db", check: checkJava,
		},
	}
	trivyState.scannerOpened()
	return s, nil
}

// Close waits for scans that run, and releases the database when this was the
// last scanner that is open in the process.
func (s *Scanner) Close() error {
	s.closing.Lock()
	defer s.closing.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if idle, ok := s.transport.(interface{ CloseIdleConnections() }); ok && s.cfg.Transport == nil {
		idle.CloseIdleConnections()
	}
	return trivyState.scannerClosed()
}

// Scan reports what the database knows about the packages in image. A missing or
// unusable database gives a [*DatabaseError], content that doesn't match its
// digest an error matching [stages.ErrSubjectMismatch]. What the registry
// refuses for good, such as a missing manifest, is permanent; network failures
// are not.
func (s *Scanner) Scan(ctx context.Context, image stages.Image) (stages.Report, error) {
	if image.IsZero() {
		return stages.Report{}, fmt.Errorf("%w: trivy: there is no image to scan", stages.ErrInvalid)
	}
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return stages.Report{}, stages.Permanent(fmt.Errorf("scan %s: %w", image, ErrClosed))
	}
	report, err := s.scan(ctx, image)
	if cause := context.Cause(ctx); cause != nil {
		// Trivy's own words for a cancelled context vary; the cause doesn't.
		return stages.Report{}, fmt.Errorf("scan %s: %w", image, cause)
	}
	if errors.Is(err, errContent) {
		err = fmt.Errorf("%w: %w", stages.ErrSubjectMismatch, err)
	}
	if err != nil {
		return stages.Report{}, fmt.Errorf("scan %s: %w", image, err)
	}
	return report, nil
}

func (s *Scanner) scan(ctx context.Context, image stages.Image) (stages.Report, error) {
	if err := ctx.Err(); err != nil {
		return stages.Report{}, err
	}
	db, err := s.vulnerabilities.current(ctx)
	if err != nil {
		return stages.Report{}, err
	}
	pinned, err := s.open(ctx, image)
	if err != nil {
		return stages.Report{}, err
	}
	// A scan that needs the Java index must say so. Trivy reports a missing index
	// once and takes it for empty from then on, and makes folders that aren't there;
	// below a file, it can't.
	need := opened{vulnerabilities: db.dir, java: trivydb.Path(db.dir)}
	found, err := s.run(ctx, pinned, need)
	if err != nil && strings.Contains(err.Error(), errJava) {
		var java database
		if java, err = s.java.current(ctx); err != nil {
			return stages.Report{}, fmt.Errorf("the image holds Java archives: %w", err)
		}
		need.java = java.dir
		found, err = s.run(ctx, pinned, need)
	}
	if err != nil {
		return stages.Report{}, err
	}
	report, err := convert(found)
	if err != nil {
		return stages.Report{}, err
	}
	if report.Image != image {
		return stages.Report{}, fmt.Errorf("%w: Trivy reported on %s", stages.ErrSubjectMismatch, report.Image)
	}
	report.Scanner = "trivy " + Version()
	report.Database = db.UpdatedAt.UTC()
	return report, nil
}

// run has Trivy inspect the image and compare what it finds with the databases.
func (s *Scanner) run(ctx context.Context, image *pinnedImage, need opened) (types.Report, error) {
	release, err := trivyState.acquire(ctx, need)
	if err != nil {
		return types.Report{}, err
	}
	defer release()
	layers := &layerCache{dir: filepath.Join(s.cfg.CacheDir, "layers"), image: image}
	inspected, err := artimage.NewArtifact(image, layers, artifact.Option{
		DisabledAnalyzers: disabledAnalyzers(),
		Parallel:          s.cfg.Parallel,
		NoProgress:        true,
		Offline:           true,
		DetectionPriority: ftypes.PriorityPrecise,
	})
	if err != nil {
		return types.Report{}, fmt.Errorf("set up Trivy: %w", err)
	}
	backend := local.NewService(applier.NewApplier(layers), ospkg.NewScanner(), langpkg.NewScanner(), vulnerability.NewClient(trivydb.Config{}))
	return trivyscan.NewService(backend, inspected).ScanArtifact(withLogger(ctx, s.cfg.Logger), types.ScanOptions{
		PkgTypes:            types.PkgTypes,
		PkgRelationships:    ftypes.Relationships,
		Scanners:            types.Scanners{types.VulnerabilityScanner},
		VulnSeveritySources: []dbtypes.SourceID{"auto"},
	})
}

// disabledAnalyzers is what "trivy image --scanners vuln" disables: it looks for
// packages that are installed, not for those that a lock file names.
// https://github.com/aquasecurity/trivy/blob/v0.72.0/pkg/commands/artifact/run.go
func disabledAnalyzers() []analyzer.Type {
	disabled := []analyzer.Type{
		analyzer.TypeApkCommand, analyzer.TypeSecret, analyzer.TypeLicenseFile,
		analyzer.TypeHistoryDockerfile, analyzer.TypeExecutable, analyzer.TypeRpmArchive,
	}
	disabled = append(disabled, analyzer.TypeLockfiles...)
	return append(disabled, analyzer.TypeConfigFiles...)
}

// convert goes through Trivy's JSON, the one form of its results that is promised
// to stay, and the same that the command line's reports are read from.
func convert(found types.Report) (stages.Report, error) {
	// The image's configuration is of no use here, and may hold what isn't ours.
	found.Metadata.ImageConfig = v1.ConfigFile{}
	text, err := json.Marshal(found)
	if err != nil {
		return stages.Report{}, fmt.Errorf("read Trivy's results: %w", err)
	}
	return scan.ParseTrivyJSON(bytes.NewReader(text))
}
