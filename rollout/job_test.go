package rollout

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

var migrate = stages.Object{APIVersion: "batch/v1", Kind: "Job", Name: "migrate"}

// failedJobPod is a pod of a job, which ended so.
func failedJobPod(name string, t *corev1.ContainerStateTerminated) *corev1.Pod {
	j := job()
	return as(podOf(j, "Job", name, j.Spec.Template), func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodFailed
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: t}
	})
}

func jobFailedFor(reason, message string) *batchv1.Job {
	return job(batchv1.JobCondition{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: reason, Message: message})
}

func tooOften() *batchv1.Job {
	return jobFailedFor("BackoffLimitExceeded", "Job has reached the specified backoff limit")
}

// What the pod that failed last has failed of is the cause, where that says more than
// that the program fails.
func TestWhyAJobFailed(t *testing.T) {
	for name, test := range map[string]struct {
		pod   *corev1.Pod
		cause Cause
		field string
		text  string
	}{
		"by an exit code":  {failedJobPod("migrate-b", ended(3, "Error")), JobFailed, "spec.backoffLimit", "exit code 3 after 1s"},
		"for want of room": {failedJobPod("migrate-b", ended(137, "OOMKilled")), OutOfMemory, "spec.template.spec.containers[name=app].resources.limits.memory", "out of memory"},
		"evicted": {as(failedJobPod("migrate-b", ended(137, "Error")), func(p *corev1.Pod) {
			p.Status.Reason, p.Status.Message = "Evicted", "The node was low on resource: memory."
		}), Evicted, "", "The node was low on resource"},
		"refused by its node": {as(failedJobPod("migrate-b", nil), func(p *corev1.Pod) {
			p.Status.Reason, p.Status.Message, p.Status.ContainerStatuses = "UnexpectedAdmissionError", "Allocate failed", nil
		}), NodeRefused, "", "Allocate failed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				earlier := failedJobPod("migrate-a", ended(9, "Error"))
				l := newLab(t, job(), earlier)
				r := l.start(t.Context(), release(t, migrate))
				time.Sleep(10 * time.Second)
				last := test.pod.DeepCopy()
				for _, s := range last.Status.ContainerStatuses {
					*s.State.Terminated = *ended(s.State.Terminated.ExitCode, s.State.Terminated.Reason)
				}
				last.CreationTimestamp.Time = time.Now()
				l.put(last)
				time.Sleep(time.Minute)
				require.False(t, r.over(), "the job has tries left: %v", r.err)
				l.put(tooOften())
				f := r.failure(t)
				assert.Equal(t, test.cause, f.Cause)
				assert.Equal(t, "pod shop/migrate-b", f.Decisive.Subject)
				assert.Equal(t, "BackoffLimitExceeded", f.Decisive.Reason)
				assert.Equal(t, test.field, f.Decisive.Field)
				assert.Contains(t, f.Decisive.Message, test.text)
			})
		})
	}
}

// The controller deletes the pods that still run, and with them what they have to tell.
func TestWhyAJobFailedWhosePodsAreGone(t *testing.T) {
	t.Run("a program that fails again and again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pod := as(podOf(job(), "Job", "migrate-a", job().Spec.Template), crashed(3, "Error", 1))
			pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
			l := newLab(t, job(), pod)
			r := l.start(t.Context(), release(t, migrate))
			require.False(t, r.over(), "%v", r.err)
			l.remove(pod)
			l.put(tooOften())
			f := r.failure(t)
			assert.Equal(t, "pod shop/migrate-a", f.Decisive.Subject)
			assert.Equal(t, int32(3), *f.Decisive.ExitCode)
		})
	})
	t.Run("a pod that could not start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pod := as(podOf(job(), "Job", "migrate-a", job().Spec.Template), waiting("CreateContainerConfigError", `configmap "settings" not found`))
			l := newLab(t, job(), pod)
			r := l.start(t.Context(), release(t, migrate))
			time.Sleep(10 * time.Second)
			require.False(t, r.over(), "%v", r.err)
			l.remove(pod)
			l.put(jobFailedFor("DeadlineExceeded", "Job was active longer than specified deadline"))
			f := r.failure(t)
			assert.Equal(t, ConfigMissing, f.Cause)
			assert.Equal(t, "pod shop/migrate-a", f.Decisive.Subject)
			assert.Equal(t, `Job was active longer than specified deadline; CreateContainerConfigError: configmap "settings" not found`, f.Decisive.Message)
		})
	})
	t.Run("an init container that doesn't end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pod := as(podOf(job(), "Job", "migrate-a", job().Spec.Template), initialising)
			l := newLab(t, job(), pod)
			r := l.start(t.Context(), release(t, migrate))
			l.put(jobFailedFor("DeadlineExceeded", "Job was active longer than specified deadline"))
			f := r.failure(t)
			assert.Equal(t, DeadlineExceeded, f.Cause)
			assert.Equal(t, "wait-for-db", f.Decisive.Container)
		})
	})
	t.Run("a pod that ran for too long, at last", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pod := podOf(job(), "Job", "migrate-a", job().Spec.Template)
			l := newLab(t, job(), as(pod, waiting("CreateContainerConfigError", `configmap "settings" not found`)))
			r := l.start(t.Context(), release(t, migrate))
			l.put(as(pod, running(pinnedTo(digestA))))
			l.remove(pod)
			l.put(jobFailedFor("DeadlineExceeded", "Job was active longer than specified deadline"))
			f := r.failure(t)
			assert.Equal(t, DeadlineExceeded, f.Cause)
			assert.Equal(t, "spec.activeDeadlineSeconds", f.Decisive.Field)
		})
	})
}

// No other try mends a program that isn't there, or an image that can't be had.
func TestWhatNoRetryOfAJobMends(t *testing.T) {
	for name, test := range map[string]struct {
		pod   *corev1.Pod
		cause Cause
		after time.Duration
	}{
		"no such program": {failedJobPod("migrate-a", &corev1.ContainerStateTerminated{ExitCode: 128, Reason: "StartError", Message: `exec: "nope": executable file not found in $PATH`}), CommandNotRunnable, 0},
		"no such image":   {as(podOf(job(), "Job", "migrate-a", job().Spec.Template), waiting("ErrImagePull", "manifest unknown")), ImageNotFound, 0},
		"no ConfigMap":    {as(podOf(job(), "Job", "migrate-a", job().Spec.Template), waiting("CreateContainerConfigError", `configmap "settings" not found`)), ConfigMissing, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				test.pod.CreationTimestamp.Time = time.Now()
				f := newLab(t, job(), test.pod).start(t.Context(), release(t, migrate)).failure(t)
				assert.Equal(t, test.cause, f.Cause)
				assert.Equal(t, test.after, f.Elapsed)
				assert.Equal(t, "app", f.Decisive.Container)
			})
		})
	}
}

func TestAPodThatFailsTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, job(), failedJobPod("migrate-a", ended(42, "Error")))
		r := l.start(t.Context(), release(t, migrate))
		l.put(job(batchv1.JobCondition{Type: batchv1.JobFailureTarget, Status: corev1.ConditionTrue, Reason: "PodFailurePolicy", Message: "Container app failed with exit code 42"}))
		f := r.failure(t)
		assert.Equal(t, JobFailed, f.Cause)
		assert.Equal(t, "spec.podFailurePolicy", f.Decisive.Field)
		assert.Equal(t, int32(42), *f.Decisive.ExitCode)
	})
}

// A job that is still trying at the timeout says what its last try came to.
func TestAJobThatIsStillTrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, job(), failedJobPod("migrate-a", ended(3, "Error")))
		r := l.start(t.Context(), release(t, migrate))
		time.Sleep(time.Minute)
		l.put(podOf(job(), "Job", "migrate-b", job().Spec.Template))
		f := r.failure(t)
		assert.Equal(t, TimedOut, f.Cause)
		assert.Equal(t, "pod shop/migrate-a", f.Decisive.Subject)
		assert.Contains(t, f.Decisive.Message, "exit code 3 after 1s")
		assert.Equal(t, []string{"fake logs"}, f.Decisive.Logs)
	})
}
