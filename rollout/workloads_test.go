package rollout

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

func labelled(p *corev1.Pod, label, value string) *corev1.Pod {
	return as(p, func(p *corev1.Pod) { p.Labels[label] = value })
}

func TestStatefulSetCountsItsUpdateRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := int32(1)
		set := &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Generation: 2},
			Spec:       appsv1.StatefulSetSpec{Replicas: &one, Template: podTemplate(pinnedTo(digestA))},
			Status:     appsv1.StatefulSetStatus{ObservedGeneration: 2, UpdateRevision: "new", CurrentRevision: "old", ReadyReplicas: 1, AvailableReplicas: 1},
		}
		old := labelled(podOf(set, "StatefulSet", "shop-0", podTemplate(pinnedTo(digestB))), appsv1.ControllerRevisionHashLabelKey, "old")
		l := newLab(t, set, as(old, crashed(1, "Error", 9)))
		r := l.start(t.Context(), release(t, stages.Object{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "shop"}))
		require.False(t, r.over(), "the old pod doesn't count: %v", r.err)
		updated := labelled(podOf(set, "StatefulSet", "shop-0", podTemplate(pinnedTo(digestA))), appsv1.ControllerRevisionHashLabelKey, "new")
		updated.UID = "shop-0-new"
		l.put(as(updated, ready(pinnedTo(digestA))))
		require.True(t, r.over())
		require.NoError(t, r.err)
	})
}

func TestStatefulSetReportsRefusedPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set"},
			Spec:       appsv1.StatefulSetSpec{Template: podTemplate(pinnedTo(digestA))},
		}
		l := newLab(t, set, event(set, "StatefulSet", "FailedCreate", "exceeded quota, long ago"))
		r := l.start(t.Context(), release(t, stages.Object{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "shop"}))
		time.Sleep(time.Minute)
		require.False(t, r.over(), "an event from before decides nothing")
		l.put(event(set, "StatefulSet", "FailedCreate", "exceeded quota: compute"))
		f := r.failure(t)
		assert.Equal(t, QuotaExceeded, f.Cause)
		assert.Equal(t, "StatefulSet shop/shop", f.Decisive.Subject)
	})
}

func TestDaemonSetCountsItsTemplateGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &appsv1.DaemonSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Annotations: map[string]string{appsv1.DeprecatedTemplateGeneration: "4"}},
			Spec:       appsv1.DaemonSetSpec{Template: podTemplate(pinnedTo(digestA))},
			Status:     appsv1.DaemonSetStatus{DesiredNumberScheduled: 1, UpdatedNumberScheduled: 1, NumberAvailable: 1},
		}
		old := labelled(podOf(set, "DaemonSet", "shop-old", podTemplate(pinnedTo(digestB))), templateGenerationLabel, "3")
		pod := labelled(podOf(set, "DaemonSet", "shop-x", podTemplate(pinnedTo(digestA))), templateGenerationLabel, "4")
		l := newLab(t, set, as(old, crashed(1, "Error", 9)), pod)
		object := stages.Object{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "shop"}
		r := l.start(t.Context(), release(t, object))
		require.False(t, r.over())
		l.put(as(pod, ready(pinnedTo(digestA))))
		require.True(t, r.over())
		require.NoError(t, r.err)

		r = newLab(t, set, as(pod, crashed(1, "Error", 1))).start(t.Context(), release(t, object))
		assert.Equal(t, Crash, r.failure(t).Cause)
	})
}

func TestOnDeleteNeedsSomebodyToDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &appsv1.DaemonSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Annotations: map[string]string{appsv1.DeprecatedTemplateGeneration: "4"}},
			Spec:       appsv1.DaemonSetSpec{Template: podTemplate(pinnedTo(digestA)), UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}},
			Status:     appsv1.DaemonSetStatus{DesiredNumberScheduled: 1},
		}
		old := labelled(podOf(set, "DaemonSet", "shop-old", podTemplate(pinnedTo(digestB))), templateGenerationLabel, "3")
		r := newLab(t, set, old).start(t.Context(), release(t, stages.Object{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "shop"}))
		assert.Equal(t, ManualUpdate, r.failure(t).Cause)
	})
}

func job(conditions ...batchv1.JobCondition) *batchv1.Job {
	template := podTemplate(pinnedTo(digestA))
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "migrate", UID: "job"},
		Spec:       batchv1.JobSpec{Template: template},
		Status:     batchv1.JobStatus{Conditions: conditions},
	}
}

func TestJob(t *testing.T) {
	object := stages.Object{APIVersion: "batch/v1", Kind: "Job", Name: "migrate"}
	failed := batchv1.JobCondition{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "BackoffLimitExceeded", Message: "Job has reached the specified backoff limit"}
	complete := batchv1.JobCondition{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}
	t.Run("a pod may fail, the job may not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			j := job()
			pod := as(podOf(j, "Job", "migrate-x", j.Spec.Template), func(p *corev1.Pod) {
				crashed(4, "Error", 0)(p)
				p.Status.Phase = corev1.PodFailed
			})
			l := newLab(t, j, pod)
			r := l.start(t.Context(), release(t, object))
			time.Sleep(time.Minute)
			require.False(t, r.over(), "the job's own limit decides: %v", r.err)
			require.NoError(t, l.client.Tracker().Update(batchv1.SchemeGroupVersion.WithResource("jobs"), job(failed), ns))
			f := r.failure(t)
			assert.Equal(t, JobFailed, f.Cause)
			assert.Equal(t, "pod shop/migrate-x", f.Decisive.Subject)
			assert.Equal(t, int32(4), *f.Decisive.ExitCode)
			assert.Equal(t, []string{"fake logs"}, f.Decisive.Logs)
		})
	})
	t.Run("complete, its pods gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newLab(t, job(complete)).start(t.Context(), release(t, object))
			require.True(t, r.over())
			require.NoError(t, r.err)
		})
	})
	t.Run("its image is missing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			j := job()
			r := newLab(t, j, as(podOf(j, "Job", "migrate-x", j.Spec.Template), waiting("ErrImagePull", "manifest unknown"))).start(t.Context(), release(t, object))
			assert.Equal(t, ImageNotFound, r.failure(t).Cause)
		})
	})
}

func TestBarePod(t *testing.T) {
	object := stages.Object{APIVersion: "v1", Kind: "Pod", Name: "shop"}
	for name, test := range map[string]struct {
		state func(*corev1.Pod)
		cause Cause
	}{
		"ready":     {ready(pinnedTo(digestA)), ""},
		"succeeded": {func(p *corev1.Pod) { running(pinnedTo(digestA))(p); p.Status.Phase = corev1.PodSucceeded }, ""},
		"evicted":   {func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" }, Evicted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newLab(t, as(podOf(nil, "", "shop", podTemplate(pinnedTo(digestA))), test.state)).start(t.Context(), release(t, object))
				require.True(t, r.over())
				if test.cause == "" {
					require.NoError(t, r.err)
					return
				}
				assert.Equal(t, test.cause, r.failure(t).Cause)
			})
		})
	}
}

func TestMissingWorkload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLab(t).start(t.Context(), release(t)).failure(t)
		assert.Equal(t, Missing, f.Cause)
		assert.Equal(t, 5*time.Second, f.Elapsed)
	})
}

func TestOverriddenRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		l := newLab(t, d, old, updated, oldPod, as(newPod, waiting("ErrImagePull", "not found")))
		l.config.Rules = map[Cause]Rule{ImageNotFound: {Class: TerminalAfter, After: 20 * time.Second}}
		f := l.start(t.Context(), release(t)).failure(t)
		assert.Equal(t, 20*time.Second, f.Elapsed)
	})
}
