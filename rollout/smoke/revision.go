package smoke

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/rollout/internal/daemonset"
)

// revisions tells the pods of a workload's current revision from those of one
// before, which may run the same image with another configuration. It reads each
// workload once.
type revisions struct {
	cluster   cluster
	namespace string
	pods      []corev1.Pod // which it is asked about
	known     map[types.UID]revision
}

// revision reports whether a pod of one owner is of the current revision.
type revision func(*corev1.Pod) bool

func newRevisions(c cluster, namespace string, pods []corev1.Pod) revisions {
	return revisions{c, namespace, pods, map[types.UID]revision{}}
}

// current reports whether pod is of its workload's current revision. A pod that
// belongs to nothing which is updated always is.
func (r revisions) current(ctx context.Context, pod *corev1.Pod) (bool, error) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return true, nil
	}
	is, known := r.known[owner.UID]
	if !known {
		var err error
		if is, err = r.of(ctx, *owner); err != nil {
			return false, err
		}
		r.known[owner.UID] = is
	}
	return is(pod), nil
}

func always(*corev1.Pod) bool { return true }
func never(*corev1.Pod) bool  { return false }

// of reads what owns pods. What its controller has not seen yet, and what is gone,
// has no current pod.
func (r revisions) of(ctx context.Context, owner metav1.OwnerReference) (revision, error) {
	named := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, owner.Name).String()}
	apps := r.cluster.client.AppsV1()
	switch owner.Kind {
	case "ReplicaSet":
		list, err := apps.ReplicaSets(r.namespace).List(ctx, named)
		if err != nil {
			return nil, asked(err, "list", "replicasets.apps", r.namespace, "")
		}
		for _, set := range list.Items {
			if set.UID == owner.UID {
				return r.replicaSet(ctx, set)
			}
		}
	case "StatefulSet":
		list, err := apps.StatefulSets(r.namespace).List(ctx, named)
		if err != nil {
			return nil, asked(err, "list", "statefulsets.apps", r.namespace, "")
		}
		for _, set := range list.Items {
			if set.UID == owner.UID && set.Status.ObservedGeneration >= set.Generation {
				return labelled(appsv1.ControllerRevisionHashLabelKey, set.Status.UpdateRevision), nil
			}
		}
	case "DaemonSet":
		list, err := apps.DaemonSets(r.namespace).List(ctx, named)
		if err != nil {
			return nil, asked(err, "list", "daemonsets.apps", r.namespace, "")
		}
		for _, set := range list.Items {
			if set.UID == owner.UID && set.Status.ObservedGeneration >= set.Generation {
				return r.daemonSet(&set), nil
			}
		}
	default:
		return always, nil
	}
	return never, nil
}

// daemonSet goes by all pods of the DaemonSet, as its controller does.
func (r revisions) daemonSet(set *appsv1.DaemonSet) revision {
	var all []*corev1.Pod
	for i := range r.pods {
		if owner := metav1.GetControllerOf(&r.pods[i]); owner != nil && owner.UID == set.UID {
			all = append(all, &r.pods[i])
		}
	}
	current := map[string]bool{}
	for _, pod := range daemonset.Current(set, all) {
		current[pod.Name] = true
	}
	return func(pod *corev1.Pod) bool { return current[pod.Name] }
}

// replicaSet asks the Deployment, if there is one, whether this is its newest: both
// bear the same number.
func (r revisions) replicaSet(ctx context.Context, set appsv1.ReplicaSet) (revision, error) {
	owner := metav1.GetControllerOf(&set)
	if owner == nil || owner.Kind != "Deployment" {
		return always, nil
	}
	list, err := r.cluster.client.AppsV1().Deployments(r.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, owner.Name).String(),
	})
	if err != nil {
		return nil, asked(err, "list", "deployments.apps", r.namespace, "")
	}
	for _, d := range list.Items {
		number := d.Annotations[deploymentRevision]
		if d.UID == owner.UID && d.Status.ObservedGeneration >= d.Generation && set.Annotations[deploymentRevision] == number {
			return always, nil
		}
	}
	return never, nil
}

// deploymentRevision is how the deployment controller numbers ReplicaSets.
const deploymentRevision = "deployment.kubernetes.io/revision"

func labelled(key, value string) revision {
	return func(pod *corev1.Pod) bool { return value != "" && pod.Labels[key] == value }
}
