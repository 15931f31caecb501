package traffic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/rollout/internal/wait"
)

// Isolator is a [Router] that would send requests to a canary's pods as soon as they
// are ready, and can keep them from that until the canary is verified. A router
// around another one must have this method as well.
type Isolator interface {
	// Isolate is called before a canary is deployed. From then on Observe tells a
	// weight of 0, until Shift has been asked for one. A canary that is gone on with
	// keeps its requests until the stable release can do without it, and until then
	// Isolate returns an error. It can be repeated. Planned are the manifests that the
	// canary will have, as YAML, if its deployer can plan: a [*RouteError] refuses pods
	// that can't be kept from requests, and has changed nothing.
	Isolate(ctx context.Context, planned []byte) error
}

// annotationIsolated names the labels that a Service's selector was narrowed by.
const annotationIsolated = "traffic.fairlead.dev/isolated"

// selection is what a Service selects by.
type selection struct {
	service *corev1.Service
	// own is its selector without what Isolate has added.
	own map[string]string
	// isolated says that it is narrowed, stale that it was and somebody has undone it.
	isolated, stale bool
}

func selectionOf(service *corev1.Service, stable *workload) selection {
	s := selection{service: service, own: maps.Clone(service.Spec.Selector)}
	noted, ok := service.Annotations[annotationIsolated]
	if !ok {
		return s
	}
	for key := range strings.SplitSeq(noted, ",") {
		if value, ok := s.own[key]; ok && value == stable.matched[key] {
			delete(s.own, key)
			s.isolated = true
		}
	}
	s.stale = !s.isolated
	return s
}

// narrowing are the labels of the stable release's pods that a Service doesn't
// select by, of those that its workload tells them by.
func (s selection) narrowing(stable *workload) map[string]string {
	out := map[string]string{}
	for key, value := range stable.matched {
		if _, ok := s.own[key]; !ok {
			out[key] = value
		}
	}
	return out
}

// narrowed is the Service's selector with those labels as well.
func (s selection) narrowed(stable *workload) labels.Set {
	out := labels.Set(maps.Clone(s.own))
	maps.Copy(out, s.narrowing(stable))
	return out
}

// Isolate has the Service select the pods of the stable release alone.
func (r *Replicas) Isolate(ctx context.Context, planned []byte) error {
	w, err := r.read(ctx)
	if err == nil {
		err = r.foresee(w, planned)
	}
	switch {
	case err != nil:
		return err
	case w.odd != nil:
		return w.odd
	case w.selection.isolated:
		return nil
	}
	if err := r.checkStrangers(w); err != nil {
		return err
	}
	if err := r.relieve(ctx, w); err != nil {
		return err
	}
	return r.selects(ctx, w.selection, w.selection.narrowed(w.stable), slices.Sorted(maps.Keys(w.selection.narrowing(w.stable))))
}

// apart calls work, and ends it as soon as a canary that requests are kept from gets
// some all the same. It returns how traffic is divided then.
func (f *flight) apart(ctx context.Context, work func(context.Context) error) (Split, error) {
	before, err := f.observe(ctx)
	if err != nil {
		return before, err
	}
	watching, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var looks sync.WaitGroup
	if before.Isolated {
		looks.Go(func() { cancel(f.watchIsolation(watching)) })
	}
	err = protect(func() error { return work(watching) })
	cancel(nil)
	looks.Wait()
	if opened, ok := errors.AsType[*ChangedError](context.Cause(watching)); ok {
		return before, opened
	}
	if err != nil {
		return before, err
	}
	after, err := f.observe(ctx)
	if err == nil && before.Isolated {
		err = unopened(after)
	}
	return after, err
}

// watchIsolation returns when somebody has ended the isolation, or ctx is done.
func (f *flight) watchIsolation(ctx context.Context) error {
	for wait.For(ctx, f.cfg.Interval) {
		err := protect(func() error {
			split, _ := f.cfg.Router.Observe(ctx)
			return unopened(split)
		})
		if _, opened := errors.AsType[*ChangedError](err); opened {
			return err
		}
	}
	return nil
}

// unopened refuses a split that an isolated canary doesn't have.
func unopened(split Split) error {
	if split.Canary == 0 {
		return nil
	}
	return &ChangedError{Want: []int{0}, Got: split.Canary, Detail: split.Detail}
}

// foresee refuses a canary whose workload, as it is planned, traffic could not be
// divided with. It knows nothing of one that is not among the manifests.
func (r *Replicas) foresee(w releases, planned []byte) error {
	for doc := range bytes.SplitSeq(planned, []byte("\n---")) {
		var o unstructured.Unstructured
		if err := yaml.Unmarshal(doc, &o.Object); err != nil || o.GetKind() != r.config.Kind || o.GetName() != r.config.Canary {
			continue
		}
		var err error
		if w.canary, err = r.decode(&o); err != nil {
			return err
		}
		return r.check(w)
	}
	return nil
}

// relieve gives the stable release all its replicas back, and returns an error until
// it can do the work of a canary that is gone on with.
func (r *Replicas) relieve(ctx context.Context, w releases) error {
	full := w.stable.full()
	lowered := w.stable.count() < full
	if lowered {
		if err := r.scale(ctx, w.stable, full, full); err != nil {
			return err
		}
	}
	if w.canary.count() == 0 || w.servingCanary == 0 && !lowered {
		return nil
	}
	return r.replaceable(w.servingStable, full)
}

// checkStrangers refuses pods of neither release, which would be cut off from a
// narrowed Service. An earlier canary's may be about to end.
func (r *Replicas) checkStrangers(w releases) error {
	if w.strangers == 0 {
		return nil
	}
	return &momentaryError{&RouteError{Object: r.service(), Problem: fmt.Sprintf("sends to %d pods of neither release", w.strangers),
		Remedy: "have its selector name what only the two releases' pods have in common"}}
}

// admit has the Service select the pods of both releases again, when the canary has
// as many as it should at a weight. Until then it returns an error.
func (r *Replicas) admit(ctx context.Context, w releases, stable, canary int64) error {
	if w.canary.count() != canary {
		if err := r.scale(ctx, w.canary, canary, canary); err != nil {
			return err
		}
	}
	if w.readyCanary != canary {
		return fmt.Errorf("%w: %d pods of %s are ready, and %d are to get requests", errUnsettled, w.readyCanary, r.config.Canary, canary)
	}
	if canary > 0 && w.servingStable < stable { // The canary's share would be more than it is to be.
		return fmt.Errorf("%w: %d of %d pods of %s are ready to share the traffic", errUnsettled, w.servingStable, stable, r.config.Stable)
	}
	if err := r.selects(ctx, w.selection, w.selection.own, nil); err != nil || stable >= w.stable.count() {
		return err
	}
	return fmt.Errorf("%w: %s has %d replicas, and is to have %d", errUnsettled, r.config.Stable, w.stable.count(), stable)
}

// selects sets the Service's selector, and notes the labels it was narrowed by.
func (r *Replicas) selects(ctx context.Context, s selection, selector map[string]string, narrowed []string) error {
	patch := []operation{{Op: "add", Path: pointer("spec", "selector"), Value: selector}}
	_, noted := s.service.Annotations[annotationIsolated]
	switch {
	case len(narrowed) > 0:
		if len(s.service.Annotations) == 0 {
			patch = append(patch, operation{Op: "add", Path: pointer("metadata", "annotations"), Value: map[string]string{}})
		}
		patch = append(patch, operation{Op: "add", Path: pointer("metadata", "annotations", annotationIsolated), Value: strings.Join(narrowed, ",")})
	case noted:
		patch = append(patch, operation{Op: "remove", Path: pointer("metadata", "annotations", annotationIsolated)})
	}
	patched, err := r.patchService(ctx, s.service, patch)
	if err == nil && len(narrowed) == 0 {
		r.disownService(ctx, patched)
	}
	return err
}

func (r *Replicas) patchService(ctx context.Context, service *corev1.Service, patch []operation) (*corev1.Service, error) {
	object := r.service()
	data, err := jsonPatch(service, patch)
	if err != nil {
		return nil, fmt.Errorf("patch %s: %w", object, err)
	}
	options := metav1.PatchOptions{FieldManager: FieldManager}
	patched, err := r.client.CoreV1().Services(r.config.Namespace).Patch(ctx, r.config.Service, types.JSONPatchType, data, options)
	return patched, orCause(ctx, explain(err, "patch", object))
}

// disownService gives up the selector, once it is as it was.
func (r *Replicas) disownService(ctx context.Context, service *corev1.Service) {
	get := func() (*corev1.Service, error) {
		return r.client.CoreV1().Services(r.config.Namespace).Get(ctx, r.config.Service, metav1.GetOptions{})
	}
	disown(ctx, service, get, func(service *corev1.Service, operations []operation) error {
		_, err := r.patchService(ctx, service, operations)
		return err
	})
}
