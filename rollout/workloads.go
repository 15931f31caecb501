package rollout

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/rollout/internal/daemonset"
	"github.com/fairlead-dev/fairlead/stages"
)

// revision looks at the pods of the revision being rolled out; all has those of
// other revisions, too, where there can be any.
func (in *inspector) revision(a *assessment, revisionPods, all []*corev1.Pod, now time.Time) {
	terminating := leaving(all)
	if in.drain {
		a.lingering = lingering(a.object.Kind, revisionPods, all)
	}
	for _, pod := range revisionPods {
		if pod.DeletionTimestamp != nil {
			terminating = true
			continue
		}
		l := in.inspect(pod, a.object.Kind != "Job", now)
		a.proven += l.proven
		if l.renamed != "" {
			a.renamed = l.renamed
		}
		if l.ready {
			a.ready++
			a.served = later(a.served, readySince(pod))
		}
		a.recheck = sooner(a.recheck, l.recheck)
		for _, f := range l.findings {
			if f.shared { // one of many replicas may be unlucky more often than one of one
				f.count /= max(a.desired, 1)
			}
			a.findings = append(a.findings, f)
		}
	}
	if terminating {
		a.postpone(Unschedulable)
	}
}

// postpone stops the clock for a cause that pods on their way out may remove.
func (a *assessment) postpone(cause Cause) {
	for i := range a.findings {
		if a.findings[i].cause == cause {
			a.findings[i].postponed = true
		}
	}
}

// refusals reports pods that the API server refused to create for owner, which
// has some of them. A refusal is over once a pod has been created since. Events of an
// earlier revision are not counted; an owner that was never changed has had none.
func (in *inspector) refusals(a *assessment, kind string, owner metav1.Object, have []*corev1.Pod) {
	if len(have) >= max(a.desired, 1) {
		return
	}
	e := in.world.events.last(owner.GetUID(), "FailedCreate")
	if e == nil || owner.GetGeneration() != 1 && !in.world.events.isFresh(e) {
		return
	}
	at := eventTime(e).Truncate(time.Second) // which is all that a pod tells
	if slices.ContainsFunc(have, func(p *corev1.Pod) bool { return !p.CreationTimestamp.Time.Before(at) }) {
		return
	}
	cause, _ := classify(refusalPatterns, e.Reason, e.Message)
	a.fail(cause, subjectOf(kind, owner), e.Reason, e.Message)
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func replicasOf(n *int32) int {
	if n == nil {
		return 1
	}
	return int(*n)
}

func unobserved(generation, observed int64) string {
	if observed < generation {
		return "its controller has not seen the change yet"
	}
	return ""
}

func leaving(all []*corev1.Pod) bool {
	for _, p := range all {
		if p.DeletionTimestamp != nil {
			return true
		}
	}
	return false
}

// lingering counts the pods that still run although they have been replaced, or are
// about to be: of the objects of one kind, some may be told later than others.
func lingering(kind string, current, all []*corev1.Pod) (n int) {
	for _, p := range all {
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		// A StatefulSet may keep pods of another revision for good.
		if p.DeletionTimestamp != nil || kind != "StatefulSet" && !slices.Contains(current, p) {
			n++
		}
	}
	return n
}

// subject is what a finding is about.
type subject struct {
	kind, namespace, name string
	uid                   types.UID
}

func (s subject) String() string { return s.kind + " " + s.namespace + "/" + s.name }

func podSubject(p *corev1.Pod) subject { return subjectOf("Pod", p) }

func subjectOf(kind string, o metav1.Object) subject {
	return subject{kind, o.GetNamespace(), o.GetName(), o.GetUID()}
}

// endedFor returns why a pod was ended from outside. Its status may not tell: the
// kubelet drops the reason of an eviction if the program has ended before.
func (in *inspector) endedFor(pod *corev1.Pod) (reason, message string) {
	if pod.Status.Reason != "" {
		return pod.Status.Reason, pod.Status.Message
	}
	if e := in.world.events.last(pod.UID, "Evicted"); e != nil {
		return e.Reason, e.Message
	}
	return "", ""
}

// leftAlone reports whether pods of a former revision stay because nothing replaces
// them. Those that somebody has deleted don't.
func leftAlone(all, current []*corev1.Pod) bool {
	return slices.ContainsFunc(all, func(p *corev1.Pod) bool { return p.DeletionTimestamp == nil && !slices.Contains(current, p) })
}

// statefulSet: the pods of status.updateRevision count.
func (in *inspector) statefulSet(o stages.Object, now time.Time) assessment {
	a := assessment{object: o}
	set, ok := object[*appsv1.StatefulSet](in.world, statefulSets.name, o.Namespace, o.Name)
	if !ok {
		return a.missing()
	}
	a.template, a.desired = &set.Spec.Template.Spec, replicasOf(set.Spec.Replicas)
	a.scaledToZero()
	// All but the one that is being updated: of a quorum's members, one alone is of no use.
	a.lacking = int(set.Status.ReadyReplicas) < min(a.desired, max(1, a.desired-1))
	if a.waiting = unobserved(set.Generation, set.Status.ObservedGeneration); a.waiting != "" {
		return a
	}
	owner := subjectOf("StatefulSet", set)
	all := ownedBy[*corev1.Pod](in.world, pods.name, set.UID)
	current := withLabel(all, appsv1.ControllerRevisionHashLabelKey, set.Status.UpdateRevision)
	updated := a.desired // how many are to be of the new revision
	if r := set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		updated = max(0, a.desired-int(*r.Partition))
		if updated == 0 && len(current) == 0 && a.idle == "" {
			a.idle = "its partition keeps all pods of the revision before, and their image"
		}
	}
	if set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType && leftAlone(all, current) {
		a.fail(ManualUpdate, owner, "OnDelete", "pods of the previous revision stay until somebody deletes them")
	}
	in.refusals(&a, o.Kind, set, current)
	in.revision(&a, current, all, now)
	spare := 0
	if r := set.Spec.UpdateStrategy.RollingUpdate; r != nil {
		spare = in.mayLack(r.MaxUnavailable, a.desired)
	}
	s := set.Status
	a.done = a.ready >= updated-spare && int(s.ReadyReplicas) >= a.desired-spare && int(s.AvailableReplicas) >= a.desired-spare &&
		len(current) >= updated && int(s.Replicas) <= a.desired
	if !a.done {
		a.waiting = statefulSetWaits(set, all, current, updated)
	}
	a.desired = updated
	return a
}

// statefulSetWaits says what holds up a StatefulSet whose new pods are fine: its
// controller replaces one pod after the other, and none while another is unready.
func statefulSetWaits(set *appsv1.StatefulSet, all, current []*corev1.Pod, updated int) string {
	if extra := int(set.Status.Replicas) - replicasOf(set.Spec.Replicas); extra > 0 {
		return fmt.Sprintf("%d pods more than wanted are still running", extra)
	}
	if len(current) < updated {
		for _, p := range all {
			if !slices.Contains(current, p) && p.DeletionTimestamp == nil && !condition(p, corev1.PodReady) {
				return fmt.Sprintf("pod %s of the previous revision is not ready, which holds the update up", p.Name)
			}
		}
		return fmt.Sprintf("%d of %d pods are of the new revision", len(current), updated)
	}
	return fmt.Sprintf("%d of %d available", set.Status.AvailableReplicas, replicasOf(set.Spec.Replicas))
}

// mayLack returns how many of a workload's pods may be missing, if the
// configuration allows any.
func (in *inspector) mayLack(maxUnavailable *intstr.IntOrString, desired int) int {
	if !in.spare || maxUnavailable == nil {
		return 0
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(maxUnavailable, desired, false)
	if err != nil {
		return 0
	}
	return max(0, min(n, desired-1))
}

// daemonSet: the pods of the current template count, which the controller tells by
// what it writes on the DaemonSet and on each pod.
func (in *inspector) daemonSet(o stages.Object, now time.Time) assessment {
	a := assessment{object: o}
	set, ok := object[*appsv1.DaemonSet](in.world, daemonSets.name, o.Namespace, o.Name)
	if !ok {
		return a.missing()
	}
	a.template, a.desired = &set.Spec.Template.Spec, int(set.Status.DesiredNumberScheduled)
	a.lacking = set.Status.NumberReady == 0
	if a.waiting = unobserved(set.Generation, set.Status.ObservedGeneration); a.waiting != "" {
		return a
	}
	if a.desired == 0 {
		a.idle = "no node is to run it, by its selector, affinity and tolerations"
	}
	owner := subjectOf("DaemonSet", set)
	all := ownedBy[*corev1.Pod](in.world, pods.name, set.UID)
	current := daemonset.Current(set, all)
	if set.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType && leftAlone(all, current) {
		a.fail(ManualUpdate, owner, "OnDelete", "pods of the previous revision stay until somebody deletes them")
	}
	in.refusals(&a, o.Kind, set, current)
	in.revision(&a, current, all, now)
	spare := 0
	if r := set.Spec.UpdateStrategy.RollingUpdate; r != nil {
		spare = in.mayLack(r.MaxUnavailable, a.desired)
	}
	a.done = a.ready >= a.desired-spare && int(set.Status.UpdatedNumberScheduled) >= a.desired && int(set.Status.NumberAvailable) >= a.desired-spare
	if !a.done {
		a.waiting = fmt.Sprintf("%d of %d updated, %d available", set.Status.UpdatedNumberScheduled, a.desired, set.Status.NumberAvailable)
	}
	return a
}

func withLabel(all []*corev1.Pod, label, value string) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range all {
		if value != "" && p.Labels[label] == value {
			out = append(out, p)
		}
	}
	return out
}

// replicaSet: all of its pods count, for it replaces none of them.
func (in *inspector) replicaSet(o stages.Object, now time.Time) assessment {
	a := assessment{object: o}
	set, ok := object[*appsv1.ReplicaSet](in.world, replicaSets.name, o.Namespace, o.Name)
	if !ok {
		return a.missing()
	}
	a.template, a.desired = &set.Spec.Template.Spec, replicasOf(set.Spec.Replicas)
	a.scaledToZero()
	a.lacking = a.desired > 0 && set.Status.ReadyReplicas == 0
	if a.waiting = unobserved(set.Generation, set.Status.ObservedGeneration); a.waiting != "" {
		return a
	}
	in.replicas(&a, set, set.Status.Replicas, set.Status.AvailableReplicas, now)
	return a
}

func (in *inspector) replicationController(o stages.Object, now time.Time) assessment {
	a := assessment{object: o}
	c, ok := object[*corev1.ReplicationController](in.world, replicationControllers.name, o.Namespace, o.Name)
	if !ok {
		return a.missing()
	}
	a.desired = replicasOf(c.Spec.Replicas)
	a.scaledToZero()
	a.lacking = a.desired > 0 && c.Status.ReadyReplicas == 0
	if c.Spec.Template != nil {
		a.template = &c.Spec.Template.Spec
	}
	if a.waiting = unobserved(c.Generation, c.Status.ObservedGeneration); a.waiting != "" {
		return a
	}
	in.replicas(&a, c, c.Status.Replicas, c.Status.AvailableReplicas, now)
	return a
}

func (in *inspector) replicas(a *assessment, owner metav1.Object, there, available int32, now time.Time) {
	all := ownedBy[*corev1.Pod](in.world, pods.name, owner.GetUID())
	in.refusals(a, a.object.Kind, owner, all)
	in.revision(a, all, all, now)
	a.done = a.ready >= a.desired && int(there) <= a.desired && int(available) >= a.desired
	if !a.done {
		a.waiting = fmt.Sprintf("%d of %d available", available, a.desired)
	}
}

// barePod: it must become ready or, if it isn't restarted, succeed.
func (in *inspector) barePod(o stages.Object, now time.Time) assessment {
	a := assessment{object: o, desired: 1}
	pod, ok := object[*corev1.Pod](in.world, pods.name, o.Namespace, o.Name)
	if !ok {
		return a.missing()
	}
	a.template, a.lacking = &pod.Spec, true // until it is done
	in.revision(&a, []*corev1.Pod{pod}, nil, now)
	reason, message := in.endedFor(pod)
	switch {
	case pod.Status.Phase != corev1.PodFailed && pod.Spec.RestartPolicy == corev1.RestartPolicyAlways &&
		(pod.Status.Phase == corev1.PodSucceeded || reason != ""):
		// It was ended from outside, by an eviction for one, and its program obeyed.
		a.fail(ending(orElse(reason, "Succeeded"), message), podSubject(pod), orElse(reason, "Succeeded"),
			orElse(message, "the pod was ended although it should keep running"))
		a.findings[len(a.findings)-1].pod = pod
		if reason != "" { // else why comes a moment later
			a.findings[len(a.findings)-1].count = 1 << 16 // nothing replaces it
		}
	case pod.Status.Phase == corev1.PodSucceeded:
		var l look
		if a.findings = in.images(pod, &l); len(a.findings) == 0 {
			a.ready, a.done = 1, true
		}
	case pod.Status.Phase == corev1.PodFailed:
		for i := range a.findings {
			a.findings[i].count, a.findings[i].past = 1<<16, false // nothing replaces it
		}
	default:
		a.done = a.ready == 1 && !in.toEnd
	}
	return a
}
