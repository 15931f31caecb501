package rollout

import (
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// cronJob: it must exist, and its template is held against the image. The jobs
// that it makes later are not part of the rollout.
func (in *inspector) cronJob(a *assessment, o metav1.Object) {
	if c, ok := o.(*batchv1.CronJob); ok {
		a.template = &c.Spec.JobTemplate.Spec.Template.Spec
		a.exists()
	}
}

// cronRuns: the newest run of the current template must complete, as any job. Runs
// that had ended before the first look are a former release's.
func (in *inspector) cronRuns(o stages.Object, now time.Time) assessment {
	a := assessment{object: o, desired: 1, podless: true}
	c, ok := object[*batchv1.CronJob](in.world, cronJobs.name, o.Namespace, o.Name)
	if !ok {
		return a.missing()
	}
	a.template = &c.Spec.JobTemplate.Spec.Template.Spec
	if c.Spec.Suspend != nil && *c.Spec.Suspend {
		a.finish("suspended")
		a.idle = "it runs nothing until somebody wants it" // which is no part of a rollout
		return a
	}
	run := in.newestRun(c)
	if run == nil {
		a.waiting = fmt.Sprintf("no run of its current template yet (schedule %s)", c.Spec.Schedule)
		return a
	}
	of := assessment{object: stages.Object{APIVersion: "batch/v1", Kind: "Job", Namespace: run.Namespace, Name: run.Name}}
	in.jobState(&of, run, now)
	a.findings, a.recheck, a.proven, a.renamed = of.findings, of.recheck, of.proven, of.renamed
	a.waiting = of.String()
	if of.done {
		a.finish("run " + run.Name + " completed")
	}
	return a
}

// newestRun returns the job that c has made last of its current template, unless it
// had ended before.
func (in *inspector) newestRun(c *batchv1.CronJob) *batchv1.Job {
	var newest *batchv1.Job
	for _, job := range ownedBy[*batchv1.Job](in.world, jobs.name, c.UID) {
		if in.history[job.UID] || !equality.Semantic.DeepEqual(job.Spec.Template.Spec, c.Spec.JobTemplate.Spec.Template.Spec) {
			continue
		}
		if newest == nil || newest.CreationTimestamp.Before(&job.CreationTimestamp) {
			newest = job
		}
	}
	return newest
}
