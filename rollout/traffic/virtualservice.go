package traffic

import (
	"context"
	"fmt"
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
type VirtualService struct {
	config   VirtualServiceConfig
	services kind
}

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
	r := &VirtualService{config: config, services: newKind(client, config.Namespace, virtualServiceKind, "virtualservices")}
	if config.Namespace == "" || config.Name == "" || config.Stable.Host == "" || config.Canary.Host == "" {
		return nil, fmt.Errorf("VirtualService router: %w: Namespace, Name, Stable and Canary are required", stages.ErrInvalid)
	}
	if r.same(istioDestination{Host: config.Stable.Host, Subset: config.Stable.Subset}, config.Canary) {
		return nil, fmt.Errorf("VirtualService router: %w: Stable and Canary are the same destination", stages.ErrInvalid)
	}
	return r, nil
}

// Nearest returns weight itself, if the routes can be divided.
func (r *VirtualService) Nearest(ctx context.Context, weight int) (int, error) {
	if err := checkWeight(weight); err != nil {
		return 0, err
	}
	_, pairs, err := r.read(ctx)
	if err == nil {
		err = r.checkDivided(pairs)
	}
	if err != nil {
		return 0, err
	}
	return weight, r.checkOthers(ctx)
}

// Shift sets the weights.
func (r *VirtualService) Shift(ctx context.Context, from, to int) error {
	if err := checkWeight(to); err != nil {
		return err
	}
	o, pairs, err := r.read(ctx)
	if err != nil {
		return err
	}
	if err := pairs.check(from, to); err != nil {
		return err
	}
	if pairs.share() == to && pairs.even() {
		return nil
	}
	if to > 0 {
		if err := r.checkDivided(pairs); err != nil {
			return err
		}
	}
	return r.services.patch(ctx, o, pairs.patch("http", "route", to))
}

// checkDivided refuses routes that can't give the canary a share.
func (r *VirtualService) checkDivided(pairs pairs) error {
	if rule, problem := pairs.undivided(); problem != "" {
		return r.odd(fmt.Sprintf("http[%d] %s", rule, problem), r.remedy())
	}
	return nil
}

func (r *VirtualService) remedy() string {
	return fmt.Sprintf("give it the destinations %s (weight 100) and %s (weight 0) and no other", r.config.Stable, r.config.Canary)
}

// Observe reads the weights, and what Istio says of them if it does.
func (r *VirtualService) Observe(ctx context.Context) (Split, error) {
	o, pairs, err := r.read(ctx)
	if err != nil {
		return Split{}, err
	}
	s := Split{Canary: pairs.share(), Uneven: !pairs.even(), Settled: pairs.even(), Detail: r.services.object(r.config.Name).String() + ": " + pairs.String()}
	if problem := unreconciled(o); problem != "" {
		s.Settled = false
		s.Detail += "; " + problem
	}
	if s.Canary > 0 {
		err = r.checkDivided(pairs)
	}
	return s, err
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

// same compares destinations, whose hosts may be spelled in several ways.
func (r *VirtualService) same(a istioDestination, b Destination) bool {
	return a.Subset == b.Subset && r.host(a.Host) == r.host(b.Host)
}

func (r *VirtualService) host(name string) string {
	switch strings.Count(name, ".") {
	case 0:
		return name + "." + r.config.Namespace
	default:
		return strings.TrimSuffix(strings.TrimSuffix(name, ".cluster.local"), ".svc")
	}
}

func (r *VirtualService) concerns(routes []istioRoute) bool {
	for _, route := range routes {
		for _, to := range route.Route {
			if r.same(to.Destination, r.config.Stable) || r.same(to.Destination, r.config.Canary) {
				return true
			}
		}
	}
	return false
}

// read returns the VirtualService, and where in it the weights are.
func (r *VirtualService) read(ctx context.Context) (*unstructured.Unstructured, pairs, error) {
	o, err := r.services.get(ctx, r.config.Name)
	if err != nil {
		return nil, nil, err
	}
	spec, err := decodeSpec[virtualServiceSpec](o)
	if err != nil {
		return nil, nil, r.odd(err.Error(), "")
	}
	if !r.config.AllowOthers && (r.concerns(spec.TCP) || r.concerns(spec.TLS)) {
		return nil, nil, r.odd("a TCP or TLS route sends to "+r.config.Stable.String(), "set AllowOthers if its connections are not the canary's")
	}
	var found pairs
	for i, route := range spec.HTTP {
		p := pair{rule: i}
		for j, to := range route.Route {
			p.add(j, to.Weight, r.same(to.Destination, r.config.Stable), r.same(to.Destination, r.config.Canary))
		}
		if !p.concerned() {
			continue
		}
		if problem := p.problem(); problem != "" {
			return nil, nil, r.odd(fmt.Sprintf("http[%d] %s", i, problem), r.remedy())
		}
		found = append(found, p)
	}
	if len(found) == 0 {
		return nil, nil, r.odd("no HTTP route sends to "+r.config.Stable.String(), "name the destination that it sends to")
	}
	return o, found, nil
}

func (r *VirtualService) odd(problem, remedy string) error {
	return &RouteError{Object: r.services.object(r.config.Name), Problem: problem, Remedy: remedy}
}

// checkOthers refuses a second VirtualService with the stable destination, of
// whose requests the canary would get none.
func (r *VirtualService) checkOthers(ctx context.Context) error {
	if r.config.AllowOthers {
		return nil
	}
	all, err := r.services.list(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		spec, err := decodeSpec[virtualServiceSpec](&all[i])
		if all[i].GetName() == r.config.Name || err != nil {
			continue
		}
		if r.concerns(spec.HTTP) || r.concerns(spec.TCP) || r.concerns(spec.TLS) {
			return r.odd(fmt.Sprintf("VirtualService %s sends to %s or %s as well", all[i].GetName(), r.config.Stable, r.config.Canary),
				"join the two, or set AllowOthers if its requests are not the canary's")
		}
	}
	return nil
}

// unreconciled says what Istio has against an object, if it says anything.
func unreconciled(o *unstructured.Unstructured) string {
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
