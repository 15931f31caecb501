package traffic

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-dev/fairlead/stages"
)

// workload is one of the two releases'.
type workload struct {
	object   *unstructured.Unstructured
	replicas int64
	selector labels.Selector
	matched  map[string]string // the labels that the selector asks for
	labels   labels.Set        // of its pods
}

// count is 0 for a workload that doesn't exist.
func (w *workload) count() int64 {
	if w == nil {
		return 0
	}
	return w.replicas
}

// full is the number of replicas that the workload has by itself.
func (w *workload) full() int64 {
	var full, lowered int64
	n, err := fmt.Sscanf(w.object.GetAnnotations()[annotationReplicas], "%d/%d", &full, &lowered)
	if err == nil && n == 2 && (lowered == w.replicas || w.replicas == 0) && full > 0 {
		return full
	}
	return w.replicas
}

// releases are the two workloads, and how many pods of each serve.
type releases struct {
	stable, canary *workload
	selection      selection
	// What the Service sends to, the canary's pods that it could send to, and those of
	// neither release that it sends to when it isn't narrowed.
	servingStable, servingCanary, readyCanary, strangers int64
	// odd is why the canary can't be given a share; it can be taken from it.
	odd error
}

// expect refuses numbers of replicas that belong neither to the one nor to the
// other weight, nor to the way between them.
func (w releases) expect(full int64, from, to int) error {
	if from == Any {
		return nil
	}
	stable, canary := w.stable.count(), w.canary.count()
	s1, c1 := counts(full, from)
	s2, c2 := counts(full, to)
	known := canary == c1 || canary == c2
	if w.selection.isolated {
		known = from == 0 || to == 0 // The canary has as many as its chart says.
	}
	if known && (stable == s1 || stable == s2) {
		return nil
	}
	return &ChangedError{Want: []int{from, to}, Got: w.weight(), Detail: fmt.Sprintf("%d stable and %d canary replicas", stable, canary)}
}

// weight is the canary's share.
func (w releases) weight() int {
	if w.selection.isolated {
		return 0
	}
	stable, canary := w.stable.count(), w.canary.count()
	return share(canary, stable+canary)
}

func (r *Replicas) service() stages.Object {
	return stages.Object{APIVersion: "v1", Kind: "Service", Namespace: r.config.Namespace, Name: r.config.Service}
}

func (r *Replicas) read(ctx context.Context) (releases, error) {
	object := r.service()
	service, err := r.client.CoreV1().Services(r.config.Namespace).Get(ctx, r.config.Service, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return releases{}, &RouteError{Object: object, Problem: "doesn't exist", Missing: true}
	case err != nil:
		return releases{}, orCause(ctx, explain(err, "read", object))
	}
	var w releases
	if w.stable, err = r.workload(ctx, r.config.Stable); err != nil {
		return releases{}, err
	}
	w.canary, err = r.workload(ctx, r.config.Canary)
	if route, ok := errors.AsType[*RouteError](err); ok && route.Missing {
		w.canary = nil
	} else if err != nil {
		return releases{}, err
	}
	w.selection = selectionOf(service, w.stable)
	w.odd = r.check(w)
	b, err := readBackends(ctx, r.client, r.config.Namespace, r.config.Service)
	if err != nil {
		return releases{}, err
	}
	w.servingStable = count(b.serving, w.stable.selector)
	if w.canary != nil {
		w.servingCanary, w.readyCanary = count(b.serving, w.canary.selector), count(b.ready, w.canary.selector)
	}
	// Endpoints lag behind pods, and so tell nothing of strangers.
	own := labels.SelectorFromSet(w.selection.own)
	for _, pod := range b.ready {
		if own.Matches(pod) && !w.stable.selector.Matches(pod) && (w.canary == nil || !w.canary.selector.Matches(pod)) {
			w.strangers++
		}
	}
	return w, nil
}

// check refuses releases that a Service can't divide its traffic between.
func (r *Replicas) check(w releases) error {
	selector := labels.Set(w.selection.own)
	if len(selector) == 0 {
		return &RouteError{Object: r.service(), Problem: "has no selector"}
	}
	for name, workload := range map[string]*workload{r.config.Stable: w.stable, r.config.Canary: w.canary} {
		if workload != nil && !selector.AsSelector().Matches(workload.labels) {
			return &RouteError{Object: r.service(), Problem: fmt.Sprintf("selects %s, which the pods of %s are not", selector, name),
				Remedy: "have its selector name only what both releases' pods have in common"}
		}
	}
	switch {
	case w.stable.full() < 1:
		return &RouteError{Object: r.workloads.object(r.config.Stable), Problem: "has no replicas", Remedy: "scale it up first"}
	case w.canary != nil && (w.stable.selector.Matches(w.canary.labels) || w.canary.selector.Matches(w.stable.labels) ||
		w.selection.narrowed(w.stable).AsSelector().Matches(w.canary.labels)):
		return &RouteError{Object: r.workloads.object(r.config.Canary), Problem: "its pods can't be told from those of " + r.config.Stable,
			Remedy: "give the two different labels, and both selectors one of those"}
	case len(w.selection.narrowing(w.stable)) == 0:
		return &RouteError{Object: r.workloads.object(r.config.Stable), Problem: "selects its pods by no label that the Service doesn't select by, so that a canary's can't be kept from traffic",
			Remedy: "have its selector's matchLabels name one that only its own pods have"}
	}
	return nil
}

func (r *Replicas) workload(ctx context.Context, name string) (*workload, error) {
	o, err := r.workloads.get(ctx, name)
	if err != nil {
		return nil, err
	}
	return r.decode(o)
}

func (r *Replicas) decode(o *unstructured.Unstructured) (*workload, error) {
	name := o.GetName()
	spec, err := decodeSpec[struct {
		Replicas *int64                `json:"replicas"`
		Selector *metav1.LabelSelector `json:"selector"`
		Template struct {
			Metadata struct {
				Labels labels.Set `json:"labels"`
			} `json:"metadata"`
		} `json:"template"`
	}](o)
	if err != nil {
		return nil, &RouteError{Object: r.workloads.object(name), Problem: err.Error()}
	}
	w := &workload{object: o, replicas: 1, labels: spec.Template.Metadata.Labels}
	if spec.Replicas != nil {
		w.replicas = *spec.Replicas
	}
	if spec.Selector != nil {
		w.matched = spec.Selector.MatchLabels
	}
	if w.selector, err = metav1.LabelSelectorAsSelector(spec.Selector); err != nil || w.selector.Empty() {
		return nil, &RouteError{Object: r.workloads.object(name), Problem: "has no selector that can be read"}
	}
	return w, nil
}
