package traffic

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// SelectorConfig configures a [Selector].
type SelectorConfig struct {
	// REST is how to reach the cluster, required. It is copied.
	REST *rest.Config
	// Namespace and Service are those of the Service, required.
	Namespace, Service string
	// Key is the label of its selector that tells the releases apart. Default
	// "app.kubernetes.io/instance".
	Key string
	// Stable and Canary are the values that it has, required.
	Stable, Canary string
}

// DefaultSelectorKey is what Helm charts tell their releases by.
const DefaultSelectorKey = "app.kubernetes.io/instance"

// Selector is a [Router] that points a Service at the one release or the other,
// for blue/green deployments: it has no weights but 0 and 100, and only switches
// to a release that has a ready pod. With one [Step] of weight 100 the old colour
// goes on running for as long as the step takes, ready to be switched back to.
//
// A split has settled when nothing but pods of the release are ready endpoints.
// It needs the verbs get and patch on services, and list on pods and
// endpointslices.
type Selector struct {
	config   SelectorConfig
	client   kubernetes.Interface
	services kind
}

var _ Router = (*Selector)(nil)

// NewSelector returns a router, without asking the cluster anything yet. Its
// error matches [stages.ErrInvalid].
func NewSelector(config SelectorConfig) (*Selector, error) {
	c, err := access(config.REST)
	if err != nil {
		return nil, fmt.Errorf("selector router: %w", err)
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("selector router: %w", errors.Join(stages.ErrInvalid, err))
	}
	dynamics, err := dynamic.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("selector router: %w", errors.Join(stages.ErrInvalid, err))
	}
	return newSelector(client, dynamics, config)
}

func newSelector(client kubernetes.Interface, dynamics dynamic.Interface, config SelectorConfig) (*Selector, error) {
	if config.Key == "" {
		config.Key = DefaultSelectorKey
	}
	if config.Namespace == "" || config.Service == "" || config.Stable == "" || config.Canary == "" || config.Stable == config.Canary {
		return nil, fmt.Errorf("selector router: %w: Namespace, Service, Stable and Canary are required, the latter two different", stages.ErrInvalid)
	}
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "Service"}
	return &Selector{config: config, client: client, services: newKind(dynamics, config.Namespace, gvk, "services")}, nil
}

// Nearest returns 0 or 100.
func (r *Selector) Nearest(ctx context.Context, weight int) (int, error) {
	if err := checkWeight(weight); err != nil {
		return 0, err
	}
	if _, _, err := r.read(ctx); err != nil {
		return 0, err
	}
	if weight == 0 {
		return 0, nil
	}
	return 100, nil
}

// Shift switches the Service over. While the release that is to take the traffic
// has no ready pod it returns an error, and is to be repeated.
func (r *Selector) Shift(ctx context.Context, from, to int) error {
	if to != 0 && to != 100 {
		return fmt.Errorf("%w: a Service's selector has no weight %d", stages.ErrInvalid, to)
	}
	o, now, err := r.read(ctx)
	if err != nil && (o == nil || from != Any || to != 0) { // An abort sets any selector right.
		return err
	}
	if err == nil {
		if err := expect(from, to, Split{Canary: now}); err != nil {
			return err
		}
		if now == to {
			r.given(ctx, o, to)
			return nil
		}
	}
	b, err := readBackends(ctx, r.client, r.config.Namespace, r.config.Service)
	if err != nil {
		return err
	}
	// Other components of the release may have its label as well.
	selector, selected := r.selected(o, to)
	if count(b.ready, selected) == 0 {
		return fmt.Errorf("%w: no pod with %s is ready to take the traffic yet", errUnsettled, selected)
	}
	if o, err = r.services.patch(ctx, o, []operation{{Op: "add", Path: pointer("spec", "selector"), Value: selector}}); err != nil {
		return err
	}
	r.given(ctx, o, to)
	return nil
}

// given gives the selector up with the last of the traffic.
func (r *Selector) given(ctx context.Context, o *unstructured.Unstructured, weight int) {
	if weight == 0 {
		r.services.disown(ctx, o)
	}
}

// Observe compares the selector with the Service's endpoints.
func (r *Selector) Observe(ctx context.Context) (Split, error) {
	_, now, err := r.read(ctx)
	if err != nil {
		return Split{}, err
	}
	b, err := readBackends(ctx, r.client, r.config.Namespace, r.config.Service)
	if err != nil {
		return Split{}, err
	}
	serving := count(b.serving, r.pods(now))
	return Split{
		Canary: now, Settled: serving > 0 && int(serving) == len(b.serving),
		Detail: fmt.Sprintf("Service %s/%s selects %s, which %d of its %d ready endpoints are", r.config.Namespace, r.config.Service, r.pods(now), serving, len(b.serving)),
	}, nil
}

func (r *Selector) value(weight int) string {
	if weight == 0 {
		return r.config.Stable
	}
	return r.config.Canary
}

func (r *Selector) pods(weight int) labels.Selector {
	return labels.SelectorFromSet(labels.Set{r.config.Key: r.value(weight)})
}

// selected is the Service's selector as it is at a weight.
func (r *Selector) selected(service *unstructured.Unstructured, weight int) (map[string]string, labels.Selector) {
	selector, _, _ := unstructured.NestedStringMap(service.Object, "spec", "selector")
	if selector == nil {
		selector = map[string]string{}
	}
	selector[r.config.Key] = r.value(weight)
	return selector, labels.SelectorFromSet(selector)
}

// read returns the Service, even one that selects neither release.
func (r *Selector) read(ctx context.Context) (o *unstructured.Unstructured, weight int, err error) {
	if o, err = r.services.get(ctx, r.config.Service); err != nil {
		return nil, 0, err
	}
	selector, _, err := unstructured.NestedStringMap(o.Object, "spec", "selector")
	if err != nil {
		return o, 0, &RouteError{Object: r.services.object(r.config.Service), Problem: "its selector can't be read: " + err.Error()}
	}
	switch selector[r.config.Key] {
	case r.config.Stable:
		return o, 0, nil
	case r.config.Canary:
		return o, 100, nil
	}
	return o, 0, &RouteError{Object: r.services.object(r.config.Service),
		Problem: fmt.Sprintf("selects %s=%q, which is neither release", r.config.Key, selector[r.config.Key]),
		Remedy:  fmt.Sprintf("have it select %s or %s", r.config.Stable, r.config.Canary)}
}
