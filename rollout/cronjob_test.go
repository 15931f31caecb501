package rollout

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/stages"
)

// runOf is a job that a CronJob has made, and its pod.
func runOf(c *batchv1.CronJob, name string, conditions ...batchv1.JobCondition) (*batchv1.Job, *corev1.Pod) {
	j := job(conditions...)
	j.Name, j.UID, j.CreationTimestamp = name, types.UID(name), metav1.Now()
	j.Spec.Template = *c.Spec.JobTemplate.Spec.Template.DeepCopy()
	j.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(c, batchv1.SchemeGroupVersion.WithKind("CronJob"))}
	return j, podOf(j, "Job", name+"-x", j.Spec.Template)
}

func TestCronRuns(t *testing.T) {
	object := stages.Object{APIVersion: "batch/v1", Kind: "CronJob", Name: "nightly"}
	complete := batchv1.JobCondition{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}
	failed := batchv1.JobCondition{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded"}
	begin := func(t *testing.T, c *batchv1.CronJob) (*lab, *run) {
		wrong, _ := runOf(c, "nightly-0", failed)
		former, _ := runOf(cronJob(pinnedTo(digestB)), "nightly-1")
		l := newLab(t, c, wrong, former)
		l.config.CronRuns = true
		r := l.start(t.Context(), release(t, object))
		time.Sleep(time.Minute)
		require.False(t, r.over(), "one run is over, and one is of another template: %v", r.err)
		return l, r
	}
	t.Run("completes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := cronJob(pinnedTo(digestA))
			l, r := begin(t, c)
			j, pod := runOf(c, "nightly-2")
			l.put(j, as(pod, running(pinnedTo(digestA))))
			require.False(t, r.over())
			j.Status.Conditions = []batchv1.JobCondition{complete}
			l.put(j)
			require.True(t, r.over())
			require.NoError(t, r.err)
			assert.Contains(t, r.result.Checks[0].Message, "run nightly-2 completed, running")
		})
	})
	t.Run("fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := cronJob(pinnedTo(digestA))
			l, r := begin(t, c)
			j, pod := runOf(c, "nightly-2")
			l.put(j, as(pod, waiting("ErrImagePull", "manifest unknown")))
			f := r.failure(t)
			assert.Equal(t, ImageNotFound, f.Cause)
			assert.Equal(t, "CronJob", f.Workload.Kind)
			assert.Equal(t, []string{"Job shop/nightly-2", "CronJob shop/nightly"}, f.Decisive.Owners)
			assert.Equal(t, "spec.jobTemplate.spec.template.spec.containers[name=app].image", f.Decisive.Field)
		})
	})
	t.Run("its pods are refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := cronJob(pinnedTo(digestA))
			l, r := begin(t, c)
			j, _ := runOf(c, "nightly-2")
			l.put(j, event(j, "Job", "FailedCreate", "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"))
			f := r.failure(t)
			assert.Equal(t, QuotaExceeded, f.Cause)
			assert.Equal(t, "spec.jobTemplate.spec.parallelism", f.Decisive.Field)
		})
	})
	t.Run("is suspended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := cronJob(pinnedTo(digestA))
			c.Spec.Suspend = new(true)
			l := newLab(t, c)
			l.config.CronRuns, l.config.AllowUnused = true, true
			r := l.start(t.Context(), release(t, object))
			require.True(t, r.over())
			require.NoError(t, r.err)
			assert.Contains(t, r.result.Checks[0].Message, "suspended")
		})
	})
}
