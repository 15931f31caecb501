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

	"github.com/fairlead-dev/fairlead/stages"
)

// failedWithSidecar is a pod whose program failed, whereupon the kubelet ended the other
// container.
func failedWithSidecar(owner metav1.Object, name string) *corev1.Pod {
	template := podTemplate(pinnedTo(digestA))
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	template.Spec.InitContainers = []corev1.Container{{Name: "proxy", Image: "proxy:1", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}}
	p := podOf(owner, "Job", name, template)
	p.Status.Phase = corev1.PodFailed
	program, proxy := ended(1, "Error"), ended(143, "Error")
	proxy.FinishedAt = metav1.NewTime(program.FinishedAt.Add(2 * time.Second))
	p.Status.ContainerStatuses[0].ImageID = pinnedTo(digestA)
	p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: program}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "proxy", RestartCount: 1, State: corev1.ContainerState{Terminated: proxy}}}
	return p
}

func failedJob() *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "job", UID: "job"},
		Spec:       batchv1.JobSpec{Template: podTemplate(pinnedTo(digestA))},
		Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{
			{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded", Message: "limit"},
		}},
	}
}

// How a sidecar ends that is told to, because all else has ended, says nothing.
func TestSidecarsThatEndWithTheirPod(t *testing.T) {
	pod := stages.Object{APIVersion: "v1", Kind: "Pod", Name: "shop"}
	t.Run("of a job", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			job := failedJob()
			f := newLab(t, job, failedWithSidecar(job, "job-x")).start(t.Context(), release(t, stages.Object{APIVersion: "batch/v1", Kind: "Job", Name: "job"})).failure(t)
			assert.Equal(t, "app", f.Decisive.Container)
			assert.Equal(t, "container", f.Role)
		})
	})
	t.Run("of a pod that fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newLab(t, failedWithSidecar(nil, "shop")).start(t.Context(), release(t, pod)).failure(t)
			assert.Equal(t, "app", f.Decisive.Container)
		})
	})
	t.Run("of a pod that succeeds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := as(failedWithSidecar(nil, "shop"), func(p *corev1.Pod) {
				p.Status.Phase = corev1.PodRunning // another sidecar still runs
				p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: ended(0, "Completed")}
			})
			l := newLab(t, p)
			r := l.start(t.Context(), release(t, pod))
			require.False(t, r.over(), "%v", r.err)
			l.put(as(p, func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }))
			<-r.done
			require.NoError(t, r.err)
		})
	})
}

func TestJobNamesTheRoleOfTheContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job := failedJob()
		p := as(failedWithSidecar(job, "job-x"), func(p *corev1.Pod) {
			p.Spec.InitContainers[0].RestartPolicy = nil
			waiting("PodInitializing", "")(p)
		})
		f := newLab(t, job, p).start(t.Context(), release(t, stages.Object{APIVersion: "batch/v1", Kind: "Job", Name: "job"})).failure(t)
		assert.Equal(t, "proxy", f.Decisive.Container)
		assert.Equal(t, "init container", f.Role)
	})
}
