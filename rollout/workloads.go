package rollout

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedappsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	typedbatchv1 "k8s.io/client-go/kubernetes/typed/batch/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// The resources that workloads are judged by.
var (
	pods = newResource("pods", func(c kubernetes.Interface, ns string) typedcorev1.PodInterface { return c.CoreV1().Pods(ns) })

	events = optional(newResource("events", func(c kubernetes.Interface, ns string) typedcorev1.EventInterface { return c.CoreV1().Events(ns) }))

	deployments = newResource("deployments", func(c kubernetes.Interface, ns string) typedappsv1.DeploymentInterface {
		return c.AppsV1().Deployments(ns)
	})
	replicaSets = optional(newResource("replicasets", func(c kubernetes.Interface, ns string) typedappsv1.ReplicaSetInterface {
		return c.AppsV1().ReplicaSets(ns)
	}))
	statefulSets = newResource("statefulsets", func(c kubernetes.Interface, ns string) typedappsv1.StatefulSetInterface {
		return c.AppsV1().StatefulSets(ns)
	})
	daemonSets = newResource("daemonsets", func(c kubernetes.Interface, ns string) typedappsv1.DaemonSetInterface {
		return c.AppsV1().DaemonSets(ns)
	})
	jobs = newResource("jobs", func(c kubernetes.Interface, ns string) typedbatchv1.JobInterface { return c.BatchV1().Jobs(ns) })
)

func optional(r resource) resource {
	r.optional = true
	return r
}

// kind is one kind of workload that a verification can judge.
type kind struct {
	needs  []resource
	assess func(*inspector, stages.Object, time.Time) assessment
}

// kinds are the workloads, by API group and kind. Every other object is only
// required to exist.
var kinds = map[string]kind{
	"apps/Deployment":  {[]resource{pods, events, deployments, replicaSets}, (*inspector).deployment},
	"apps/StatefulSet": {[]resource{pods, events, statefulSets}, (*inspector).statefulSet},
	"apps/DaemonSet":   {[]resource{pods, events, daemonSets}, (*inspector).daemonSet},
	"batch/Job":        {[]resource{pods, events, jobs}, (*inspector).job},
	"/Pod":             {[]resource{pods, events}, (*inspector).barePod},
}

// assessment is how far a workload is.
type assessment struct { //nolint:recvcheck // filled in place, then read as a value
	object   stages.Object
	desired  int
	ready    int
	done     bool
	waiting  string // what is awaited, where there is no finding
	findings []finding
	recheck  time.Time
	// proven counts the containers seen to run the image; renamed is another digest
	// that the runtime reported one of them by.
	proven  int
	renamed stages.Digest
	// template is what new pods are made of; nil while unknown.
	template *corev1.PodSpec
}

func (a *assessment) fail(cause Cause, s subject, reason, message string) {
	a.findings = append(a.findings, finding{cause: cause, reason: reason, message: message, subject: s})
}

// missing is the assessment of a workload that is not there.
func (a *assessment) missing() assessment {
	a.fail(Missing, subject{kind: a.object.Kind, namespace: a.object.Namespace, name: a.object.Name}, "NotFound", "the object does not exist")
	return *a
}

// revision looks at the pods of the revision being rolled out, of which want
// are needed; terminating says that pods of another revision are still leaving.
func (in *inspector) revision(a *assessment, revisionPods []*corev1.Pod, terminating bool, now time.Time) {
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
		a.postpone(Unschedulable, QuotaExceeded)
	}
}

// postpone stops the clock for causes that pods on their way out may remove.
func (a *assessment) postpone(causes ...Cause) {
	for i := range a.findings {
		for _, c := range causes {
			if a.findings[i].cause == c {
				a.findings[i].postponed = true
			}
		}
	}
}

// refusals reports pods that the API server refused to create for owner, which
// has some of them. Events of an earlier revision are not counted.
func (in *inspector) refusals(a *assessment, owner subject, have int) {
	if have >= max(a.desired, 1) {
		return
	}
	e := in.world.events.last(owner.uid, "FailedCreate")
	if e == nil || !in.world.events.isFresh(e) {
		return
	}
	cause, _ := classify(refusalPatterns, e.Reason, e.Message)
	a.fail(cause, owner, e.Reason, e.Message)
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

// statefulSet: the pods of status.updateRevision count.
func (in *inspector) statefulSet(o stages.Object, now time.Time) assessment {
	a := assessment{object: o}
	set, ok := object[*appsv1.StatefulSet](in.world, statefulSets.name, o.Namespace, o.Name)
	if !ok {
		return a.missing()
	}
	a.template, a.desired = &set.Spec.Template.Spec, replicasOf(set.Spec.Replicas)
	if a.waiting = unobserved(set.Generation, set.Status.ObservedGeneration); a.waiting != "" {
		return a
	}
	owner := subjectOf("StatefulSet", set)
	all := ownedBy[*corev1.Pod](in.world, pods.name, set.UID)
	current := withLabel(all, appsv1.ControllerRevisionHashLabelKey, set.Status.UpdateRevision)
	updated := a.desired // how many are to be of the new revision
	if r := set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		updated = max(0, a.desired-int(*r.Partition))
	}
	if set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType && len(current) < len(all) {
		a.fail(ManualUpdate, owner, "OnDelete", "pods of the previous revision stay until somebody deletes them")
	}
	in.refusals(&a, owner, len(current))
	in.revision(&a, current, leaving(all), now)
	a.done = a.ready >= updated && int(set.Status.ReadyReplicas) >= a.desired && int(set.Status.AvailableReplicas) >= a.desired
	a.desired = updated
	return a
}

// daemonSet: the pods of the current template generation count, which the
// controller writes on the DaemonSet and on each pod.
func (in *inspector) daemonSet(o stages.Object, now time.Time) assessment {
	a := assessment{object: o}
	set, ok := object[*appsv1.DaemonSet](in.world, daemonSets.name, o.Namespace, o.Name)
	if !ok {
		return a.missing()
	}
	a.template, a.desired = &set.Spec.Template.Spec, int(set.Status.DesiredNumberScheduled)
	if a.waiting = unobserved(set.Generation, set.Status.ObservedGeneration); a.waiting != "" {
		return a
	}
	owner := subjectOf("DaemonSet", set)
	all := ownedBy[*corev1.Pod](in.world, pods.name, set.UID)
	current := withLabel(all, templateGenerationLabel, set.Annotations[appsv1.DeprecatedTemplateGeneration])
	if set.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType && len(current) < len(all) {
		a.fail(ManualUpdate, owner, "OnDelete", "pods of the previous revision stay until somebody deletes them")
	}
	in.refusals(&a, owner, len(current))
	in.revision(&a, current, leaving(all), now)
	a.done = a.ready >= a.desired && int(set.Status.UpdatedNumberScheduled) >= a.desired && int(set.Status.NumberAvailable) >= a.desired
	return a
}

const templateGenerationLabel = "pod-template-generation"

func withLabel(all []*corev1.Pod, label, value string) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range all {
		if value != "" && p.Labels[label] == value {
			out = append(out, p)
		}
	}
	return out
}

// job: it must complete. How many of its pods may fail is its own business.
func (in *inspector) job(o stages.Object, now time.Time) assessment {
	a := assessment{object: o}
	job, ok := object[*batchv1.Job](in.world, jobs.name, o.Namespace, o.Name)
	if !ok {
		return a.missing()
	}
	owner := subjectOf("Job", job)
	a.template, a.desired, a.ready = &job.Spec.Template.Spec, replicasOf(job.Spec.Completions), int(job.Status.Succeeded)
	if job.Spec.Suspend != nil && *job.Spec.Suspend {
		a.fail(Paused, owner, "Suspended", "spec.suspend is true")
		return a
	}
	for _, c := range job.Status.Conditions {
		switch {
		case c.Status != corev1.ConditionTrue:
		case c.Type == batchv1.JobComplete || c.Type == batchv1.JobSuccessCriteriaMet:
			a.done = true
		case c.Type == batchv1.JobFailed || c.Type == batchv1.JobFailureTarget:
			in.jobFailed(&a, owner, c)
			return a
		}
	}
	succeeded, all := a.ready, ownedBy[*corev1.Pod](in.world, pods.name, job.UID)
	in.refusals(&a, owner, len(all))
	in.revision(&a, all, false, now)
	a.ready = succeeded
	if a.done && a.proven == 0 {
		// Its pods may be gone already; then the pinned template has to do.
		if _, wrong := uses(in.image, *a.template); wrong == nil && pins(in.image, *a.template) {
			a.proven = 1
		}
	}
	return a
}

// jobFailed points at the job's last failed pod, which says why.
func (in *inspector) jobFailed(a *assessment, owner subject, c batchv1.JobCondition) {
	f := finding{cause: jobCause(c.Reason), reason: orElse(c.Reason, "Failed"), message: c.Message, subject: owner}
	for _, pod := range ownedBy[*corev1.Pod](in.world, pods.name, owner.uid) {
		for _, s := range allStatuses(pod) {
			t := s.State.Terminated
			if t == nil {
				t = s.LastTerminationState.Terminated
			}
			if t == nil || t.ExitCode == 0 || f.exit != nil && t.FinishedAt.Before(&f.exit.FinishedAt) {
				continue
			}
			f.pod, f.subject, f.container, f.role, f.exit, f.restarts = pod, podSubject(pod), s.Name, "container", t, s.RestartCount
			f.message = fmt.Sprintf("%s: %s", c.Message, describeExit(t, 1, false))
		}
	}
	a.findings = append(a.findings, f)
}

// barePod: it must become ready or, if it isn't restarted, succeed.
func (in *inspector) barePod(o stages.Object, now time.Time) assessment {
	a := assessment{object: o, desired: 1}
	pod, ok := object[*corev1.Pod](in.world, pods.name, o.Namespace, o.Name)
	if !ok {
		return a.missing()
	}
	a.template = &pod.Spec
	in.revision(&a, []*corev1.Pod{pod}, false, now)
	switch {
	case pod.Status.Phase == corev1.PodSucceeded:
		var l look
		if a.findings = in.images(pod, &l); len(a.findings) == 0 {
			a.ready, a.done = 1, true
		}
	case pod.Status.Phase == corev1.PodFailed:
		for i := range a.findings {
			a.findings[i].count = 1 << 16 // nothing replaces it
		}
	default:
		a.done = a.ready == 1 && !in.toEnd
	}
	return a
}
