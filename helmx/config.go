package helmx

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"helm.sh/helm/v3/pkg/chartutil"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-dev/fairlead/stages"
)

// Defaults of [Config].
const (
	DefaultHistoryMax = 10
	DefaultTimeout    = 5 * time.Minute
)

// Config says what to release, where and how. Chart, Release, Namespace, Image
// and Kubernetes are required.
type Config struct {
	// Chart is a chart folder, a packaged chart (.tgz), a chart in an OCI registry
	// (oci://host/repository:version, optionally with @sha256:…), or the name of a
	// chart in the HTTP repository that ChartSource names. The latter two are
	// fetched, for which [Open] is there. Dependencies that the chart doesn't bring
	// along in its charts folder are fetched as Chart.lock says.
	Chart string
	// ChartSource says how to get the chart and what must be true of it.
	ChartSource ChartSource
	// Release is the release's name.
	Release string
	// Namespace is where the release and its objects live.
	Namespace string
	// CreateNamespace makes the namespace if it is missing. A restore to before the
	// first install removes a namespace that was made this way and is empty again.
	CreateNamespace bool
	// Values are laid over the chart's own.
	Values Values
	// Image says where the chart takes the image from.
	Image ImageValues
	// SkipCRDs accepts a chart with a crds folder, and leaves that folder out. By
	// default such a chart is refused: Helm would install the definitions before
	// anything is recorded, and a restore could not take them back.
	SkipCRDs bool
	// HistoryMax is how many revisions are kept, at least 2; 0 means
	// [DefaultHistoryMax].
	HistoryMax int
	// Timeout bounds each hook, and each wait of a restore for objects to be gone.
	// 0 means [DefaultTimeout].
	Timeout time.Duration
	// Kubernetes is the way to the cluster.
	Kubernetes Kubernetes
	// Logger receives what Helm and the API server have to say, at debug and warn
	// level; nil drops it.
	Logger *slog.Logger
}

// prepare checks c and fills in the defaults.
func (c *Config) prepare() error {
	var problems []error
	refuse := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.Chart == "" {
		refuse("Chart is empty; name a chart folder, a .tgz or an oci:// reference")
	} else if err := c.ChartSource.validate(c.Chart); err != nil {
		problems = append(problems, err)
	}
	if err := chartutil.ValidateReleaseName(c.Release); err != nil {
		refuse("Release %q: use at most 53 lower-case letters, digits, '-' and '.'", c.Release)
	}
	if errs := validation.IsDNS1123Label(c.Namespace); len(errs) > 0 {
		refuse("Namespace %q: %s", c.Namespace, errs[0])
	}
	switch {
	case c.HistoryMax == 0:
		c.HistoryMax = DefaultHistoryMax
	case c.HistoryMax < 2:
		refuse("HistoryMax %d: at least 2 revisions are needed to have one to go back to", c.HistoryMax)
	}
	switch {
	case c.Timeout == 0:
		c.Timeout = DefaultTimeout
	case c.Timeout < 0:
		refuse("Timeout %s is negative", c.Timeout)
	}
	if err := c.Image.validate(); err != nil {
		problems = append(problems, err)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%w: helmx configuration: %w", stages.ErrInvalid, errors.Join(problems...))
	}
	return nil
}
