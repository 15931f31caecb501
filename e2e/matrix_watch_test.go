package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/fairlead-dev/fairlead/rollout"
)

// sighting is one fact, and when the API first told it to somebody else than the
// verifier.
type sighting struct {
	at                        time.Time
	subject, container        string
	reason, message, previous string
	restarts                  int32
}

// bystander watches a namespace by itself, so that what the verifier says can be
// timed against what there was to be seen.
type bystander struct {
	mu    sync.Mutex
	seen  []sighting
	last  map[string]string
	stops []func()
	wg    sync.WaitGroup
}

type watcher func(context.Context, metav1.ListOptions) (watch.Interface, error)

func watchAs[W any](f func(context.Context, metav1.ListOptions) (W, error)) watcher {
	return func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		w, err := f(ctx, o)
		if err != nil {
			return nil, err
		}
		return any(w).(watch.Interface), nil
	}
}

func startBystander(ctx context.Context, kube kubernetes.Interface, namespace string) (*bystander, error) {
	b := &bystander{last: map[string]string{}}
	for _, w := range []watcher{
		watchAs(kube.CoreV1().Pods(namespace).Watch), watchAs(kube.CoreV1().Events(namespace).Watch),
		watchAs(kube.AppsV1().ReplicaSets(namespace).Watch), watchAs(kube.AppsV1().Deployments(namespace).Watch),
		watchAs(kube.BatchV1().Jobs(namespace).Watch),
	} {
		stream, err := w(ctx, metav1.ListOptions{})
		if err != nil {
			b.stop()
			return nil, fmt.Errorf("watch namespace %s: %w", namespace, err)
		}
		b.stops = append(b.stops, stream.Stop)
		b.wg.Go(func() {
			for e := range stream.ResultChan() {
				if e.Type == watch.Error && !apierrors.IsResourceExpired(apierrors.FromObject(e.Object)) {
					return
				}
				b.note(e.Object, time.Now())
			}
		})
	}
	return b, nil
}

func (b *bystander) stop() {
	for _, stop := range b.stops {
		stop()
	}
	b.wg.Wait()
}

func (b *bystander) note(o any, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	add := func(subject, container, reason, message string, restarts int32) {
		key := subject + "/" + container
		if was := b.last[key]; was != fmt.Sprint(reason, restarts) {
			b.last[key] = fmt.Sprint(reason, restarts)
			b.seen = append(b.seen, sighting{now, subject, container, reason, message, was, restarts})
		}
	}
	switch o := o.(type) {
	case *corev1.Pod:
		if o.DeletionTimestamp != nil {
			return // It is being replaced, by one of the same name perhaps.
		}
		subject := "pod " + o.Namespace + "/" + o.Name
		for _, s := range slices.Concat(o.Status.InitContainerStatuses, o.Status.ContainerStatuses) {
			switch {
			case s.State.Waiting != nil:
				add(subject, s.Name, s.State.Waiting.Reason, s.State.Waiting.Message, s.RestartCount)
			case s.State.Terminated != nil:
				add(subject, s.Name, s.State.Terminated.Reason, s.State.Terminated.Message, s.RestartCount)
			case s.State.Running != nil:
				add(subject, s.Name, runs, "", s.RestartCount)
			}
		}
		for _, c := range o.Status.Conditions {
			if c.Status == corev1.ConditionFalse && c.Type == corev1.PodScheduled {
				add(subject, "#scheduled", c.Reason, c.Message, 0)
			}
		}
		if o.Status.Reason != "" {
			add(subject, "#phase", o.Status.Reason, o.Status.Message, 0)
		}
	case *corev1.Event:
		add(fmt.Sprint(o.InvolvedObject.Kind, " ", o.Namespace, "/", o.InvolvedObject.Name), "#event "+o.Reason, o.Reason, o.Message, o.Count)
	case *appsv1.ReplicaSet:
		for _, c := range o.Status.Conditions {
			add("ReplicaSet "+o.Namespace+"/"+o.Name, "#"+string(c.Type), c.Reason, c.Message, 0)
		}
	case *appsv1.Deployment:
		for _, c := range o.Status.Conditions {
			add("Deployment "+o.Namespace+"/"+o.Name, "#"+string(c.Type), c.Reason, c.Message, 0)
		}
	case *batchv1.Job:
		for _, c := range o.Status.Conditions {
			add("Job "+o.Namespace+"/"+o.Name, "#"+string(c.Type), c.Reason, c.Message, 0)
		}
	}
}

const runs = "(runs)"

// sameReason are reasons that stand for each other.
func sameReason(a, b string) bool {
	families := [][]string{
		{"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"},
		{"CrashLoopBackOff", "Error", "Completed", "OOMKilled", "StartError", "RunContainerError", "PostStartHookError", "FailedPostStartHook"},
		{"BackoffLimitExceeded", "DeadlineExceeded"},
	}
	for _, f := range families {
		if slices.Contains(f, a) && slices.Contains(f, b) {
			return true
		}
	}
	return a == b
}

// decidable returns when a failure could have been known, by the rule it fell
// under, from what the bystander has seen; zero if the bystander has not.
func (b *bystander) decidable(f *rollout.Failure, rule rollout.Rule) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	var first, counted time.Time
	count, evicted := 0, map[string]bool{}
	for _, s := range b.seen {
		if s.reason == "Evicted" && s.reason == f.Decisive.Reason {
			evicted[s.subject] = true // one pod after the other, each once
			if len(evicted) == rule.Count && counted.IsZero() {
				counted = s.at
			}
		}
		if !isObject(s.container) && s.subject != f.Decisive.Subject {
			continue // such as a pod that is being replaced
		}
		if isObject(s.container) && s.reason == "Completed" {
			continue // an event about a Job that has succeeded
		}
		if s.reason == runs && s.container == f.Decisive.Container && rule.Count > 0 && int(s.restarts) >= rule.Count && counted.IsZero() {
			counted = s.at // its ends were never to be seen by themselves
		}
		if !sameReason(s.reason, f.Decisive.Reason) {
			continue
		}
		if f.Decisive.Container != "" && s.container != f.Decisive.Container && !isObject(s.container) {
			continue
		}
		if first.IsZero() {
			first = s.at
		}
		switch {
		case isObject(s.container):
			continue
		case s.reason == "ErrImagePull" || s.reason == "ImagePullBackOff" && count == 0:
			count++
		case s.reason != "ImagePullBackOff":
			count = int(s.restarts) + 1
		}
		if rule.Count > 0 && count >= rule.Count && counted.IsZero() {
			counted = s.at
		}
	}
	switch {
	case first.IsZero():
		return counted
	case rule.Class == rollout.Terminal:
		return first
	}
	due := time.Time{}
	if rule.After > 0 {
		due = first.Add(rule.After)
	}
	switch {
	case due.IsZero() && counted.IsZero():
		return first
	case due.IsZero() || !counted.IsZero() && counted.Before(due):
		return counted
	}
	return due
}

// isObject reports whether a sighting is about more than a container.
func isObject(container string) bool { return len(container) > 0 && container[0] == '#' }

// facts are what the bystander has seen of a subject, for the test's log.
func (b *bystander) facts() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, s := range b.seen {
		out = append(out, fmt.Sprintf("%s %s %s: %s (%d) %.300s", s.at.Format("05.000"), s.subject, s.container, s.reason, s.restarts, s.message))
	}
	return out
}
