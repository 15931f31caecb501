package rollout

import (
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// trials are what a job's pods were seen to come to. The controller deletes those that
// still run once the job has failed, and with them what they have to tell.
type trials struct {
	// failed is what the pod that failed last has failed of, and at is when.
	failed *finding
	at     time.Time
	// stuck is what keeps the pod that is there, or was the last to be, from running.
	stuck *finding
}

// tried takes in how pods of a job have failed.
func (in *inspector) tried(job types.UID, all []*corev1.Pod) *trials {
	t := in.trials[job]
	if t == nil {
		t = &trials{}
		in.trials[job] = t
	}
	for _, pod := range all {
		if f, at := in.failure(pod); f != nil && !at.Before(t.at) {
			t.failed, t.at = f, at
		}
	}
	return t
}

// failure returns how a pod of a job has failed last, and when; nil if it hasn't.
func (in *inspector) failure(pod *corev1.Pod) (f *finding, at time.Time) {
	for i, s := range allStatuses(pod) {
		t, role := lastEnd(s), roleOf(pod, i, s.Name)
		if t == nil || t.ExitCode == 0 || f != nil && t.FinishedAt.Time.Before(at) || endedWithPod(pod, role, t) {
			continue
		}
		f = &finding{subject: podSubject(pod), pod: pod, container: s.Name, role: role, restarts: s.RestartCount, reason: t.Reason}
		in.crashed(f, pod, s, t, 1)
		at = t.FinishedAt.Time
	}
	if pod.Status.Phase != corev1.PodFailed {
		return f, at
	}
	reason, message := in.ending(pod)
	if cause := ending(reason, message); cause != PodFailed { // it was ended from outside
		at = later(at, pod.CreationTimestamp.Time)
		f = &finding{subject: podSubject(pod), pod: pod, cause: cause, reason: reason, message: message}
	}
	return f, at
}

// unmended are what no other pod of a job does better at.
var unmended = map[Cause]bool{CommandNotRunnable: true, ImageWrongPlatform: true}

// hopeless returns why no other pod of its job will do better than one that has failed.
func (in *inspector) hopeless(pod *corev1.Pod) []finding {
	return slices.DeleteFunc(in.containers(pod, false), func(f finding) bool { return !unmended[f.cause] })
}

// note takes in what keeps the pods that are there from running.
func (t *trials) note(all []*corev1.Pod, findings []finding) {
	if !slices.ContainsFunc(all, func(p *corev1.Pod) bool { return p.DeletionTimestamp == nil && !hasEnded(p) }) {
		return
	}
	t.stuck = nil
	for _, f := range findings {
		if f.pod != nil && (f.weight() == 0 || f.reason == initRunning) {
			t.stuck = &f
			return
		}
	}
}

// latest returns what a job that goes on trying has to tell of the last try.
func (t *trials) latest() []finding {
	if t.failed == nil {
		return nil
	}
	f := *t.failed
	f.message += "; its job tries again"
	f.past = true
	return []finding{f}
}

// verdict is why a job has failed: what its controller says, and what its last pod has
// failed of, which is the cause where that says more than that a program fails.
func (t *trials) verdict(owner subject, c batchv1.JobCondition) finding {
	verdict := finding{cause: jobCause(c.Reason), reason: orElse(c.Reason, "Failed"), message: c.Message, subject: owner, count: 1}
	late := verdict.cause == DeadlineExceeded
	var f finding
	switch {
	case t.stuck != nil && (late || t.failed == nil):
		f = *t.stuck
		f.message = c.Message + "; " + f.reason + ": " + f.message
		if f.cause == Starting {
			f.cause = verdict.cause
		}
	case t.failed != nil:
		f = *t.failed
		f.message = c.Message + ": " + f.message
		if late || f.cause == Crash || f.cause == InitCrash {
			f.cause = verdict.cause
		}
	default:
		return verdict
	}
	f.reason, f.count, f.past, f.judgedAs = verdict.reason, 1, false, verdict.cause
	return f
}

func hasEnded(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}
