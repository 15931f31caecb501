package preview

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/fairlead-dev/fairlead/stages"
)

// Defaults of [Config].
const (
	DefaultPrefix  = "preview"
	DefaultTTL     = 72 * time.Hour
	DefaultTimeout = 5 * time.Minute
)

// maxPrefix leaves room for the rest of a name.
const maxPrefix = 16

// PodSecurity is a level of the Pod Security Standards.
type PodSecurity string

// The levels.
const (
	Restricted PodSecurity = "restricted"
	Baseline   PodSecurity = "baseline"
	Privileged PodSecurity = "privileged"
)

// Config says what previews are like. Client is required.
type Config struct {
	// Client is the way to the cluster. Its account needs the rights that the package
	// comment lists.
	Client kubernetes.Interface
	// Dynamic is the way to the Gateway API, for the URLs of HTTPRoutes; nil leaves
	// them out.
	Dynamic dynamic.Interface
	// Prefix begins the names of the namespaces; empty means [DefaultPrefix]. Previews
	// of another prefix are somebody else's.
	Prefix string
	// TTL is for how long a preview lives after it was last created or renewed. 0 means
	// [DefaultTTL].
	TTL time.Duration
	// Timeout bounds each wait: for a quota to be in force, and for a namespace to be
	// gone. 0 means [DefaultTimeout].
	Timeout time.Duration
	// Labels are put on the namespaces beside this package's own, for example for a mesh.
	Labels map[string]string
	// Quota bounds what a preview may use; nil means [DefaultQuota].
	Quota corev1.ResourceList
	// Limits are the defaults and bounds of each container; nil means [DefaultLimits].
	Limits []corev1.LimitRangeItem
	// PodSecurity is what pods have to meet; empty means [Restricted].
	PodSecurity PodSecurity
	// Network says who may connect to the pods.
	Network Network
	// PullSecrets are copied into the preview, under their own names, and added to its
	// default service account. Pods of another account have to name them themselves.
	PullSecrets []SecretRef
	// Bindings are roles that accounts get in the preview.
	Bindings []Binding
	// URL is the address of a preview, in which {{.Number}} and {{.Namespace}} are
	// filled in. Empty takes it from what was deployed, see [Previews.URL].
	URL string
	// Now tells the time; nil means [time.Now].
	Now func() time.Time
}

// Network says who may connect to the pods of a preview. The zero value lets in the
// preview's own pods and nobody else.
type Network struct {
	// Open makes no policy.
	Open bool
	// From are namespaces whose pods may connect too, such as that of the ingress
	// controller.
	From []metav1.LabelSelector
}

// SecretRef names a secret of type kubernetes.io/dockerconfigjson.
type SecretRef struct{ Namespace, Name string }

// Binding gives a ClusterRole, within the preview, to accounts.
type Binding struct {
	// ClusterRole is the role's name.
	ClusterRole string
	// Subjects get it.
	Subjects []rbacv1.Subject
}

// DefaultQuota is enough for a small service and its database.
func DefaultQuota() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceRequestsCPU:            resource.MustParse("2"),
		corev1.ResourceRequestsMemory:         resource.MustParse("4Gi"),
		corev1.ResourceLimitsCPU:              resource.MustParse("4"),
		corev1.ResourceLimitsMemory:           resource.MustParse("8Gi"),
		corev1.ResourcePods:                   resource.MustParse("20"),
		corev1.ResourcePersistentVolumeClaims: resource.MustParse("5"),
		corev1.ResourceRequestsStorage:        resource.MustParse("20Gi"),
		corev1.ResourceServicesLoadBalancers:  resource.MustParse("0"),
		corev1.ResourceServicesNodePorts:      resource.MustParse("0"),
	}
}

// DefaultLimits give containers that name no resources some, which a quota insists on.
func DefaultLimits() []corev1.LimitRangeItem {
	return []corev1.LimitRangeItem{{
		Type: corev1.LimitTypeContainer,
		DefaultRequest: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
		},
		Default: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("512Mi"),
		},
	}}
}

// prepare checks c, fills in the defaults, and copies what it refers to.
func (c *Config) prepare() error {
	c.defaults()
	var problems []error
	refuse := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.Client == nil {
		refuse("Client is missing")
	}
	if errs := validation.IsDNS1123Label(c.Prefix); len(errs) > 0 || len(c.Prefix) > maxPrefix {
		refuse("Prefix %q: use at most %d lower-case letters, digits and '-'", c.Prefix, maxPrefix)
	}
	if c.TTL < time.Minute {
		refuse("TTL %s is less than a minute", c.TTL)
	}
	if c.Timeout < 0 {
		refuse("Timeout %s is negative", c.Timeout)
	}
	for key, value := range c.Labels {
		errs := slices.Concat(validation.IsQualifiedName(key), validation.IsValidLabelValue(value))
		if len(errs) > 0 {
			refuse("Labels: %q: %s", key, errs[0])
		}
		if strings.HasPrefix(key, labelPrefix) || key == LabelManagedBy || strings.HasPrefix(key, podSecurityPrefix) {
			refuse("Labels: %q is this package's own", key)
		}
	}
	switch c.PodSecurity {
	case Restricted, Baseline, Privileged:
	default:
		refuse("PodSecurity %q: use restricted, baseline or privileged", c.PodSecurity)
	}
	for i := range c.Network.From {
		if _, err := metav1.LabelSelectorAsSelector(&c.Network.From[i]); err != nil {
			refuse("Network: %w", err)
		}
	}
	if c.Network.Open && len(c.Network.From) > 0 {
		refuse("Network: Open lets everybody in; drop it or From")
	}
	problems = append(problems, c.checkSecrets()...)
	problems = append(problems, c.checkBindings()...)
	if c.URL != "" {
		u, err := url.Parse(c.expandURL("preview-x", 1))
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Contains(c.expandURL("x", 1), "{{") {
			refuse("URL %q: use https://…, with {{.Number}} or {{.Namespace}}", c.URL)
		} else if c.expandURL("x", 1) == c.URL {
			refuse("URL %q is the same for all previews; use {{.Number}} or {{.Namespace}}", c.URL)
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("%w: preview configuration: %w", stages.ErrInvalid, errors.Join(problems...))
	}
	return nil
}

func (c *Config) defaults() {
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Quota == nil {
		c.Quota = DefaultQuota()
	}
	if c.Limits == nil {
		c.Limits = DefaultLimits()
	}
	if c.PodSecurity == "" {
		c.PodSecurity = Restricted
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Labels = maps.Clone(c.Labels)
	c.Quota = c.Quota.DeepCopy()
	c.Limits = slices.Clone(c.Limits)
	c.Network.From = slices.Clone(c.Network.From)
	c.PullSecrets = slices.Clone(c.PullSecrets)
	c.Bindings = slices.Clone(c.Bindings)
}

func (c *Config) checkSecrets() []error {
	var problems []error
	for i, ref := range c.PullSecrets {
		same := func(other SecretRef) bool { return other.Name == ref.Name }
		switch {
		case ref.Namespace == "" || ref.Name == "":
			problems = append(problems, errors.New("PullSecrets: each needs Namespace and Name"))
		case slices.ContainsFunc(c.PullSecrets[:i], same):
			problems = append(problems, fmt.Errorf("PullSecrets: two are named %q, which can't both be in one namespace", ref.Name))
		}
	}
	return problems
}

func (c *Config) checkBindings() []error {
	var problems []error
	for i, b := range c.Bindings {
		same := func(other Binding) bool { return other.ClusterRole == b.ClusterRole }
		switch {
		case b.ClusterRole == "" || len(b.Subjects) == 0:
			problems = append(problems, errors.New("Bindings: each needs ClusterRole and Subjects"))
		case slices.ContainsFunc(c.Bindings[:i], same):
			problems = append(problems, fmt.Errorf("Bindings: ClusterRole %q is there twice; put the subjects together", b.ClusterRole))
		}
	}
	return problems
}

// expandURL fills in the placeholders.
func (c *Config) expandURL(namespace string, number int) string {
	return strings.NewReplacer("{{.Namespace}}", namespace, "{{.Number}}", fmt.Sprint(number)).Replace(c.URL)
}
