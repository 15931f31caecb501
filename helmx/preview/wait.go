package preview

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// awaitGone waits until ns, or whatever bears its UID, is gone.
func (p *Previews) awaitGone(ctx context.Context, ns *corev1.Namespace) error {
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	latest := ns
	api := p.cfg.Client.CoreV1().Namespaces()
	err := follow(ctx, ns.Name, api.Get, api.Watch, func(seen *corev1.Namespace) bool {
		if seen == nil || seen.UID != ns.UID {
			return true
		}
		latest = seen
		return false
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil:
		return fmt.Errorf("wait for namespace %s to be gone: %w", ns.Name, err)
	}
	return stuck(latest, context.Cause(ctx))
}

// stuck reads from the namespace's conditions what its deletion waits for.
func stuck(ns *corev1.Namespace, cause error) *StuckError {
	e := &StuckError{Namespace: ns.Name, Finalizers: ns.Finalizers, err: cause}
	if ns.DeletionTimestamp != nil {
		e.Since = ns.DeletionTimestamp.Time
	}
	for _, f := range ns.Spec.Finalizers {
		if f != corev1.FinalizerKubernetes {
			e.Finalizers = append(e.Finalizers, string(f))
		}
	}
	for _, c := range ns.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			e.Problems = append(e.Problems, c.Message)
		}
	}
	return e
}

// awaitQuota waits until the quota's limits are in force: before, the API server
// refuses whatever they would count.
func (p *Previews) awaitQuota(ctx context.Context, namespace string) error {
	ctx, cancel := p.bounded(ctx)
	defer cancel()
	api := p.cfg.Client.CoreV1().ResourceQuotas(namespace)
	gone := false
	err := follow(ctx, objectName, api.Get, api.Watch, func(seen *corev1.ResourceQuota) bool {
		gone = seen == nil
		return gone || inForce(seen)
	})
	switch {
	case gone:
		return fmt.Errorf("the ResourceQuota of namespace %s was deleted by somebody else", namespace)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("wait for the ResourceQuota of namespace %s to be in force: %w", namespace, err)
	}
	return nil
}

func inForce(quota *corev1.ResourceQuota) bool {
	for name, limit := range quota.Spec.Hard {
		if known, ok := quota.Status.Hard[name]; !ok || known.Cmp(limit) != 0 {
			return false
		}
		if _, counted := quota.Status.Used[name]; !counted {
			return false
		}
	}
	return true
}

// bounded returns a context that ends with the configured timeout at the latest.
func (p *Previews) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, p.cfg.Timeout, &timeoutError{p.cfg.Timeout})
}

// object is a pointer to an API type.
type object[T any] interface {
	*T
	runtime.Object
	metav1.Object
}

// follow watches one object, from how it is now, until done says so. An object that
// doesn't exist is nil.
func follow[T any, P object[T]](
	ctx context.Context, name string,
	get func(context.Context, string, metav1.GetOptions) (P, error),
	watching func(context.Context, metav1.ListOptions) (watch.Interface, error),
	done func(P) bool,
) error {
	for {
		current, err := get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			current = nil
		case err != nil:
			return err
		}
		if done(current) {
			return nil
		}
		if current == nil {
			return fmt.Errorf("%s does not exist", name)
		}
		began := time.Now()
		w, err := watching(ctx, metav1.ListOptions{
			FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
			ResourceVersion: current.GetResourceVersion(),
		})
		if err != nil {
			return err
		}
		finished, err := drain[T](ctx, w, name, done)
		if finished || err != nil {
			return err
		}
		if err := breathe(ctx, began); err != nil {
			return err
		}
	}
}

// drain handles events until done or the watch ends, which it does now and then.
func drain[T any, P object[T]](ctx context.Context, w watch.Interface, name string, done func(P) bool) (bool, error) {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case event, open := <-w.ResultChan():
			if !open || event.Type == watch.Error {
				return false, nil // Look again, from the beginning.
			}
			seen, ok := event.Object.(P)
			if !ok || seen.GetName() != name {
				continue
			}
			if event.Type == watch.Deleted {
				seen = nil
			}
			if done(seen) {
				return true, nil
			}
		}
	}
}

// minWatch is what a watch lasts at least, so that one that always ends at once
// isn't repeated as fast as possible.
const minWatch = time.Second

func breathe(ctx context.Context, began time.Time) error {
	timer := time.NewTimer(time.Until(began.Add(minWatch)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
