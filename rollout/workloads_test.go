package rollout

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/rollout/internal/daemonset"
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

func TestDaemonSetCountsItsTemplateGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &appsv1.DaemonSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Annotations: map[string]string{appsv1.DeprecatedTemplateGeneration: "4"}},
			Spec:       appsv1.DaemonSetSpec{Template: podTemplate(pinnedTo(digestA))},
			Status:     appsv1.DaemonSetStatus{DesiredNumberScheduled: 1, UpdatedNumberScheduled: 1, NumberAvailable: 1},
		}
		old := labelled(podOf(set, "DaemonSet", "shop-old", podTemplate(pinnedTo(digestB))), daemonset.GenerationLabel, "3")
		pod := labelled(podOf(set, "DaemonSet", "shop-x", podTemplate(pinnedTo(digestA))), daemonset.GenerationLabel, "4")
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
		old := labelled(podOf(set, "DaemonSet", "shop-old", podTemplate(pinnedTo(digestB))), daemonset.GenerationLabel, "3")
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

var completeJob = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}

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
			l.put(job(failed))
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
	t.Run("a queue holds it back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			j := job()
			j.Spec.Suspend, j.Labels = new(true), map[string]string{queueLabel: "batch"}
			l := newLab(t, j)
			r := l.start(t.Context(), release(t, object))
			time.Sleep(time.Minute)
			require.False(t, r.over(), "it is not paused: %v", r.err)
			l.put(job(complete))
			require.True(t, r.over())
			require.NoError(t, r.err)
		})
	})
	t.Run("a queue never admits it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			j := job()
			j.Spec.Suspend, j.Labels = new(true), map[string]string{queueLabel: "batch"}
			f := newLab(t, j).start(t.Context(), release(t, object)).failure(t)
			assert.Equal(t, TimedOut, f.Cause)
			assert.Contains(t, f.Error(), "until queue batch admits it")
		})
	})
	t.Run("somebody has suspended it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			j := job()
			j.Spec.Suspend = new(true)
			assert.Equal(t, Paused, newLab(t, j).start(t.Context(), release(t, object)).failure(t).Cause)
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
		"ready": {ready(pinnedTo(digestA)), ""},
		"succeeded": {func(p *corev1.Pod) {
			running(pinnedTo(digestA))(p)
			p.Status.Phase, p.Spec.RestartPolicy = corev1.PodSucceeded, corev1.RestartPolicyNever
		}, ""},
		"evicted, and obeyed": {func(p *corev1.Pod) {
			running(pinnedTo(digestA))(p)
			p.Status.Phase, p.Status.Reason = corev1.PodSucceeded, "Evicted"
		}, Evicted},
		"evicted": {func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" }, Evicted},
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

func TestStatefulSetHeldUpByAnOldPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set"},
			Spec:       appsv1.StatefulSetSpec{Template: podTemplate(pinnedTo(digestA))},
			Status:     appsv1.StatefulSetStatus{UpdateRevision: "new", CurrentRevision: "old", Replicas: 1},
		}
		old := labelled(podOf(set, "StatefulSet", "shop-0", podTemplate(pinnedTo(digestB))), appsv1.ControllerRevisionHashLabelKey, "old")
		f := newLab(t, set, as(old, crashed(1, "Error", 9))).start(t.Context(), release(t, stages.Object{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "shop"})).failure(t)
		assert.Equal(t, TimedOut, f.Cause)
		assert.Contains(t, f.Error(), "pod shop-0 of the previous revision is not ready, which holds the update up")
	})
}

func TestScaledToZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deployment(pinnedTo(digestA), 0)
		l := newLab(t, d, replicaSet(d, 2, d.Spec.Template))
		l.config.AllowUnused = true
		r := l.start(t.Context(), release(t))
		require.True(t, r.over())
		require.NoError(t, r.err)
	})
}

func TestAvailableAfterMinReadySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, _, newPod := upgrade()
		d.Spec.MinReadySeconds = 30
		early := complete(d)
		early.Status.AvailableReplicas = 0
		l := newLab(t, early, old, updated, as(newPod, ready(pinnedTo(digestA))))
		r := l.start(t.Context(), release(t))
		require.False(t, r.over())
		assert.Contains(t, r.progress, "Deployment shop/shop: 1 of 1 ready; 0 of 1 available")
		l.put(complete(d))
		require.True(t, r.over())
		require.NoError(t, r.err)
	})
}

func TestPaused(t *testing.T) {
	for name, test := range map[string]struct {
		status appsv1.DeploymentStatus
		cause  Cause
	}{
		"amid the rollout": {appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 2, UpdatedReplicas: 1, AvailableReplicas: 2}, Paused},
		"afterwards":       {appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, old, updated, _, newPod := upgrade()
				d.Spec.Paused, d.Status = true, test.status
				r := newLab(t, d, old, updated, as(newPod, ready(pinnedTo(digestA)))).start(t.Context(), release(t))
				require.True(t, r.over())
				if test.cause == "" {
					require.NoError(t, r.err)
					return
				}
				assert.Equal(t, test.cause, r.failure(t).Cause)
			})
		})
	}
	t.Run("before it began", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, old, _, oldPod, _ := upgrade()
			d.Spec.Paused = true
			assert.Equal(t, Paused, newLab(t, d, old, oldPod).start(t.Context(), release(t)).failure(t).Cause)
		})
	})
}

// As many pods may be missing as the workload allows, if the configuration says
// so, but never all of them.
func TestAllowUnavailable(t *testing.T) {
	for name, test := range map[string]struct {
		nodes, available int
		allow, done      bool
	}{
		"one node is broken":           {3, 2, true, true},
		"one node is broken, strictly": {3, 2, false, false},
		"two nodes are broken":         {3, 1, true, false},
		"the only node is broken":      {1, 0, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one := intstr.FromInt32(1)
				set := &appsv1.DaemonSet{
					ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Annotations: map[string]string{appsv1.DeprecatedTemplateGeneration: "4"}},
					Spec: appsv1.DaemonSetSpec{Template: podTemplate(pinnedTo(digestA)), UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
						RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &one},
					}},
					Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: int32(test.nodes), UpdatedNumberScheduled: int32(test.nodes), NumberAvailable: int32(test.available)},
				}
				l := newLab(t, set)
				l.config.AllowUnavailable = test.allow
				for i := range test.nodes {
					pod := labelled(podOf(set, "DaemonSet", fmt.Sprint("shop-", i), podTemplate(pinnedTo(digestA))), daemonset.GenerationLabel, "4")
					if i < test.available {
						pod = as(pod, ready(pinnedTo(digestA)))
					}
					l.put(pod)
				}
				r := l.start(t.Context(), release(t, stages.Object{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "shop"}))
				assert.Equal(t, test.done, r.over())
				<-r.done
				if !test.done {
					assert.Equal(t, TimedOut, r.failure(t).Cause)
				}
			})
		})
	}
}

func TestReplicaSetAndReplicationController(t *testing.T) {
	one := int32(1)
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "rs", Generation: 1},
		Spec:       appsv1.ReplicaSetSpec{Replicas: &one, Template: podTemplate(pinnedTo(digestA))},
		Status:     appsv1.ReplicaSetStatus{ObservedGeneration: 1, Replicas: 1},
	}
	template := podTemplate(pinnedTo(digestA))
	controller := &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "rc", Generation: 1},
		Spec:       corev1.ReplicationControllerSpec{Replicas: &one, Template: &template},
		Status:     corev1.ReplicationControllerStatus{ObservedGeneration: 1, Replicas: 1},
	}
	for _, object := range []stages.Object{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "shop"}, {APIVersion: "v1", Kind: "ReplicationController", Name: "shop"}} {
		t.Run(object.Kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var owner metav1.Object = set
				if object.Kind != "ReplicaSet" {
					owner = controller
				}
				pod := podOf(owner, object.Kind, "shop-x", template)
				l := newLab(t, set, controller, as(pod, ready(pinnedTo(digestA))))
				r := l.start(t.Context(), release(t, object))
				require.False(t, r.over(), "not available yet")
				rs, rc := set.DeepCopy(), controller.DeepCopy()
				rs.Status.AvailableReplicas, rc.Status.AvailableReplicas = 1, 1
				l.put(rs, rc)
				require.True(t, r.over())
				require.NoError(t, r.err)
				f := newLab(t, set, controller, as(pod, crashed(1, "Error", 1))).start(t.Context(), release(t, object)).failure(t)
				assert.Equal(t, Crash, f.Cause)
				assert.Equal(t, []string{object.Kind + " shop/shop"}, f.Decisive.Owners)
			})
		})
	}
}

// A job that is deleted as soon as it is done has been done.
func TestJobThatCleansUpAfterItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		j := job()
		l := newLab(t, d, old, updated, oldPod, newPod, j)
		r := l.start(t.Context(), release(t, stages.Object{APIVersion: "apps/v1", Kind: "Deployment", Name: "shop"}, stages.Object{APIVersion: "batch/v1", Kind: "Job", Name: "migrate"}))
		finished := job(batchv1.JobCondition{Type: batchv1.JobComplete, Status: corev1.ConditionTrue})
		l.write(finished) // nobody looks before it is gone
		l.remove(finished)
		time.Sleep(time.Minute)
		require.False(t, r.over(), "it is not missing: %v", r.err)
		l.put(as(newPod, ready(pinnedTo(digestA))), complete(d))
		require.True(t, r.over())
		require.NoError(t, r.err)
	})
}

func TestReadinessGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, _, newPod := upgrade()
		gated := as(newPod, func(p *corev1.Pod) {
			ready(pinnedTo(digestA))(p)
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/lb"}}
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ReadinessGatesNotReady", Message: `corresponding condition of pod readiness gate "example.com/lb" does not exist.`}}
		})
		l := newLab(t, d, old, updated, gated)
		l.config.Timeout = time.Minute
		f := l.start(t.Context(), release(t)).failure(t)
		assert.Contains(t, f.Error(), `readiness gate "example.com/lb"`)
		l.config.Timeout = time.Hour
		r := l.start(t.Context(), release(t))
		time.Sleep(30 * time.Minute)
		require.False(t, r.over())
		l.put(as(newPod, ready(pinnedTo(digestA))), complete(d))
		require.True(t, r.over())
		require.NoError(t, r.err)
	})
}
