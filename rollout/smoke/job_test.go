package smoke

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

func (l lab) job(ends stages.Verifier, change func(*JobConfig)) *jobTest {
	l.t.Helper()
	c := JobConfig{Command: []string{"shop", "selftest"}}
	if change != nil {
		change(&c)
	}
	j, err := newJobTest(c)
	require.NoError(l.t, err)
	j.cluster, j.ended = l.cluster(), ends
	return j
}

func (l lab) jobs() []batchv1.Job {
	list, err := l.client.BatchV1().Jobs(ns).List(context.Background(), metav1.ListOptions{})
	require.NoError(l.t, err)
	return list.Items
}

func TestJobIsRestrictedAndBounded(t *testing.T) {
	j := newLab(t).job(nil, func(c *JobConfig) {
		c.Args, c.Labels = []string{"--of={{.Release}}/{{.Revision}}"}, map[string]string{"team": "shop"}
		c.Expect = Expect{Attempts: 5, Successes: 3}
	})
	job, err := j.job(release(t))
	require.NoError(t, err)
	assert.Equal(t, int64(60), *job.Spec.ActiveDeadlineSeconds)
	assert.Equal(t, int32(600), *job.Spec.TTLSecondsAfterFinished)
	assert.Equal(t, int32(5), *job.Spec.Completions)
	assert.Equal(t, int32(1), *job.Spec.Parallelism)
	assert.Equal(t, int32(0), *job.Spec.BackoffLimitPerIndex)
	assert.Equal(t, int32(2), *job.Spec.MaxFailedIndexes)
	assert.Equal(t, "shop", job.Spec.Template.Labels["team"])
	pod := job.Spec.Template.Spec
	assert.Equal(t, corev1.RestartPolicyNever, pod.RestartPolicy)
	assert.True(t, *pod.SecurityContext.RunAsNonRoot)
	assert.Equal(t, release(t).Image.String(), pod.Containers[0].Image, "the released image is the default")
	assert.Equal(t, []string{"--of=shop/3"}, pod.Containers[0].Args)
	assert.False(t, *pod.Containers[0].SecurityContext.AllowPrivilegeEscalation)
}

func TestJobKeepsWhatATemplateSays(t *testing.T) {
	user, off := int64(1000), false
	template := &corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		SecurityContext: &corev1.PodSecurityContext{RunAsUser: &user},
		InitContainers:  []corev1.Container{{Name: "wait", Image: "busybox"}},
		Containers:      []corev1.Container{{Name: "test", Image: "k6", SecurityContext: &corev1.SecurityContext{ReadOnlyRootFilesystem: &off}}},
	}}
	j := newLab(t).job(nil, func(c *JobConfig) { c.Command, c.Template = nil, template })
	job, err := j.job(release(t))
	require.NoError(t, err)
	pod := job.Spec.Template.Spec
	assert.Equal(t, user, *pod.SecurityContext.RunAsUser)
	assert.True(t, *pod.SecurityContext.RunAsNonRoot)
	assert.False(t, *pod.Containers[0].SecurityContext.ReadOnlyRootFilesystem)
	assert.Equal(t, []corev1.Capability{"ALL"}, pod.InitContainers[0].SecurityContext.Capabilities.Drop)
	assert.Nil(t, template.Spec.Containers[0].SecurityContext.Capabilities, "the template is the caller's")
}

// runs has a watcher see the job end with pods that ended so.
func (l lab) runs(ending error, codes ...int32) stages.Verifier {
	return stages.VerifierFunc(func(context.Context, stages.Release) (stages.Verification, error) {
		job := l.jobs()[0]
		for i, code := range codes {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: ns, Name: fmt.Sprint("run-", i), Labels: map[string]string{batchv1.JobNameLabel: job.Name},
					OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(&job, batchv1.SchemeGroupVersion.WithKind("Job"))},
				},
				Spec: job.Spec.Template.Spec,
			}
			pod.Status.Phase = corev1.PodSucceeded
			if code != 0 {
				pod.Status.Phase = corev1.PodFailed
			}
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: container, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}}
			require.NoError(l.t, l.client.Tracker().Add(pod))
		}
		return stages.Verification{}, ending
	})
}

func TestJob(t *testing.T) {
	for name, test := range map[string]struct {
		expect Expect
		ending error
		codes  []int32
		text   string // of the failure; empty for a pass
	}{
		"passes":          {Expect{Contains: "fake logs"}, nil, []int32{0}, ""},
		"2 of 3":          {Expect{Attempts: 3, Successes: 2}, ended(rollout.JobFailed, 3), []int32{0, 3, 0}, ""},
		"exit code":       {Expect{}, ended(rollout.JobFailed, 3), []int32{3}, "job shop selftest: container smoke ended with exit code 3"},
		"output":          {Expect{Contains: "checks passed"}, nil, []int32{0}, `the body of 9 bytes doesn't contain "checks passed"`},
		"1 of 3":          {Expect{Attempts: 3, Successes: 2}, ended(rollout.JobFailed, 3), []int32{0, 3, 4}, "1 of 3 runs passed, 2 required; run 3: container smoke ended with exit code 4"},
		"deadline":        {Expect{Attempts: 2}, ended(rollout.DeadlineExceeded, 0), []int32{3}, "container smoke ended with exit code 3"},
		"nothing has run": {Expect{}, ended(rollout.JobFailed, 3), nil, "it ended"},
		"no pods left":    {Expect{}, nil, nil, "no pod has run for it"},
		"no image":        {Expect{}, ended(rollout.ImageNotFound, 0), nil, "it ended"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			j := l.job(nil, func(c *JobConfig) { c.Expect = test.expect })
			j.ended = l.runs(test.ending, test.codes...)
			_, err := j.test().Verify(t.Context(), release(t))
			assert.Empty(t, l.jobs(), "the job is cleaned up")
			if test.text == "" {
				require.NoError(t, err)
				return
			}
			f := requireFailure(t, err)
			assert.Equal(t, "Smoke", f.Workload.Kind)
			assert.Contains(t, err.Error(), test.text)
		})
	}
}

func TestJobIsCleanedUpOnCancel(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLab(t)
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		test, rel := l.job(waiting, nil).test(), release(t)
		go func() {
			_, err := test.Verify(ctx, rel)
			done <- err
		}()
		synctest.Wait()
		require.Len(t, l.jobs(), 1)
		cancel(stop)
		require.ErrorIs(t, <-done, stop)
		assert.Empty(t, l.jobs())
	})
}

func TestSweepTakesOverdueJobs(t *testing.T) {
	l := newLab(t)
	j := l.job(nil, nil)
	made, err := j.job(release(t))
	require.NoError(t, err)
	made.CreationTimestamp = metav1.Now()
	for name, age := range map[string]time.Duration{"overdue": 2 * time.Minute, "perhaps-alive": time.Minute} {
		old := made.DeepCopy()
		old.Name, old.CreationTimestamp = name, metav1.NewTime(made.CreationTimestamp.Add(-age))
		require.NoError(t, l.client.Tracker().Add(old))
	}
	l.cluster().sweepJobs(t.Context(), release(t), made)
	left := l.jobs()
	require.Len(t, left, 1)
	assert.Equal(t, "perhaps-alive", left[0].Name)
}

func TestJobRefusesBadConfig(t *testing.T) {
	good := JobConfig{REST: &rest.Config{Host: "https://kubernetes.example"}, Args: []string{"selftest"}}
	_, err := NewJob(good)
	require.NoError(t, err)
	for name, change := range map[string]func(*JobConfig){
		"no cluster":       func(c *JobConfig) { c.REST = nil },
		"no program":       func(c *JobConfig) { c.Args = nil },
		"two programs":     func(c *JobConfig) { c.Template = &corev1.PodTemplateSpec{} },
		"empty template":   func(c *JobConfig) { c.Args, c.Template = nil, &corev1.PodTemplateSpec{} },
		"secret argument":  func(c *JobConfig) { c.Args = []string{"--password=canary"} },
		"secret variable":  func(c *JobConfig) { c.Env = []corev1.EnvVar{{Name: "API_TOKEN", Value: "canary"}} },
		"broken template":  func(c *JobConfig) { c.Args = []string{"{{"} },
		"status":           func(c *JobConfig) { c.Expect.Status = 1 },
		"timeout":          func(c *JobConfig) { c.Timeout = time.Millisecond },
		"root":             func(c *JobConfig) { c.User = -1 },
		"negative latency": func(c *JobConfig) { c.Expect.MaxLatency = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			change(&c)
			_, err := NewJob(c)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.NotContains(t, err.Error(), "canary")
		})
	}
}
