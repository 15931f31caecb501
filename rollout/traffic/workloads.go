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
	labels   labels.Set // of its pods
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
	stable, canary               *workload
	servingStable, servingCanary int64
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
	if (stable == s1 || stable == s2) && (canary == c1 || canary == c2) {
		return nil
	}
	return &ChangedError{Want: []int{from, to}, Got: share(canary, stable+canary), Detail: fmt.Sprintf("%d stable and %d canary replicas", stable, canary)}
}

func (r *Replicas) read(ctx context.Context) (releases, error) {
	object := stages.Object{APIVersion: "v1", Kind: "Service", Namespace: r.config.Namespace, Name: r.config.Service}
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
	w.odd = r.check(w, object, service.Spec.Selector)
	b, err := readBackends(ctx, r.client, r.config.Namespace, r.config.Service)
	if err != nil {
		return releases{}, err
	}
	w.servingStable = count(b.serving, w.stable.selector)
	if w.canary != nil {
		w.servingCanary = count(b.serving, w.canary.selector)
	}
	return w, nil
}

// check refuses releases that a Service can't divide its traffic between.
func (r *Replicas) check(w releases, service stages.Object, selector labels.Set) error {
	if len(selector) == 0 {
		return &RouteError{Object: service, Problem: "has no selector"}
	}
	for name, workload := range map[string]*workload{r.config.Stable: w.stable, r.config.Canary: w.canary} {
		if workload != nil && !selector.AsSelector().Matches(workload.labels) {
			return &RouteError{Object: service, Problem: fmt.Sprintf("selects %s, which the pods of %s are not", selector, name),
				Remedy: "have its selector name only what both releases' pods have in common"}
		}
	}
	switch {
	case w.stable.full() < 1:
		return &RouteError{Object: r.workloads.object(r.config.Stable), Problem: "has no replicas", Remedy: "scale it up first"}
	case w.canary != nil && (w.stable.selector.Matches(w.canary.labels) || w.canary.selector.Matches(w.stable.labels)):
		return &RouteError{Object: r.workloads.object(r.config.Canary), Problem: "its pods can't be told from those of " + r.config.Stable,
			Remedy: "give the two different labels, and both selectors one of those"}
	}
	return nil
}

func (r *Replicas) workload(ctx context.Context, name string) (*workload, error) {
	o, err := r.workloads.get(ctx, name)
	if err != nil {
		return nil, err
	}
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
	if w.selector, err = metav1.LabelSelectorAsSelector(spec.Selector); err != nil || w.selector.Empty() {
		return nil, &RouteError{Object: r.workloads.object(name), Problem: "has no selector that can be read"}
	}
	return w, nil
}
