package smoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/internal/wait"
	"github.com/fairlead-dev/fairlead/stages"
)

// cluster is a connection that every call of a test shares.
type cluster struct {
	client kubernetes.Interface
	rest   *rest.Config // for port-forwards
	shared *rollout.Cluster
	close  func()
}

// connect prepares a connection of the test's own, unless there is one to share.
func connect(config *rest.Config, shared *rollout.Cluster) (cluster, error) {
	c := cluster{shared: shared, close: func() {}}
	switch {
	case config != nil && shared != nil:
		return c, fmt.Errorf("%w: set REST or Cluster, not both", stages.ErrInvalid)
	case config == nil && shared == nil:
		return c, fmt.Errorf("%w: REST or Cluster is required", stages.ErrInvalid)
	case shared == nil:
		own, err := rollout.Connect(rollout.ClusterConfig{REST: config})
		if err != nil {
			return c, err
		}
		c.shared, c.close = own, func() { _ = own.Close() } // which returns no error
	}
	c.rest = c.shared.StreamConfig()
	client, err := kubernetes.NewForConfig(c.shared.RESTConfig())
	if err != nil {
		return c, errors.Join(stages.ErrInvalid, fmt.Errorf("configure the connection to %s: %w", c.rest.Host, err))
	}
	c.client = client
	return c, nil
}

// denied says which right is missing, where that is why err came; otherwise it
// returns err with what was being done.
func denied(err error, verb, resource, namespace, name string) error {
	doing := fmt.Sprintf("%s %s in namespace %s", verb, resource, namespace)
	if name != "" {
		doing = fmt.Sprintf("%s %s %s/%s", verb, resource, namespace, name)
	}
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		return stages.Permanent(fmt.Errorf("%s: %w; grant the verb %s on %s in namespace %s", doing, err, verb, resource, namespace))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// readLog returns what a container wrote, up to limit bytes.
func (c cluster) readLog(ctx context.Context, namespace, pod, container string, limit int64) (string, error) {
	return c.log(ctx, namespace, pod, &corev1.PodLogOptions{Container: container, LimitBytes: &limit}, limit)
}

// readTail returns the last of what a container wrote: of its last ten
// thousand lines the last MiB.
func (c cluster) readTail(ctx context.Context, namespace, pod, container string) (string, error) {
	lines := int64(10_000)
	text, err := c.log(ctx, namespace, pod, &corev1.PodLogOptions{Container: container, TailLines: &lines}, 16*maxBody)
	return text[max(0, len(text)-maxBody):], err
}

func (c cluster) log(ctx context.Context, namespace, pod string, options *corev1.PodLogOptions, limit int64) (string, error) {
	stream, err := c.client.CoreV1().Pods(namespace).GetLogs(pod, options).Stream(ctx)
	if err != nil {
		return "", denied(err, "get", "pods/log", namespace, pod)
	}
	text, err := io.ReadAll(io.LimitReader(stream, limit))
	if closing := stream.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return "", fmt.Errorf("read the log of container %s of pod %s/%s: %w", options.Container, namespace, pod, err)
	}
	return string(text), nil
}

// workloads are the kinds of group apps that can own what a test makes, with their
// resources.
var workloads = map[string]string{"Deployment": "deployments.apps", "StatefulSet": "statefulsets.apps", "DaemonSet": "daemonsets.apps"}

// firstWorkload returns the first workload of the release that is in namespace. One
// in another would have what it owns deleted at once.
func firstWorkload(rel stages.Release, namespace string) (o stages.Object, found bool) {
	if namespace != rel.Namespace {
		return o, false
	}
	for _, o := range rel.Objects {
		if o.APIVersion == "apps/v1" && workloads[o.Kind] != "" && (o.Namespace == "" || o.Namespace == namespace) {
			return o, true
		}
	}
	return o, false
}

// owner returns a reference to the release's first workload, if it may be read:
// what it owns is deleted with it.
func (c cluster) owner(ctx context.Context, rel stages.Release, namespace string) []metav1.OwnerReference {
	o, found := firstWorkload(rel, namespace)
	if !found {
		return nil
	}
	var live metav1.Object
	var err error
	switch o.Kind {
	case "Deployment":
		live, err = c.client.AppsV1().Deployments(namespace).Get(ctx, o.Name, metav1.GetOptions{})
	case "StatefulSet":
		live, err = c.client.AppsV1().StatefulSets(namespace).Get(ctx, o.Name, metav1.GetOptions{})
	default:
		live, err = c.client.AppsV1().DaemonSets(namespace).Get(ctx, o.Name, metav1.GetOptions{})
	}
	if err != nil || live.GetDeletionTimestamp() != nil {
		return nil // the other precautions have to do
	}
	return []metav1.OwnerReference{{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: live.GetUID()}}
}

// thing is a pod or a job that a test made.
type thing struct {
	resource string // "pods" or "jobs.batch"
	meta     metav1.Object
	remove   func(ctx context.Context, o metav1.DeleteOptions) error
	// deadline is how long the cluster lets it run.
	deadline time.Duration
}

// remove deletes a thing under a context of its own, whatever has become of ctx.
func (t thing) delete(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	now, background := int64(0), metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{GracePeriodSeconds: &now, PropagationPolicy: &background}
	if uid := t.meta.GetUID(); uid != "" {
		options.Preconditions = metav1.NewUIDPreconditions(string(uid))
	}
	for backoff := wait.FirstBackoff; ; backoff = min(2*backoff, wait.MaxBackoff) {
		err := t.remove(ctx, options)
		switch {
		case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err): // a conflict is another one by that name
			return nil
		case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), !wait.For(ctx, backoff):
			return fmt.Errorf("left %s/%s behind, which ends by itself within %s: %w",
				t.meta.GetNamespace(), t.meta.GetName(), t.deadline, denied(err, "delete", t.resource, t.meta.GetNamespace(), t.meta.GetName()))
		}
	}
}

// refusedCreation explains why a thing could not be made. A refusal of the
// namespace is a failure of the test, with its cause.
func (t thing) refusedCreation(ctx context.Context, rel stages.Release, err error, clean cleaner) error {
	if cause, remedy, refused := rollout.RefusalCause(err); refused {
		f := failure(rel, stages.Evidence{
			Subject: fmt.Sprintf("%s %s/%s", t.resource, t.meta.GetNamespace(), t.meta.GetName()), Message: clean.line(err.Error()), Remedy: remedy,
		})
		f.Cause, f.Decisive.Reason = cause, string(cause)
		return &failed{f, err}
	}
	err = denied(err, "create", t.resource, t.meta.GetNamespace(), "")
	if apierrors.IsNotFound(err) {
		return stages.Permanent(err)
	}
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}
