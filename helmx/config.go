package helmx

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v3/pkg/chartutil"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/fairlead-dev/fairlead/stages"
)

// Defaults of [Config].
const (
	DefaultHistoryMax = 10
	DefaultTimeout    = 5 * time.Minute
)

// Config says what to release, where and how. Chart, Release, Namespace, Image
// and one of Kubernetes and Cluster are required.
type Config struct {
	// Chart is a chart folder, a packaged chart (.tgz), a chart in an OCI registry
	// (oci://host/repository:version, optionally with @sha256:…), or the name of a
	// chart in the HTTP repository that ChartSource names. The latter two are
	// fetched, for which [Open] is there. Dependencies that the chart doesn't bring
	// along in its charts folder are fetched as Chart.lock says.
	Chart string
	// Manifests are files, and folders of them, with plain objects to release without
	// a chart, and stand in the place of Chart. They are written by server-side apply
	// unless Apply says otherwise, and what they no longer have is deleted. The image
	// is written into every container that runs its repository. Of Values, only
	// Decrypt is for them.
	Manifests []string
	// ChartSource says how to get the chart and what must be true of it.
	ChartSource ChartSource
	// Release is the release's name.
	Release string
	// Namespace is where the release and its objects live.
	Namespace string
	// CreateNamespace makes the namespace if it is missing. A restore to before the
	// first install removes a namespace that was made this way and is empty again.
	CreateNamespace bool
	// NamespaceLabels and NamespaceAnnotations are for a namespace that is made. One
	// that exists is left as it is.
	NamespaceLabels      map[string]string
	NamespaceAnnotations map[string]string
	// Values are laid over the chart's own.
	Values Values
	// Image says where the chart takes the image from.
	Image ImageValues
	// ImageFields are fields of custom resources that hold image references. They are
	// held to the image as containers are. A plan notes fields that look like such and
	// are not among them.
	ImageFields []ImageField
	// Unscanned is for a chart that brings nothing but images of its own, such as a
	// database's, which nobody has built, scanned or signed here. It is the reason
	// why it may be released all the same, ends up in the release record, and stands
	// in the place of Image. See [Deployer.DeployUnscanned].
	Unscanned string
	// RemoveOnly is for a Deployer that removes what was released before: it needs no
	// chart, so that Chart, Manifests, Values, Image and Unscanned are empty, and it
	// refuses to plan or deploy. See [Deployer.Uninstall] and [Deployer.PlanRemoval].
	RemoveOnly bool
	// CRDs says what becomes of the definitions in the chart's crds folder. By default
	// a chart with such a folder is refused.
	CRDs CRDs
	// TakeOwnership takes objects into the release that exist already and are not of it,
	// as of "kubectl apply", like the option of the same name of the helm command. What
	// kubectl has written and the chart doesn't have is dropped from them by server-side
	// apply. A plan names each, with [stages.DangerOwnership] if it is of another release.
	// By default the deployment is refused. A restore leaves such objects in place, and
	// as they were written by the revision that is undone, if none before had them.
	TakeOwnership bool
	// Apply says how objects are written.
	Apply Apply
	// Lock says how the release is kept to one operation at a time.
	Lock LockConfig
	// Rules are the other parts of the delivery that work on the cluster with the same
	// account: verifiers, smoke tests, traffic routers, a canary's state. Their rules
	// are part of what [Deployer.RequiredRBAC] returns, and of what a deployment is
	// refused for the want of, before anything is changed.
	Rules []RuleSource
	// SkipPreflight leaves out the check, before anything is changed, whether the
	// account has the rights that the deployment, its restore and Rules need. See
	// [Deployer.Preflight].
	SkipPreflight bool
	// HistoryMax is how many revisions are kept, at least 2; 0 means
	// [DefaultHistoryMax].
	HistoryMax int
	// KeepHistory leaves the records of a release that is uninstalled, so that its
	// history can be read and it can be rolled back to. By default they go with it.
	KeepHistory bool
	// Timeout bounds each hook, and each wait for deleted objects to be gone.
	// 0 means [DefaultTimeout].
	Timeout time.Duration
	// Kubernetes is the way to the cluster, for a Deployer that works alone.
	Kubernetes Kubernetes
	// Cluster is the way to the cluster, for Deployers that share one, and stands
	// in the place of Kubernetes.
	Cluster *Cluster
	// Logger receives what Helm and the API server have to say, at debug and warn
	// level; nil drops it.
	Logger *slog.Logger
}

// prepare checks c and fills in the defaults.
func (c *Config) prepare() error {
	var problems []error
	refuse := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if err := c.prepareSource(); err != nil {
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
	if err := c.Lock.prepare(); err != nil {
		problems = append(problems, err)
	}
	if err := c.CRDs.validate(); err != nil {
		problems = append(problems, err)
	}
	if err := c.Apply.validate(c.CRDs == CRDsApply); err != nil {
		problems = append(problems, err)
	}
	if err := validateImageFields(c.ImageFields); err != nil {
		problems = append(problems, err)
	}
	if slices.Contains(c.Rules, nil) {
		refuse("Rules: one of them is nil")
	}
	if c.Cluster != nil && !c.Kubernetes.isZero() {
		refuse("give Kubernetes or Cluster, not both")
	}
	switch {
	case c.RemoveOnly:
	case c.Unscanned == "" && len(c.Manifests) > 0:
	case c.Unscanned == "":
		if err := c.Image.validate(); err != nil {
			problems = append(problems, err)
		}
	case strings.TrimSpace(c.Unscanned) == "":
		refuse("Unscanned is the reason why, and is blank")
	case c.Image != ImageValues{}:
		refuse("give Image or Unscanned, not both")
	}
	if errs := metav1validation.ValidateLabels(c.NamespaceLabels, field.NewPath("NamespaceLabels")); len(errs) > 0 {
		problems = append(problems, errs.ToAggregate())
	}
	if errs := apivalidation.ValidateAnnotations(c.NamespaceAnnotations, field.NewPath("NamespaceAnnotations")); len(errs) > 0 {
		problems = append(problems, errs.ToAggregate())
	}
	if len(c.NamespaceLabels)+len(c.NamespaceAnnotations) > 0 && !c.CreateNamespace {
		refuse("NamespaceLabels and NamespaceAnnotations need CreateNamespace")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%w: helmx configuration: %w", stages.ErrInvalid, errors.Join(problems...))
	}
	return nil
}

// prepareSource checks what is to be released.
func (c *Config) prepareSource() error {
	switch {
	case c.RemoveOnly:
		if c.Chart != "" || len(c.Manifests) > 0 || c.Values.given() || c.Image != (ImageValues{}) || c.Unscanned != "" {
			return errors.New("RemoveOnly releases nothing; drop Chart, Manifests, Values, Image and Unscanned")
		}
		return nil
	case len(c.Manifests) > 0:
		return errors.Join(c.prepareManifests()...)
	case c.Chart == "":
		return errors.New("Chart is empty; name a chart folder, a .tgz or an oci:// reference")
	}
	return c.ChartSource.validate(c.Chart)
}

func (c *Config) prepareManifests() []error {
	var problems []error
	if c.Chart != "" {
		problems = append(problems, errors.New("give Chart or Manifests, not both"))
	}
	if c.Values.given() {
		problems = append(problems, errors.New("Manifests take no values; they are released as they are"))
	}
	if c.Image != (ImageValues{}) {
		problems = append(problems, errors.New("Manifests take the image wherever they run its repository; leave Image empty"))
	}
	if c.Apply.Mode == "" {
		c.Apply.Mode = ServerSide
	}
	return problems
}
