package helmfile

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// DefaultEnvironment is the environment of a helmfile where none is chosen.
const DefaultEnvironment = "default"

// Config says which helmfile to load, and how to release what is in it.
type Config struct {
	// Path is the file, required. Relative paths in it are relative to its folder.
	Path string
	// Root is the folder that all files must be in, but for charts, symbolic links
	// included: those that lead out of it are refused, and so are absolute ones. Empty
	// is the folder of Path.
	Root string
	// Environment chooses one of its environments; empty is [DefaultEnvironment].
	Environment string
	// Values are laid over those of the environment.
	Values map[string]any
	// Env looks up what templates ask for with env and requiredEnv. Nil knows no
	// variable.
	Env func(name string) (value string, ok bool)
	// Selectors choose releases by label, such as "app=shop,tier!=backend"; see
	// releaseset.Selection. Releases are labelled with their name, namespace and chart.
	Selectors []string
	// IncludeNeeds adds what the chosen releases need.
	IncludeNeeds bool

	// Images are the images of ours, by the release that runs them: "namespace/name",
	// or "name" where that is unique.
	Images map[string]Image
	// AllowUnscanned is the reason for which releases without an image of ours may be
	// deployed. It ends up in their records. Without it, each of them is refused with an [UnboundError].
	AllowUnscanned string
	// Verify, if set, makes the verifier of a release. It may be nil for one that
	// doesn't say wait: true.
	Verify func(namespace, name string) stages.Verifier
	// Decrypt returns the content of a file that is listed under secrets. Without it,
	// such files are refused.
	Decrypt func(ctx context.Context, path string, data []byte) ([]byte, error)
	// Charts says how a chart that is not a local one is got, and what must be true of
	// it, such as a digest, a keyring or credentials. Its repository and version are
	// those of the file, and so are user name, password, authority and plain HTTP
	// unless they are given. Nil is the zero ChartSource.
	Charts func(chart Chart) helmx.ChartSource
	// Fetch, if set, is asked for every chart that is not a local one in the place of
	// all that, and returns its folder or archive.
	Fetch func(ctx context.Context, chart Chart) (path string, err error)

	// Cluster is the way to the cluster, required, and shared by all releases. It is
	// the caller's to close.
	Cluster *helmx.Cluster
	// KubeContext is the name of the cluster's context, for helmfiles that name one.
	KubeContext string
	// Concurrency and RollbackTimeout are those of the set.
	Concurrency     int
	RollbackTimeout time.Duration
	// Logger is told of files that are skipped by a missingFileHandler, at its level, and
	// handed to every deployer. Nil discards.
	Logger *slog.Logger
}

// Image is an image of ours.
type Image struct {
	// Image is what the release runs. It may be left out where Clearance names it.
	Image stages.Image
	// Clearance lets it be deployed. It may also come later, when the set is applied.
	Clearance stages.Clearance
	// Values says where the chart takes it from.
	Values helmx.ImageValues
}

// Chart names a chart that is not a local one.
type Chart struct {
	// Reference is "oci://registry/path/name", or the name within Repository.
	Reference string
	// Repository is where the chart is, if Reference doesn't tell.
	Repository Repository
	// Version is a version or a range of versions; empty is the newest.
	Version string
}

// Repository is an entry of repositories.
type Repository struct {
	Name string
	URL  string
	OCI  bool
	// PlainHTTP reads it without TLS.
	PlainHTTP bool
	// Username and Password are what the file says; often nothing.
	Username, Password string
	CAFile             string
}

// UnboundError is a release that nothing is known of that its images have passed.
// It matches [stages.ErrNotCleared].
type UnboundError struct{ Release string }

// Error says what to do.
func (e *UnboundError) Error() string {
	return fmt.Sprintf("release %s is bound to no image; bind it with Images, or if it runs none of ours give a reason with AllowUnscanned", e.Release)
}

// Unwrap returns [stages.ErrNotCleared].
func (e *UnboundError) Unwrap() error { return stages.ErrNotCleared }

// FieldError is a field that can't be read or is not supported. It matches
// [stages.ErrInvalid].
type FieldError struct {
	// File and Line say where; Line is 0 where that is not known.
	File string
	Line int
	// Rendered is set if Line counts in the document as its template rendered it,
	// because that has not the lines of the file.
	Rendered bool
	// Field is the path of the field, such as "releases[0].hooks".
	Field string
	// Problem says what is wrong and what to do.
	Problem string
}

// Error has the form file:line: field: problem.
func (e *FieldError) Error() string {
	at := e.File
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Rendered {
		at += " (as rendered)"
	}
	if e.Field != "" {
		at += ": " + e.Field
	}
	return at + ": " + e.Problem
}

// Unwrap returns [stages.ErrInvalid].
func (e *FieldError) Unwrap() error { return stages.ErrInvalid }

func (c *Config) prepare() error {
	switch {
	case c.Path == "":
		return fmt.Errorf("%w: helmfile configuration: Path is empty", stages.ErrInvalid)
	case c.Cluster == nil:
		return fmt.Errorf("%w: helmfile configuration: Cluster is nil; see helmx.Connect", stages.ErrInvalid)
	}
	if c.Environment == "" {
		c.Environment = DefaultEnvironment
	}
	if c.Env == nil {
		c.Env = func(string) (string, bool) { return "", false }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
