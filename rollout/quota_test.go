package rollout

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/stages"
)

func stateful() *appsv1.StatefulSet {
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Generation: 1},
		Spec:       appsv1.StatefulSetSpec{Template: podTemplate(pinnedTo(digestA)), VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}},
		Status:     appsv1.StatefulSetStatus{ObservedGeneration: 1, UpdateRevision: "new"},
	}
}

const overPods = "pods \"shop-0\" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=4, limited: pods=4"

// leavingPod is a pod of something else in the namespace that takes a minute to end.
func leavingPod() *corev1.Pod {
	return as(podOf(nil, "", "other", podTemplate("other:1")), func(p *corev1.Pod) {
		ready("other:1")(p)
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = new(metav1.NewTime(time.Now().Add(time.Minute))), new(int64(60))
	})
}

// What pods that are about to end use of a quota is about to be free.
func TestQuotaThatPodsOnTheirWayOutUse(t *testing.T) {
	for name, object := range map[string]stages.Object{"StatefulSet": objectOf("StatefulSet", "shop"), "Job": migrate, "Deployment": objectOf("Deployment", "shop")} {
		t.Run(name, func(t *testing.T) {
			start := func(t *testing.T) (*lab, *run) {
				l := newLab(t, leavingPod())
				switch name {
				case "Job":
					l.put(job(), event(job(), "Job", "FailedCreate", overPods))
				case "Deployment":
					d := deployment(pinnedTo(digestA), 1)
					set := replicaSet(d, 2, d.Spec.Template)
					set.Status.Conditions = []appsv1.ReplicaSetCondition{{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: overPods}}
					l.put(d, set)
				default:
					l.put(stateful(), event(stateful(), "StatefulSet", "FailedCreate", overPods))
				}
				r := l.start(t.Context(), release(t, object))
				if name == "Job" { // which was never changed
					l.put(event(job(), "Job", "FailedCreate", overPods))
				}
				return l, r
			}
			synctest.Test(t, func(t *testing.T) {
				l, r := start(t)
				time.Sleep(50 * time.Second)
				require.False(t, r.over(), "%v", r.err)
				l.remove(leavingPod())
				time.Sleep(45 * time.Second)
				require.False(t, r.over(), "the controller may be slow to try again")
				f := r.failure(t)
				assert.Equal(t, QuotaExceeded, f.Cause)
				assert.Equal(t, 105*time.Second, f.Elapsed, "as long again, and as the rule says")
			})
			synctest.Test(t, func(t *testing.T) {
				_, r := start(t)
				f := r.failure(t)
				assert.Equal(t, QuotaExceeded, f.Cause)
				assert.Less(t, f.Elapsed, 5*time.Minute, "a pod that doesn't end when it should holds nothing")
			})
		})
	}
	t.Run("that have ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			done := as(leavingPod(), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
			f := newLab(t, done, stateful(), event(stateful(), "StatefulSet", "FailedCreate", overPods)).start(t.Context(), release(t, objectOf("StatefulSet", "shop"))).failure(t)
			assert.Equal(t, DefaultRule(QuotaExceeded).After, f.Elapsed)
		})
	})
}

// A StatefulSet replaces one pod after the other, and may be refused each of them for a
// while.
func TestQuotaThatIsUsedMoreThanOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := stateful()
		l := newLab(t, set)
		l.config.Timeout = time.Hour
		r := l.start(t.Context(), release(t, objectOf("StatefulSet", "shop")))
		for i := range 3 {
			pod := labelled(podOf(set, "StatefulSet", "shop-0", set.Spec.Template), appsv1.ControllerRevisionHashLabelKey, "new")
			refused := event(set, "StatefulSet", "FailedCreate", overPods)
			refused.Name, refused.UID = fmt.Sprint("refused", i), types.UID(fmt.Sprint("refused", i))
			l.put(leavingPod(), refused)
			time.Sleep(50 * time.Second)
			l.remove(leavingPod())
			time.Sleep(20 * time.Second)
			require.False(t, r.over(), "%d: %v", i, r.err)
			pod.CreationTimestamp = metav1.Now()
			l.put(pod)
			time.Sleep(time.Minute)
			require.False(t, r.over(), "%d: %v", i, r.err)
			l.remove(pod)
		}
		assert.Equal(t, QuotaExceeded, r.failure(t).Cause)
	})
}

// In a busy namespace some pod is always on its way out: what those at the beginning used
// is free at some time, and the rest says nothing. What gets pods meanwhile waits on.
func TestQuotaOfABusyNamespace(t *testing.T) {
	for name, progress := range map[string]bool{"no pod comes": false, "pods come": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := deployment(pinnedTo(digestA), 20)
				set := replicaSet(d, 2, d.Spec.Template)
				set.Status.Conditions = []appsv1.ReplicaSetCondition{{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: overPods}}
				l := newLab(t, leavingPod(), d, set)
				l.config.Timeout = time.Hour
				r := l.start(t.Context(), release(t))
				for i := range 20 {
					if progress {
						l.put(podOf(set, "ReplicaSet", fmt.Sprint("shop-2-", i), set.Spec.Template))
					}
					other := leavingPod()
					other.Name, other.UID = fmt.Sprint("other-", i), types.UID(fmt.Sprint("other-", i))
					l.put(other)
					time.Sleep(30 * time.Second)
				}
				require.Equal(t, !progress, r.over())
				f := r.failure(t)
				assert.Equal(t, QuotaExceeded, f.Cause)
				if progress {
					assert.Less(t, f.Elapsed, 15*time.Minute)
				} else {
					assert.Less(t, f.Elapsed, 5*time.Minute)
				}
			})
		})
	}
}
