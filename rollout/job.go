package rollout

import (
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// queueLabel names the queue of a job that Kueue suspends until there is room.
const queueLabel = "kueue.x-k8s.io/queue-name"

// job: it must complete. How many of its pods may fail is its own business, but for what
// no other pod mends.
func (in *inspector) job(o stages.Object, now time.Time) assessment {
	a := assessment{object: o}
	job, ok := object[*batchv1.Job](in.world, jobs.name, o.Namespace, o.Name)
	if !ok { // its ttlSecondsAfterFinished may be over
		if seen, ok := in.completed[o]; ok {
			return seen
		}
		if job, ok = in.world.endedJob(o.Namespace, o.Name); !ok {
			return a.missing()
		}
	}
	in.jobState(&a, job, now)
	if a.done {
		in.completed[o] = a
	}
	return a
}

// jobState judges a job that is there.
func (in *inspector) jobState(a *assessment, job *batchv1.Job, now time.Time) {
	owner := subjectOf("Job", job)
	a.template, a.desired, a.ready = &job.Spec.Template.Spec, replicasOf(job.Spec.Completions), int(job.Status.Succeeded)
	a.lacking = true // until it is done
	if job.Spec.Suspend != nil && *job.Spec.Suspend {
		if queue := job.Labels[queueLabel]; queue != "" {
			a.waiting = "suspended until queue " + queue + " admits it"
			return
		}
		a.fail(Paused, owner, "Suspended", "spec.suspend is true")
		return
	}
	succeeded, all := a.ready, ownedBy[*corev1.Pod](in.world, pods.name, job.UID)
	tried := in.tried(job.UID, all)
	for _, c := range job.Status.Conditions {
		switch {
		case c.Status != corev1.ConditionTrue:
		case c.Type == batchv1.JobComplete || c.Type == batchv1.JobSuccessCriteriaMet:
			a.done = true
		case c.Type == batchv1.JobFailed || c.Type == batchv1.JobFailureTarget:
			a.findings = append(a.findings, tried.verdict(owner, c))
			return
		}
	}
	in.refusals(a, owner.kind, job, all)
	in.revision(a, all, nil, now)
	tried.note(all, a.findings)
	if !a.done {
		a.findings = append(a.findings, tried.latest()...)
	}
	a.ready, a.served = succeeded, time.Time{}
	if at := job.Status.CompletionTime; at != nil {
		a.served = at.Time
	}
	if a.done && a.proven == 0 && !in.image.IsZero() {
		// Its pods may be gone already; then the pinned template has to do.
		if _, wrong := uses(in.image, *a.template); wrong == nil && pins(in.image, *a.template) {
			a.proven = 1
		}
	}
}

func completed(job *batchv1.Job) bool { return hasCondition(job, batchv1.JobComplete) }

// isOver reports whether a job has ended, one way or the other.
func isOver(job *batchv1.Job) bool { return completed(job) || hasCondition(job, batchv1.JobFailed) }

func hasCondition(job *batchv1.Job, t batchv1.JobConditionType) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Type == t && c.Status == corev1.ConditionTrue
	})
}
