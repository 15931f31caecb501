package traffic

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// Destination is where an Istio route sends to.
type Destination struct {
	// Host is the service, as "shop" or "shop.shop-prod.svc.cluster.local".
	Host string
	// Subset is one of the host's DestinationRule; empty for none.
	Subset string
}

func (d Destination) String() string {
	if d.Subset == "" {
		return d.Host
	}
	return d.Host + ", subset " + d.Subset
}

// VirtualServiceConfig configures a [VirtualService].
type VirtualServiceConfig struct {
	// REST is how to reach the cluster, required. It is copied.
	REST *rest.Config
	// Namespace and Name are those of the VirtualService (networking.istio.io/v1),
	// required.
	Namespace, Name string
	// Stable and Canary are the two destinations, required. They may be two subsets
	// of one host.
	Stable, Canary Destination
	// AllowOthers accepts other VirtualServices of the namespace, and TCP and TLS
	// routes of this one, that send to the stable destination: what they carry never
	// reaches the canary.
	AllowOthers bool
}

// VirtualService is a [Router] that sets the weights of an Istio VirtualService.
// Every HTTP route of it that sends to the stable destination must have both
// destinations, and those two alone, whatever it matches; the other routes are
// left as they are. It needs the verbs get, list and patch on virtualservices.
// Weights are exact.
//
// Istio does not say when all proxies have a new configuration, unless its status
// is turned on, so a split counts as settled when it is stored and not known to be
// refused. Proxies follow within a second or two; have [CanaryConfig.Drain] cover
// that.
type VirtualService struct{ weightedRoute }

var _ Router = (*VirtualService)(nil)

var virtualServiceKind = schema.GroupVersionKind{Group: "networking.istio.io", Version: "v1", Kind: "VirtualService"}

// NewVirtualService returns a router, without asking the cluster anything yet.
// Its error matches [stages.ErrInvalid].
func NewVirtualService(config VirtualServiceConfig) (*VirtualService, error) {
	client, err := dynamicClient(config.REST)
	if err != nil {
		return nil, fmt.Errorf("VirtualService router: %w", err)
	}
	return newVirtualService(client, config)
}

func newVirtualService(client dynamic.Interface, config VirtualServiceConfig) (*VirtualService, error) {
	if config.Namespace == "" || config.Name == "" || config.Stable.Host == "" || config.Canary.Host == "" {
		return nil, fmt.Errorf("VirtualService router: %w: Namespace, Name, Stable and Canary are required", stages.ErrInvalid)
	}
	dialect := istio{config.Namespace, config.Stable, config.Canary}
	if dialect.side(istioDestination{Host: config.Canary.Host, Subset: config.Canary.Subset}) == ofStable {
		return nil, fmt.Errorf("VirtualService router: %w: Stable and Canary are the same destination", stages.ErrInvalid)
	}
	return &VirtualService{weightedRoute{
		routes: newKind(client, config.Namespace, virtualServiceKind, "virtualservices"), name: config.Name, allowOthers: config.AllowOthers,
		dialect: dialect,
	}}, nil
}

// istio is the dialect of VirtualServices.
type istio struct {
	namespace                 string
	stableDestination, canary Destination
}

func (v istio) stable() string { return v.stableDestination.String() }

func (v istio) remedy() string {
	return fmt.Sprintf("give it the destinations %s (weight 100) and %s (weight 0) and no other", v.stableDestination, v.canary)
}

type istioDestination struct {
	Host   string `json:"host"`
	Subset string `json:"subset"`
}

type istioRoute struct {
	Route []struct {
		Destination istioDestination `json:"destination"`
		Weight      int64            `json:"weight"`
	} `json:"route"`
}

type virtualServiceSpec struct {
	HTTP []istioRoute `json:"http"`
	TLS  []istioRoute `json:"tls"`
	TCP  []istioRoute `json:"tcp"`
}

func (v istio) rules(o *unstructured.Unstructured) (routeRules, error) {
	spec, err := decodeSpec[virtualServiceSpec](o)
	if err != nil {
		return nil, err
	}
	var out routeRules
	for i, r := range spec.HTTP {
		out = append(out, v.rule(fmt.Sprintf("http[%d]", i), r, "spec", "http", i, "route"))
	}
	return out, nil
}

func (v istio) rule(name string, r istioRoute, path ...any) routeRule {
	out := routeRule{name: name, path: path}
	for _, to := range r.Route {
		b := backend{side: v.side(to.Destination), weight: to.Weight}
		if len(r.Route) == 1 {
			b.weight = 100 // whatever it says
		}
		out.backends = append(out.backends, b)
	}
	return out
}

// side compares destinations, whose hosts may be spelled in several ways.
func (v istio) side(d istioDestination) side {
	is := func(of Destination) bool { return d.Subset == of.Subset && v.host(d.Host) == v.host(of.Host) }
	switch {
	case is(v.stableDestination):
		return ofStable
	case is(v.canary):
		return ofCanary
	}
	return ofOthers
}

func (v istio) host(name string) string {
	switch strings.Count(name, ".") {
	case 0:
		return name + "." + v.namespace
	default:
		return strings.TrimSuffix(strings.TrimSuffix(name, ".cluster.local"), ".svc")
	}
}

// others are connections, which have no HTTP route.
func (v istio) others(o *unstructured.Unstructured) string {
	spec, err := decodeSpec[virtualServiceSpec](o)
	if err != nil {
		return ""
	}
	for _, r := range slices.Concat(spec.TCP, spec.TLS) {
		if v.rule("", r).concerned() {
			return "a TCP or TLS route sends to " + v.stableDestination.String() + " or its canary"
		}
	}
	return ""
}

func (v istio) toStable(path []any) []operation {
	at := func(field string) string { return pointer(slices.Concat(path, []any{"destination", field})...) }
	patch := []operation{{Op: "replace", Path: at("host"), Value: v.stableDestination.Host}}
	switch {
	case v.stableDestination.Subset != "":
		patch = append(patch, operation{Op: "add", Path: at("subset"), Value: v.stableDestination.Subset})
	case v.canary.Subset != "":
		patch = append(patch, operation{Op: "remove", Path: at("subset")})
	}
	return patch
}

// unsettled goes by what Istio says, if it says anything.
func (v istio) unsettled(o *unstructured.Unstructured, _ bool) string {
	var status struct {
		Status struct {
			Conditions []struct {
				Type    string `json:"type"`
				Status  string `json:"status"`
				Message string `json:"message"`
			} `json:"conditions"`
			ValidationMessages []struct {
				Level string `json:"level"`
				Type  struct {
					Code string `json:"code"`
				} `json:"type"`
			} `json:"validationMessages"`
		} `json:"status"`
	}
	if err := convert(o.Object, &status); err != nil {
		return "its status can't be read: " + err.Error()
	}
	for _, c := range status.Status.Conditions {
		if c.Type == "Reconciled" && c.Status == "False" {
			return "not reconciled: " + c.Message
		}
	}
	for _, m := range status.Status.ValidationMessages {
		if m.Level == "ERROR" {
			return "refused by Istio: " + m.Type.Code
		}
	}
	return ""
}
