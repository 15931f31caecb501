package helmx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"helm.sh/helm/v3/pkg/kube"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/helmx/internal/watches"
	"github.com/fairlead-dev/fairlead/stages"
)

// kubeClient is Helm's client with every wait replaced: Helm's poll, or retry,
// until a timeout of their own, whatever becomes of the operation. It also can
// apply on the server's side, see serverside.go.
type kubeClient struct {
	*kube.Client
	s     *session
	apply Apply
	// adopt takes objects into the release that were not its own; base are those that the
	// deployed revision has, and so are its own.
	adopt bool
	base  map[identity]object
	// timeout bounds the wait for definitions.
	timeout time.Duration
	// spared are objects that nothing deletes, and so are defined, the definitions of the
	// crds folder, which may have been of the release before.
	spared, defined map[identity]bool
	// changed are kinds whose definitions were changed in this session.
	changed changedKinds
	// removal is set while a release is uninstalled.
	removal *removalWait
}

var (
	_ kube.Interface                    = (*kubeClient)(nil)
	_ kube.InterfaceExt                 = (*kubeClient)(nil)
	_ kube.InterfaceThreeWayMerge       = (*kubeClient)(nil)
	_ kube.InterfaceLogs                = (*kubeClient)(nil)
	_ kube.InterfaceDeletionPropagation = (*kubeClient)(nil)
)

func newKubeClient(s *session, apply Apply) *kubeClient {
	client := kube.New(s)
	client.Namespace = s.namespace
	client.Log = s.debug
	return &kubeClient{Client: client, s: s, apply: apply, changed: changedKinds{}}
}

// Build never validates on the client side. With the API servers that there are,
// Helm's validation comes down to fetching megabytes of OpenAPI documents in order
// to find that the server checks the fields itself.
//
// Objects may be of kinds that the manifest itself defines, which stop Helm's.
// What is not to be validated is of a revision before: its objects may be in a version
// that is not served any more, and are to be had in another, unless the manifest brings
// that version back. Those of a kind that is not served at all, of which none can be left,
// don't stop an uninstallation, as they do Helm's.
func (k *kubeClient) Build(reader io.Reader, validate bool) (kube.ResourceList, error) {
	data, err := io.ReadAll(reader)
	if err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	text, own := string(data), kinds{}
	if strings.Contains(text, "CustomResourceDefinition") {
		docs, err := parseDocuments(text)
		if err != nil {
			return nil, err
		}
		for _, doc := range docs {
			own.collect(doc.content)
		}
	}
	switch {
	case k.removal != nil && !validate:
		text, err = k.s.served(text, nil, true)
	case !validate:
		text, err = k.s.served(text, own, false)
	}
	if err != nil {
		return nil, err
	}
	maps.Copy(k.s.mapper.kinds, own)
	return k.Client.Build(strings.NewReader(text), false)
}

// served returns a manifest with its objects in versions that the cluster serves, or that
// own says. Those of kinds that it doesn't stay as they are, or are dropped.
func (s *session) served(manifest string, own kinds, drop bool) (string, error) {
	docs, err := parseDocuments(manifest)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	changed := false
	for _, doc := range docs {
		objects, err := doc.objects(s.namespace, s.mapper)
		if err != nil {
			return "", err
		}
		for _, o := range objects {
			mapping, err := s.mapper.reach(o.gvk()) // Any error but this one is Helm's to meet.
			if drop && meta.IsNoMatchError(err) {
				changed = true
				continue
			}
			if _, brought := own[o.gvk()]; err == nil && mapping.GroupVersionKind != o.gvk() && !brought {
				o.content["apiVersion"], changed = mapping.GroupVersionKind.GroupVersion().String(), true
			}
			data, err := yaml.Marshal(o.content)
			if err != nil {
				return "", fmt.Errorf("write %s: %w", o.id, err)
			}
			fmt.Fprintf(&out, "---\n%s", data)
		}
	}
	if !changed {
		return manifest, nil
	}
	return out.String(), nil
}

// Delete reports success once the operation has ended: Helm asks for it only to
// tidy up hooks, and prints an error of it through the global logger.
func (k *kubeClient) Delete(resources kube.ResourceList) (*kube.Result, []error) {
	if k.s.ctx.Err() != nil {
		return &kube.Result{}, nil
	}
	if resources = k.deletable(resources); len(resources) == 0 {
		return &kube.Result{}, nil
	}
	result, errs := k.Client.Delete(resources)
	if k.s.ctx.Err() != nil {
		return &kube.Result{}, nil
	}
	return result, errs
}

// DeleteWithPropagationPolicy is for an uninstallation.
func (k *kubeClient) DeleteWithPropagationPolicy(resources kube.ResourceList, policy metav1.DeletionPropagation) (*kube.Result, []error) {
	if resources = k.deletable(resources); len(resources) == 0 {
		return &kube.Result{}, nil
	}
	result, errs := k.Client.DeleteWithPropagationPolicy(resources, policy)
	if k.removal == nil {
		return result, errs
	}
	if len(errs) > 0 {
		return result, k.removal.failed(errs...)
	}
	ctx, cancel := context.WithTimeoutCause(k.s.ctx, k.removal.timeout, &timeoutError{k.removal.timeout})
	defer cancel()
	for _, info := range resources {
		if err := k.s.awaitAbsence(ctx, info); err != nil {
			return result, k.removal.failed(err)
		}
	}
	return result, nil
}

// deletable leaves out what is spared.
func (k *kubeClient) deletable(resources kube.ResourceList) kube.ResourceList {
	return resources.Filter(func(info *resource.Info) bool {
		gvk := info.Mapping.GroupVersionKind
		return !k.spares(identity{gvk.Group, gvk.Kind, info.Namespace, info.Name})
	})
}

func (k *kubeClient) spares(id identity) bool { return k.spared[id] || k.defined[id] }

// Wait waits for CustomResourceDefinitions to be served, the only thing that Helm
// waits for when its own Wait is off.
func (k *kubeClient) Wait(resources kube.ResourceList, timeout time.Duration) error {
	return k.each(resources, timeout, func(ctx context.Context, info *resource.Info) error {
		return k.s.await(ctx, info, func(obj *unstructured.Unstructured) (bool, error) {
			return established(info, obj)
		})
	})
}

// WaitWithJobs is Wait, because no operation of this package waits for Jobs.
func (k *kubeClient) WaitWithJobs(resources kube.ResourceList, timeout time.Duration) error {
	return k.Wait(resources, timeout)
}

// WaitForDelete waits until none of resources exists.
func (k *kubeClient) WaitForDelete(resources kube.ResourceList, timeout time.Duration) error {
	return k.each(resources, timeout, k.s.awaitAbsence)
}

// awaitAbsence waits until an object is gone. One that isn't in time is told with
// what holds it.
func (s *session) awaitAbsence(ctx context.Context, info *resource.Info) error {
	var last *unstructured.Unstructured
	err := s.await(ctx, info, func(obj *unstructured.Unstructured) (bool, error) {
		last = obj
		return obj == nil, nil
	})
	if late, ok := errors.AsType[*timeoutError](err); ok && last != nil {
		return &stuckError{infoID(info), late.after, last.GetFinalizers()}
	}
	return err
}

// stuckError is an object that doesn't go away.
type stuckError struct {
	object     stages.Object
	after      time.Duration
	finalizers []string
}

func (e *stuckError) Error() string {
	text := fmt.Sprintf("%s is still being deleted after %s", e.object, e.after)
	if len(e.finalizers) > 0 {
		text += ", held by the finalizers " + strings.Join(e.finalizers, ", ")
	}
	return text
}

// WatchUntilReady waits until hooks that are Jobs or Pods have succeeded.
func (k *kubeClient) WatchUntilReady(resources kube.ResourceList, timeout time.Duration) error {
	return k.each(resources, timeout, func(ctx context.Context, info *resource.Info) error {
		var finished func(*unstructured.Unstructured) (bool, string)
		switch info.Mapping.GroupVersionKind.Kind {
		case "Job":
			finished = jobFinished
		case "Pod":
			finished = podFinished
		default:
			return nil
		}
		err := k.s.await(ctx, info, func(obj *unstructured.Unstructured) (bool, error) {
			if obj == nil {
				return true, nil // Deleted by its own time to live, or on purpose.
			}
			done, failure := finished(obj)
			if failure != "" {
				return true, errors.New(failure)
			}
			return done, nil
		})
		if err != nil && k.s.ctx.Err() == nil {
			k.s.hook = &HookError{Hook: infoID(info), Problem: err.Error(), Logs: k.s.hookLogs(info), err: err}
			return k.s.hook
		}
		return err
	})
}

// GetPodList serves hooks that ask for their output to be shown. An error is
// logged here, because Helm would print it.
func (k *kubeClient) GetPodList(namespace string, options metav1.ListOptions) (*corev1.PodList, error) {
	pods, err := k.s.clients.CoreV1().Pods(namespace).List(k.s.ctx, options)
	if err != nil {
		k.s.debug("list the pods of a hook: %s", err)
		return &corev1.PodList{}, nil
	}
	return pods, nil
}

// OutputContainerLogsForPodList reads the output of a hook, see GetPodList.
func (k *kubeClient) OutputContainerLogsForPodList(pods *corev1.PodList, namespace string, to func(namespace, pod, container string) io.Writer) error {
	if err := k.Client.OutputContainerLogsForPodList(pods, namespace, to); err != nil {
		k.s.debug("read the output of a hook: %s", err)
	}
	return nil
}

// each runs wait for one resource after the other, all within timeout.
func (k *kubeClient) each(resources kube.ResourceList, timeout time.Duration, wait func(context.Context, *resource.Info) error) error {
	ctx, cancel := context.WithTimeoutCause(k.s.ctx, timeout, &timeoutError{timeout})
	defer cancel()
	for _, info := range resources {
		if err := wait(ctx, info); err != nil {
			return err
		}
	}
	return nil
}

// timeoutError says which limit a wait ran into. It is not a deadline of the
// caller, so it doesn't match [context.DeadlineExceeded].
type timeoutError struct{ after time.Duration }

func (e *timeoutError) Error() string { return fmt.Sprintf("not done after %s", e.after) }

// await watches one object until done says so or fails. An object that doesn't
// exist is nil. An API server that is away says nothing about the object, and is
// waited for.
func (s *session) await(ctx context.Context, info *resource.Info, done func(*unstructured.Unstructured) (bool, error)) error {
	var (
		decided bool
		verdict error
	)
	decide := func(obj *unstructured.Unstructured) bool {
		decided, verdict = done(obj)
		decided = decided || verdict != nil
		return decided
	}
	helper := resource.NewHelper(info.Client, info.Mapping)
	var away error
	for ctx.Err() == nil {
		began := time.Now()
		err := observe(ctx, helper, info, decide)
		switch {
		case decided:
			return verdict
		case err != nil && !isAway(err):
			return err
		}
		away = err
		watches.Breathe(ctx, began)
	}
	cause := context.Cause(ctx)
	if away != nil {
		cause = fmt.Errorf("%w: %w", cause, away)
	}
	return fmt.Errorf("wait for %s: %w", describeInfo(info), cause)
}

// observe shows decide one object, as it is and as it changes, until it decides or
// should be looked at anew.
func observe(ctx context.Context, helper *resource.Helper, info *resource.Info, decide func(*unstructured.Unstructured) bool) error {
	current, err := look(helper, info)
	if err != nil {
		return err
	}
	if decide(current) {
		return nil
	}
	if current == nil {
		return fmt.Errorf("wait for %s: it does not exist", describeInfo(info))
	}
	w, err := helper.WatchSingle(info.Namespace, info.Name, current.GetResourceVersion())
	if err != nil {
		return fmt.Errorf("watch %s: %w", describeInfo(info), err)
	}
	follow(ctx, w, decide)
	return nil
}

// look returns an object, or nil if it doesn't exist.
func look(helper *resource.Helper, info *resource.Info) (*unstructured.Unstructured, error) {
	found, err := helper.Get(info.Namespace, info.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil // See above.
	case err != nil:
		return nil, fmt.Errorf("look at %s: %w", describeInfo(info), err)
	}
	obj, ok := found.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("look at %s: unexpected answer of type %T", describeInfo(info), found)
	}
	return obj, nil
}

// follow reads w until decide has decided, or the watch ends.
func follow(ctx context.Context, w watch.Interface, decide func(*unstructured.Unstructured) bool) {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event, open := <-w.ResultChan():
			if !open {
				return
			}
			switch event.Type {
			case watch.Added, watch.Modified:
				if obj, ok := event.Object.(*unstructured.Unstructured); !ok || decide(obj) {
					return
				}
			case watch.Deleted:
				decide(nil)
				return
			case watch.Error:
				return
			}
		}
	}
}

func jobFinished(job *unstructured.Unstructured) (done bool, failure string) {
	if c := condition(job, "Failed"); c != nil {
		return true, fmt.Sprintf("the Job failed: %v: %v", c["reason"], c["message"])
	}
	return condition(job, "Complete") != nil, ""
}

func podFinished(pod *unstructured.Unstructured) (done bool, failure string) {
	phase, _, _ := unstructured.NestedString(pod.Object, "status", "phase")
	reason, _, _ := unstructured.NestedString(pod.Object, "status", "reason")
	switch phase {
	case "Succeeded":
		return true, ""
	case "Failed":
		return true, fmt.Sprintf("the Pod failed: %s", reason)
	}
	return false, ""
}

// condition returns the condition of that type if it is true.
func condition(obj *unstructured.Unstructured, kind string) map[string]any {
	conditions, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	for _, item := range conditions {
		if c, ok := item.(map[string]any); ok && c["type"] == kind && c["status"] == "True" {
			return c
		}
	}
	return nil
}
