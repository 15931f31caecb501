package rollout

import (
	"fmt"
	"regexp"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// revisionAnnotation is how the deployment controller numbers ReplicaSets.
const revisionAnnotation = "deployment.kubernetes.io/revision"

// deployment: the pods of the ReplicaSet made from the current template count.
func (in *inspector) deployment(o stages.Object, now time.Time) assessment {
	a := assessment{object: o}
	d, ok := object[*appsv1.Deployment](in.world, deployments.name, o.Namespace, o.Name)
	if !ok {
		return a.missing()
	}
	owner := subjectOf("Deployment", d)
	a.template, a.desired = &d.Spec.Template.Spec, replicasOf(d.Spec.Replicas)
	a.scaledToZero()
	a.lacking = a.desired > 0 && d.Status.ReadyReplicas == 0
	if a.waiting = unobserved(d.Generation, d.Status.ObservedGeneration); a.waiting != "" {
		return a
	}
	current, all, known := in.newestPods(d)
	if !known && d.Spec.Paused {
		paused(&a, owner)
		return a
	}
	if !known {
		a.waiting = "its new ReplicaSet does not exist yet"
		in.refusals(&a, o.Kind, d, nil)
		return a
	}
	in.deploymentRefusals(&a, d)
	in.revision(&a, current, all, now)
	s := d.Status
	spare := 0
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		spare = in.mayLack(r.MaxUnavailable, a.desired)
	}
	a.done = a.ready >= a.desired-spare && int(s.UpdatedReplicas) >= a.desired && int(s.AvailableReplicas) >= a.desired-spare && s.Replicas <= s.UpdatedReplicas
	switch c := deploymentCondition(d, appsv1.DeploymentProgressing); {
	case a.done:
	case d.Spec.Paused && (int(s.UpdatedReplicas) < a.desired || s.Replicas > s.UpdatedReplicas):
		paused(&a, owner)
	case c != nil && c.Status == corev1.ConditionFalse && c.Reason == "ProgressDeadlineExceeded" && in.isAboutNewest(d, c.Message) && !in.isBefore(c.LastUpdateTime):
		a.fail(DeadlineExceeded, owner, c.Reason, c.Message+a.heldUp())
	case s.Replicas > s.UpdatedReplicas:
		a.waiting = fmt.Sprintf("%d pods of the previous revision are still running", s.Replicas-s.UpdatedReplicas)
	case a.ready >= a.desired:
		a.waiting = fmt.Sprintf("%d of %d available", s.AvailableReplicas, a.desired)
	}
	return a
}

// paused reports a Deployment that is not rolled out and won't be. One that was
// rolled out before it was paused is fine.
func paused(a *assessment, owner subject) {
	a.fail(Paused, owner, "Paused", "spec.paused is true")
}

// deploymentRefusals reports pods that could not be created, which the
// controllers write down as a condition.
func (in *inspector) deploymentRefusals(a *assessment, d *appsv1.Deployment) {
	about := subjectOf("Deployment", d)
	c := deploymentCondition(d, appsv1.DeploymentReplicaFailure)
	if rs := in.newestReplicaSet(d); rs != nil {
		// The Deployment's own condition may be an older ReplicaSet's.
		c = nil
		for _, rc := range rs.Status.Conditions {
			if rc.Type == appsv1.ReplicaSetReplicaFailure && rc.Status == corev1.ConditionTrue {
				about = subjectOf("ReplicaSet", rs)
				c = &appsv1.DeploymentCondition{Status: rc.Status, Reason: rc.Reason, Message: rc.Message}
			}
		}
	}
	if c == nil || c.Status != corev1.ConditionTrue {
		return
	}
	cause, _ := classify(refusalPatterns, c.Reason, c.Message)
	a.fail(cause, about, c.Reason, c.Message)
}

// newestPods returns the pods of d's newest ReplicaSet and of all of them, or
// false while the newest is not known.
func (in *inspector) newestPods(d *appsv1.Deployment) (current, all []*corev1.Pod, known bool) {
	if in.denied(replicaSets, d.Namespace) {
		return in.podsByCondition(d)
	}
	newest := in.newestReplicaSet(d)
	if newest == nil {
		return nil, nil, false
	}
	for _, rs := range ownedBy[*appsv1.ReplicaSet](in.world, replicaSets.name, d.UID) {
		all = append(all, ownedBy[*corev1.Pod](in.world, pods.name, rs.UID)...)
	}
	return ownedBy[*corev1.Pod](in.world, pods.name, newest.UID), all, true
}

// newestReplicaSet returns the ReplicaSet made from d's current template, by the
// deployment controller's own definition: the templates are equal but for the
// hash. Among several, the one numbered like d, else the oldest.
func (in *inspector) newestReplicaSet(d *appsv1.Deployment) *appsv1.ReplicaSet {
	var newest *appsv1.ReplicaSet
	for _, rs := range ownedBy[*appsv1.ReplicaSet](in.world, replicaSets.name, d.UID) {
		if !sameTemplate(rs.Spec.Template, d.Spec.Template) {
			continue
		}
		if revision := d.Annotations[revisionAnnotation]; revision != "" && rs.Annotations[revisionAnnotation] == revision {
			return rs
		}
		if newest == nil || rs.CreationTimestamp.Before(&newest.CreationTimestamp) {
			newest = rs
		}
	}
	return newest
}

func sameTemplate(a, b corev1.PodTemplateSpec) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	delete(x.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(y.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return equality.Semantic.DeepEqual(x, y)
}

// isAboutNewest reports whether a condition's message may be about d's newest
// ReplicaSet: when an earlier one comes back, the condition of the one that
// failed in between stays for a moment.
func (in *inspector) isAboutNewest(d *appsv1.Deployment, message string) bool {
	match, newest := replicaSetName.FindStringSubmatch(message), in.newestReplicaSet(d)
	return match == nil || newest == nil || match[1] == newest.Name
}

// isBefore reports whether something was said before the release: a Deployment whose
// template it doesn't change keeps what was said of its pods until they are ready, for
// example when the release brings nothing but the ConfigMap that they wait for.
func (in *inspector) isBefore(said metav1.Time) bool {
	return !said.IsZero() && said.Time.Before(in.deployed.Truncate(time.Second))
}

// replicaSetName finds the name in what the deployment controller writes into
// the Progressing condition, such as `ReplicaSet "shop-7d9f" is progressing.`
var replicaSetName = regexp.MustCompile(`(?i)replica ?set "([^"]+)"`)

// podsByCondition does without ReplicaSets, for a caller who may not read them.
func (in *inspector) podsByCondition(d *appsv1.Deployment) (current, all []*corev1.Pod, known bool) {
	c := deploymentCondition(d, appsv1.DeploymentProgressing)
	s := d.Status
	if c == nil || c.Reason == "NewReplicaSetAvailable" && (s.Replicas != s.UpdatedReplicas || int(s.UpdatedReplicas) != replicasOf(d.Spec.Replicas)) {
		return nil, nil, false // the condition is still the previous revision's
	}
	match := replicaSetName.FindStringSubmatch(c.Message)
	if match == nil {
		return nil, nil, false
	}
	for _, pod := range allIn[*corev1.Pod](in.world, pods.name, d.Namespace) {
		if ref := metav1.GetControllerOf(pod); ref != nil && ref.Kind == "ReplicaSet" && ref.Name == match[1] {
			current = append(current, pod)
		}
	}
	return current, current, true
}

func deploymentCondition(d *appsv1.Deployment, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i, c := range d.Status.Conditions {
		if c.Type == t {
			return &d.Status.Conditions[i]
		}
	}
	return nil
}

// denied reports whether the caller may not read r in a namespace.
func (in *inspector) denied(r resource, namespace string) bool {
	for _, m := range in.world.feedsOf(r.id()) {
		if s := m.status(); (m.namespace == namespace || r.clusterScoped) && s.barred() {
			return true
		}
	}
	return false
}
