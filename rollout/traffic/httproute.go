package traffic

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// HTTPRouteConfig configures an [HTTPRoute].
type HTTPRouteConfig struct {
	// REST is how to reach the cluster, required. It is copied.
	REST *rest.Config
	// Namespace and Name are those of the route (gateway.networking.k8s.io/v1),
	// required.
	Namespace, Name string
	// Stable and Canary are the names of the Services that its backendRefs name,
	// required.
	Stable, Canary string
	// AllowOthers accepts other routes of the kind in the namespace that send to the
	// stable Service: their requests never reach the canary.
	AllowOthers bool
}

// HTTPRoute is a [Router] that sets the weights of a Gateway API HTTPRoute. Every
// rule of it that sends to the stable Service must have both Services among its
// backendRefs, and those two alone; the other rules are left as they are. It needs
// the verbs get, list and patch on httproutes. Weights are exact.
//
// A split has settled when every parent (Gateway) that the route's parentRefs name
// has accepted the route as it is and resolved its references, save that a canary
// without weight need not exist. Until a controller says so, nothing has; what one
// says of a parent that is not named any more doesn't count. It may say so a moment before its proxies
// follow, as Traefik does, which collects changes for two seconds; have
// [CanaryConfig.Drain] cover that.
type HTTPRoute struct{ weightedRoute }

// GRPCRouteConfig configures a [GRPCRoute], field by field as [HTTPRouteConfig]
// does an [HTTPRoute].
type GRPCRouteConfig HTTPRouteConfig

// GRPCRoute is a [Router] that sets the weights of a Gateway API GRPCRoute. All
// that is true of an [HTTPRoute] is true of it; it needs its verbs on grpcroutes.
type GRPCRoute struct{ weightedRoute }

var (
	_ Router = (*HTTPRoute)(nil)
	_ Router = (*GRPCRoute)(nil)

	httpRouteKind = schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "HTTPRoute"}
	grpcRouteKind = schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "GRPCRoute"}
)

// NewHTTPRoute returns a router, without asking the cluster anything yet. Its
// error matches [stages.ErrInvalid].
func NewHTTPRoute(config HTTPRouteConfig) (*HTTPRoute, error) {
	client, err := dynamicClient(config.REST)
	if err != nil {
		return nil, fmt.Errorf("HTTPRoute router: %w", err)
	}
	return newHTTPRoute(client, config)
}

func newHTTPRoute(client dynamic.Interface, config HTTPRouteConfig) (*HTTPRoute, error) {
	route, err := newGatewayRoute(client, httpRouteKind, "httproutes", config)
	if err != nil {
		return nil, err
	}
	return &HTTPRoute{route}, nil
}

// NewGRPCRoute returns a router, without asking the cluster anything yet. Its
// error matches [stages.ErrInvalid].
func NewGRPCRoute(config GRPCRouteConfig) (*GRPCRoute, error) {
	client, err := dynamicClient(config.REST)
	if err != nil {
		return nil, fmt.Errorf("GRPCRoute router: %w", err)
	}
	return newGRPCRoute(client, config)
}

func newGRPCRoute(client dynamic.Interface, config GRPCRouteConfig) (*GRPCRoute, error) {
	route, err := newGatewayRoute(client, grpcRouteKind, "grpcroutes", HTTPRouteConfig(config))
	if err != nil {
		return nil, err
	}
	return &GRPCRoute{route}, nil
}

func newGatewayRoute(client dynamic.Interface, gvk schema.GroupVersionKind, resource string, config HTTPRouteConfig) (weightedRoute, error) {
	if config.Namespace == "" || config.Name == "" || config.Stable == "" || config.Canary == "" || config.Stable == config.Canary {
		return weightedRoute{}, fmt.Errorf("%s router: %w: Namespace, Name, Stable and Canary are required, the latter two different", gvk.Kind, stages.ErrInvalid)
	}
	return weightedRoute{
		routes: newKind(client, config.Namespace, gvk, resource), name: config.Name, allowOthers: config.AllowOthers,
		dialect: gateway{config.Namespace, config.Stable, config.Canary},
	}, nil
}

// gateway is the dialect of the Gateway API's routes that divide requests.
type gateway struct{ namespace, stableService, canaryService string }

func (g gateway) stable() string { return "Service " + g.stableService }

func (g gateway) remedy() string {
	return fmt.Sprintf("give it the backendRefs %s and %s and no other", g.stableService, g.canaryService)
}

func (g gateway) rules(o *unstructured.Unstructured) (routeRules, error) {
	spec, err := decodeSpec[struct {
		Rules []struct {
			BackendRefs []backendRef `json:"backendRefs"`
		} `json:"rules"`
	}](o)
	if err != nil {
		return nil, err
	}
	var out routeRules
	for i, r := range spec.Rules {
		found := routeRule{name: fmt.Sprintf("rule %d", i), path: []any{"spec", "rules", i, "backendRefs"}}
		for _, ref := range r.BackendRefs {
			b := backend{side: g.side(ref), weight: 1}
			if ref.Weight != nil {
				b.weight = *ref.Weight
			}
			found.backends = append(found.backends, b)
		}
		out = append(out, found)
	}
	return out, nil
}

// backendRef is what is read of one.
type backendRef struct {
	Group     string `json:"group"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Weight    *int64 `json:"weight"`
}

func (g gateway) side(b backendRef) side {
	service := b.Group == "" && (b.Kind == "" || b.Kind == "Service") && (b.Namespace == "" || b.Namespace == g.namespace)
	switch {
	case service && b.Name == g.stableService:
		return ofStable
	case service && b.Name == g.canaryService:
		return ofCanary
	}
	return ofOthers
}

func (g gateway) others(*unstructured.Unstructured) string { return "" }

func (g gateway) toStable(path []any) []operation {
	return []operation{{Op: "replace", Path: pointer(append(path, "name")...), Value: g.stableService}}
}
