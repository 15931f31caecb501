package traffic

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// HTTPRouteConfig configures an [HTTPRoute].
type HTTPRouteConfig struct {
	// REST is how to reach the cluster, required. It is copied.
	REST *rest.Config
	// Namespace and Name are those of the HTTPRoute (gateway.networking.k8s.io/v1),
	// required.
	Namespace, Name string
	// Stable and Canary are the names of the Services that its backendRefs name,
	// required.
	Stable, Canary string
	// AllowOthers accepts other HTTPRoutes of the namespace that send to the stable
	// Service: their requests never reach the canary.
	AllowOthers bool
}

// HTTPRoute is a [Router] that sets the weights of a Gateway API HTTPRoute. Every
// rule of it that sends to the stable Service must have both Services among its
// backendRefs, and those two alone; the other rules are left as they are. It needs
// the verbs get, list and patch on httproutes. Weights are exact.
//
// A split has settled when every parent (Gateway) has accepted the route as it is
// and resolved its references, save that a canary without weight need not exist.
// Until a controller says so, nothing has. It may say so a moment before its proxies
// follow, as Traefik does, which collects changes for two seconds; have
// [CanaryConfig.Drain] cover that.
type HTTPRoute struct {
	config HTTPRouteConfig
	routes kind
}

var _ Router = (*HTTPRoute)(nil)

var httpRouteKind = schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "HTTPRoute"}

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
	if config.Namespace == "" || config.Name == "" || config.Stable == "" || config.Canary == "" || config.Stable == config.Canary {
		return nil, fmt.Errorf("HTTPRoute router: %w: Namespace, Name, Stable and Canary are required, the latter two different", stages.ErrInvalid)
	}
	return &HTTPRoute{config: config, routes: newKind(client, config.Namespace, httpRouteKind, "httproutes")}, nil
}

// Nearest returns weight itself, if the route can be divided.
func (r *HTTPRoute) Nearest(ctx context.Context, weight int) (int, error) {
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
func (r *HTTPRoute) Shift(ctx context.Context, from, to int) error {
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
	return r.routes.patch(ctx, o, pairs.patch("rules", "backendRefs", to))
}

// checkDivided refuses rules that can't give the canary a share.
func (r *HTTPRoute) checkDivided(pairs pairs) error {
	if rule, problem := pairs.undivided(); problem != "" {
		return r.odd(fmt.Sprintf("rule %d %s", rule, problem), r.remedy())
	}
	return nil
}

func (r *HTTPRoute) remedy() string {
	return fmt.Sprintf("give it the backendRefs %s and %s and no other", r.config.Stable, r.config.Canary)
}

// Observe reads the weights, and what the gateways' controllers say of the route.
func (r *HTTPRoute) Observe(ctx context.Context) (Split, error) {
	o, pairs, err := r.read(ctx)
	if err != nil {
		return Split{}, err
	}
	s := r.split(o, pairs)
	if s.Canary > 0 {
		err = r.checkDivided(pairs)
	}
	return s, err
}

func (r *HTTPRoute) split(o *unstructured.Unstructured, pairs pairs) Split {
	s := Split{Canary: pairs.share(), Uneven: !pairs.even(), Settled: true, Detail: r.routes.object(r.config.Name).String() + ": " + pairs.String()}
	switch problem := unaccepted(o, s.Canary > 0); {
	case s.Uneven:
		s.Settled = false
		s.Detail += "; the rules differ"
	case problem != "":
		s.Settled = false
		s.Detail += "; " + problem
	}
	return s
}

// backendRef is what is read of a backendRef.
type backendRef struct {
	Group     string `json:"group"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Weight    *int64 `json:"weight"`
}

type httpRouteSpec struct {
	Rules []struct {
		BackendRefs []backendRef `json:"backendRefs"`
	} `json:"rules"`
}

func (r *HTTPRoute) isService(b backendRef, name string) bool {
	return b.Group == "" && (b.Kind == "" || b.Kind == "Service") && (b.Namespace == "" || b.Namespace == r.config.Namespace) && b.Name == name
}

// read returns the route, and where in it the weights are.
func (r *HTTPRoute) read(ctx context.Context) (*unstructured.Unstructured, pairs, error) {
	o, err := r.routes.get(ctx, r.config.Name)
	if err != nil {
		return nil, nil, err
	}
	spec, err := decodeSpec[httpRouteSpec](o)
	if err != nil {
		return nil, nil, r.odd(err.Error(), "")
	}
	var found pairs
	for i, rule := range spec.Rules {
		p := pair{rule: i}
		for j, b := range rule.BackendRefs {
			weight := int64(1)
			if b.Weight != nil {
				weight = *b.Weight
			}
			p.add(j, weight, r.isService(b, r.config.Stable), r.isService(b, r.config.Canary))
		}
		if !p.concerned() {
			continue
		}
		if problem := p.problem(); problem != "" {
			return nil, nil, r.odd(fmt.Sprintf("rule %d %s", i, problem), r.remedy())
		}
		found = append(found, p)
	}
	if len(found) == 0 {
		return nil, nil, r.odd("no rule sends to Service "+r.config.Stable, "name the Service that the route sends to")
	}
	return o, found, nil
}

func (r *HTTPRoute) odd(problem, remedy string) error {
	return &RouteError{Object: r.routes.object(r.config.Name), Problem: problem, Remedy: remedy}
}

// checkOthers refuses a second route to the stable Service, of whose requests the
// canary would get none.
func (r *HTTPRoute) checkOthers(ctx context.Context) error {
	if r.config.AllowOthers {
		return nil
	}
	all, err := r.routes.list(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		o := &all[i]
		spec, err := decodeSpec[httpRouteSpec](o)
		if o.GetName() == r.config.Name || err != nil {
			continue
		}
		for _, rule := range spec.Rules {
			for _, b := range rule.BackendRefs {
				if r.isService(b, r.config.Stable) || r.isService(b, r.config.Canary) {
					return r.odd(fmt.Sprintf("HTTPRoute %s sends to Service %s as well", o.GetName(), b.Name),
						"join the two, or set AllowOthers if its requests are not the canary's")
				}
			}
		}
	}
	return nil
}

// unaccepted says what keeps a route from having taken effect. Whether it resolves
// doesn't matter where it need not: a canary's Service comes and goes with it.
func unaccepted(o *unstructured.Unstructured, resolved bool) string {
	var status struct {
		Status struct {
			Parents []struct {
				ParentRef struct {
					Name string `json:"name"`
				} `json:"parentRef"`
				Conditions []metav1.Condition `json:"conditions"`
			} `json:"parents"`
		} `json:"status"`
	}
	if err := convert(o.Object, &status); err != nil {
		return "its status can't be read: " + err.Error()
	}
	if len(status.Status.Parents) == 0 {
		return "no gateway has accepted it yet"
	}
	for _, parent := range status.Status.Parents {
		for _, want := range []string{"Accepted", "ResolvedRefs"} {
			ok := false
			reason := "unknown"
			for _, c := range parent.Conditions {
				if c.Type == want {
					reason = c.Reason
					ok = c.ObservedGeneration >= o.GetGeneration() &&
						(c.Status == metav1.ConditionTrue || want == "ResolvedRefs" && !resolved)
					if c.ObservedGeneration < o.GetGeneration() {
						reason = "not observed yet"
					}
				}
			}
			if !ok {
				return fmt.Sprintf("gateway %s: not %s (%s)", parent.ParentRef.Name, want, reason)
			}
		}
	}
	return ""
}

// decodeSpec reads what is wanted of an object's spec.
func decodeSpec[T any](o *unstructured.Unstructured) (T, error) {
	var out struct {
		Spec T `json:"spec"`
	}
	if err := convert(o.Object, &out); err != nil {
		return out.Spec, fmt.Errorf("its spec can't be read: %w", err)
	}
	return out.Spec, nil
}

// convert goes by way of JSON, which is stricter than the converter of runtime.
func convert(from map[string]any, to any) error {
	data, err := json.Marshal(runtime.DeepCopyJSON(from))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}
