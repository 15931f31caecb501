package traffic

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// ReplicasConfig configures [Replicas].
type ReplicasConfig struct {
	// REST is how to reach the cluster, required. It is copied.
	REST *rest.Config
	// Namespace and Service are those of the Service, required. Its selector must
	// match the pods of both releases and no others, and the stable release's workload
	// must have another label in its matchLabels than those.
	Namespace, Service string
	// Stable and Canary are the names of the two releases' Deployments, required.
	Stable, Canary string
	// Kind is what they are instead: "Deployment" or "StatefulSet".
	Kind string
}

// Replicas is a [Router] that needs nothing but a Service: traffic is divided as
// the numbers of pods are. Of the two releases the one with more traffic has as
// many replicas as the stable release had by itself, and the other one its share
// of that, rounded, at least one; so capacity never sinks. With 2 replicas there
// are the weights 33, 50 and 67, with 10 there is 9 and then each percent or two
// up to 91. A client that keeps its connections sees a change late.
//
// While the stable release has fewer replicas than by itself, their number is
// kept in an annotation of it. An autoscaler would work against all this, so a
// workload with one is refused.
//
// Before a canary is deployed, the Service's selector is narrowed by the labels that
// the stable release's workload tells its pods by, and so the canary is verified
// without traffic, by as many pods as its chart says. With the first step it is
// scaled to the share that [Replicas.Nearest] tells, and then the selector becomes
// what it was; an annotation of the Service notes what was added. A chart with no
// replicas is not needed for that, and leaves nothing to verify before the first step:
// give it one at least.
//
// A split has settled when as many pods of each release are ready endpoints. It
// needs the verbs get and patch on the workloads and on services, list on pods,
// endpointslices and, if permitted, horizontalpodautoscalers.
type Replicas struct {
	config    ReplicasConfig
	client    kubernetes.Interface
	workloads kind

	mu      sync.Mutex
	lacking time.Time // since when a shift waits for pods of the stable release
}

var (
	_ Router   = (*Replicas)(nil)
	_ Isolator = (*Replicas)(nil)
)

// annotationReplicas keeps the stable release's own number of replicas, and what
// it was lowered to: if that isn't what it has, somebody has set another one.
const annotationReplicas = "traffic.fairlead.dev/replicas"

// NewReplicas returns a router, without asking the cluster anything yet. Its
// error matches [stages.ErrInvalid].
func NewReplicas(config ReplicasConfig) (*Replicas, error) {
	c, err := access(config.REST)
	if err != nil {
		return nil, fmt.Errorf("replicas router: %w", err)
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("replicas router: %w", errors.Join(stages.ErrInvalid, err))
	}
	dynamics, err := dynamic.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("replicas router: %w", errors.Join(stages.ErrInvalid, err))
	}
	return newReplicas(client, dynamics, config)
}

func newReplicas(client kubernetes.Interface, dynamics dynamic.Interface, config ReplicasConfig) (*Replicas, error) {
	resource := "deployments"
	switch config.Kind {
	case "":
		config.Kind = "Deployment"
	case "Deployment":
	case "StatefulSet":
		resource = "statefulsets"
	default:
		return nil, fmt.Errorf("replicas router: %w: Kind %.40q is neither Deployment nor StatefulSet", stages.ErrInvalid, config.Kind)
	}
	if config.Namespace == "" || config.Service == "" || config.Stable == "" || config.Canary == "" || config.Stable == config.Canary {
		return nil, fmt.Errorf("replicas router: %w: Namespace, Service, Stable and Canary are required, the latter two different", stages.ErrInvalid)
	}
	gvk := schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: config.Kind}
	return &Replicas{config: config, client: client, workloads: newKind(dynamics, config.Namespace, gvk, resource)}, nil
}

// Nearest returns the share that the replicas for weight come to.
func (r *Replicas) Nearest(ctx context.Context, weight int) (int, error) {
	if err := checkWeight(weight); err != nil {
		return 0, err
	}
	w, err := r.read(ctx)
	if err == nil {
		err = w.odd
	}
	if err == nil && w.weight() == 0 { // Later it is too late to keep anything from a canary.
		err = r.checkStrangers(w)
	}
	if err != nil {
		return 0, err
	}
	if err := r.checkAutoscalers(ctx); err != nil {
		return 0, err
	}
	stable, canary := counts(w.stable.full(), weight)
	return share(canary, stable+canary), nil
}

// counts returns how many replicas each release has at a weight, if the stable
// one has full by itself.
func counts(full int64, weight int) (stable, canary int64) {
	w := int64(weight)
	switch {
	case w == 0:
		return full, 0
	case w == 100:
		return 0, full
	case w <= 50:
		return full, max(1, divide(full*w, 100-w))
	}
	return max(1, divide(full*(100-w), w)), full
}

// divide rounds.
func divide(a, b int64) int64 { return (2*a + b) / (2 * b) }

// Shift scales the releases: first the one that grows, and the one that shrinks
// only when the other can do without. Until then, or for half a minute where that
// is the stable release and a pod of it serves, it returns an error, and is to be
// repeated.
func (r *Replicas) Shift(ctx context.Context, from, to int) error {
	if err := checkWeight(to); err != nil {
		return err
	}
	w, err := r.read(ctx)
	if err != nil {
		return err
	}
	if w.odd != nil && (to > 0 || from != Any) { // The canary of an abort shrinks in any case.
		return w.odd
	}
	full := w.stable.full()
	if full < 1 { // Nobody knows any more what it was.
		full = max(1, w.canary.count())
	}
	stable, canary := counts(full, to)
	if err := w.expect(full, from, to); err != nil {
		return err
	}
	if canary > 0 && w.canary == nil {
		return &RouteError{Object: r.workloads.object(r.config.Canary), Problem: "doesn't exist", Missing: true}
	}
	has := w.canary.count()
	if stable > w.stable.count() {
		if err := r.scale(ctx, w.stable, stable, full); err != nil {
			return err
		}
	}
	if w.selection.isolated {
		return r.admit(ctx, w, stable, canary)
	}
	if !w.selection.stale {
		r.disownService(ctx, w.selection.service)
	}
	if canary > has {
		if err := r.scale(ctx, w.canary, canary, canary); err != nil {
			return err
		}
	}
	switch {
	case canary < has:
		if err := r.replaceable(w.servingStable, stable); err != nil {
			return err
		}
		if err := r.scale(ctx, w.canary, canary, canary); err != nil {
			return err
		}
	case stable < w.stable.count():
		if w.servingCanary < canary {
			return fmt.Errorf("%w: %d of %d pods of %s are ready to take the traffic yet", errUnsettled, w.servingCanary, canary, r.config.Canary)
		}
		return r.scale(ctx, w.stable, stable, full)
	}
	if to > 0 {
		return nil
	}
	r.workloads.disown(ctx, w.stable.object)
	if w.selection.stale {
		return r.selects(ctx, w.selection, w.selection.own, nil)
	}
	return nil
}

// graceTime is how long the canary goes on for pods of the stable release that
// are to take its place. After that one has to do: it may have lacked some before,
// or there is room for them only where the canary's are.
const graceTime = 30 * time.Second

// replaceable reports, as nil, that the canary may shrink.
func (r *Replicas) replaceable(serving, wanted int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if serving >= wanted {
		r.lacking = time.Time{}
		return nil
	}
	if r.lacking.IsZero() {
		r.lacking = time.Now()
	}
	if serving > 0 && time.Since(r.lacking) >= graceTime {
		r.lacking = time.Time{}
		return nil
	}
	return fmt.Errorf("%w: %d of %d pods of %s are ready to take the traffic yet", errUnsettled, serving, wanted, r.config.Stable)
}

// Observe compares the numbers of replicas with the Service's endpoints.
func (r *Replicas) Observe(ctx context.Context) (Split, error) {
	w, err := r.read(ctx)
	if err != nil {
		return Split{}, err
	}
	stable, canary := w.stable.count(), w.canary.count()
	s := Split{
		Canary: w.weight(), Isolated: w.selection.isolated,
		Detail: fmt.Sprintf("Service %s/%s has %d of %d stable and %d of %d canary pods as ready endpoints",
			r.config.Namespace, r.config.Service, w.servingStable, stable, w.servingCanary, canary),
	}
	if s.Canary == 0 {
		// A stable release that lacks a pod is no traffic to the canary.
		s.Settled = w.servingCanary == 0 && w.servingStable > 0
	} else {
		s.Settled = w.servingCanary == canary && w.servingStable == stable
		err = w.odd
	}
	return s, err
}

// scale sets a workload's replicas, and remembers full if they are fewer.
func (r *Replicas) scale(ctx context.Context, w *workload, replicas, full int64) error {
	patch := []operation{{Op: "add", Path: pointer("spec", "replicas"), Value: replicas}}
	_, noted := w.object.GetAnnotations()[annotationReplicas]
	switch {
	case replicas < full:
		if len(w.object.GetAnnotations()) == 0 {
			patch = append(patch, operation{Op: "add", Path: pointer("metadata", "annotations"), Value: map[string]string{}})
		}
		patch = append(patch, operation{Op: "add", Path: pointer("metadata", "annotations", annotationReplicas), Value: fmt.Sprintf("%d/%d", full, replicas)})
	case noted:
		patch = append(patch, operation{Op: "remove", Path: pointer("metadata", "annotations", annotationReplicas)})
	}
	_, err := r.workloads.patch(ctx, w.object, patch)
	return err
}

// checkAutoscalers refuses a workload that something else scales.
func (r *Replicas) checkAutoscalers(ctx context.Context) error {
	all, err := r.client.AutoscalingV2().HorizontalPodAutoscalers(r.config.Namespace).List(ctx, metav1.ListOptions{})
	switch {
	case apierrors.IsForbidden(err), apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return orCause(ctx, explain(err, "list", stages.Object{Kind: "HorizontalPodAutoscaler", Namespace: r.config.Namespace, Name: "*"}))
	}
	for i := range all.Items {
		target := all.Items[i].Spec.ScaleTargetRef
		if target.Kind == r.config.Kind && (target.Name == r.config.Stable || target.Name == r.config.Canary) {
			return &RouteError{Object: r.workloads.object(target.Name), Problem: "is scaled by HorizontalPodAutoscaler " + all.Items[i].Name,
				Remedy: "use a router that divides requests instead of pods"}
		}
	}
	return nil
}
