package rollout

import (
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// maxEnded bounds the jobs that are remembered after they are gone.
const maxEnded = 200

// endedJobs are the jobs that were deleted after they had completed, which may be
// so soon that nobody has looked in between.
type endedJobs struct {
	jobs map[types.NamespacedName]endedJob
	// number is of the last one that was noted.
	number int
}

type endedJob struct {
	job    *batchv1.Job
	number int
}

// note remembers an object that is gone, if it is a job that somebody may wait for.
func (e *endedJobs) note(o metav1.Object) {
	job, ok := o.(*batchv1.Job)
	if !ok || metav1.GetControllerOfNoCopy(o) != nil || !completed(job) {
		return
	}
	e.number++
	e.jobs[nameOf(o)] = endedJob{job, e.number}
	for name, j := range e.jobs {
		if j.number <= e.number-maxEnded {
			delete(e.jobs, name)
		}
	}
}
