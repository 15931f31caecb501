package rollout

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// Restarts and failures of before the verification are history, also of a workload
// whose controller is slower than another's.
func TestHistoryOfAWorkloadThatIsSeenLate(t *testing.T) {
	restarted := func(p *corev1.Pod) {
		ready(pinnedTo(digestA))(p)
		p.Status.ContainerStatuses[0].RestartCount = 3
		p.Status.ContainerStatuses[0].LastTerminationState.Terminated = ended(1, "Error")
	}
	for name, old := range map[string]func(*corev1.Pod){
		"restarted": restarted,
		"failed": func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodFailed
			p.Status.Reason = "Evicted"
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				quick, slow := newApp(t, ns, "quick"), newApp(t, ns, "slow")
				slow.deployment.Status.ObservedGeneration = 1
				var gone []*corev1.Pod
				for _, name := range []string{"a", "b", "c"} {
					gone = append(gone, as(podOf(slow.set, "ReplicaSet", "slow-2-"+name, slow.deployment.Spec.Template), old))
				}
				l := newLab(t, append(quick.objects(), slow.deployment, slow.set, gone[0], gone[1], gone[2])...)
				r := l.start(t.Context(), release(t, quick.release.Objects[0], slow.release.Objects[0]))
				time.Sleep(time.Second)
				slow.deployment.Status.ObservedGeneration = 2
				l.put(slow.deployment)
				require.False(t, r.over(), "%v", r.err)
				l.finish(quick)
				l.finish(slow)
				<-r.done
				require.NoError(t, r.err)
			})
		})
	}
}

// What fails after the first look counts, also in a workload that is seen late.
func TestCrashesOfAWorkloadThatIsSeenLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, slow := newApp(t, ns, "quick"), newApp(t, ns, "slow")
		slow.deployment.Status.ObservedGeneration = 1
		l := newLab(t, append(quick.objects(), slow.deployment)...)
		r := l.start(t.Context(), release(t, quick.release.Objects[0], slow.release.Objects[0]))
		time.Sleep(time.Second)
		l.finish(quick)
		slow.deployment.Status.ObservedGeneration = 2
		l.put(slow.set, as(slow.pod, func(p *corev1.Pod) {
			ready(pinnedTo(digestA))(p)
			p.Status.ContainerStatuses[0].RestartCount = 2
			p.Status.ContainerStatuses[0].LastTerminationState.Terminated = ended(1, "Error")
		}))
		l.put(slow.deployment)
		f := r.failure(t)
		assert.Equal(t, Crash, f.Cause)
		assert.Equal(t, stages.Object{APIVersion: "apps/v1", Kind: "Deployment", Namespace: ns, Name: "slow"}, f.Workload)
	})
}

// The kubelet may tell of an eviction in an event alone.
func TestBarePodThatAnEventCallsEvicted(t *testing.T) {
	for _, phase := range []corev1.PodPhase{corev1.PodSucceeded, corev1.PodRunning} {
		synctest.Test(t, func(t *testing.T) {
			pod := as(podOf(nil, "", "shop", podTemplate(pinnedTo(digestA))), running(pinnedTo(digestA)))
			l := newLab(t, pod)
			r := l.start(t.Context(), release(t, stages.Object{APIVersion: "v1", Kind: "Pod", Name: "shop"}))
			l.put(as(pod, func(p *corev1.Pod) {
				p.Status.Phase = phase
				p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: ended(0, "Completed")}
			}))
			require.False(t, r.over())
			l.put(event(pod, "Pod", "Evicted", `Usage of EmptyDir volume "memory" exceeds the limit "1Mi". `))
			f := r.failure(t)
			assert.Equal(t, EphemeralStorage, f.Cause)
			assert.Less(t, f.Elapsed, time.Second)
			assert.Equal(t, "kubectl describe pod shop -n shop", f.Decisive.Command)
		})
	}
}

// A controller's pod whose program obeys when it is evicted has succeeded, as its status
// says; what was the matter is told by an event alone.
func TestPodsThatAreEvictedAndObey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := newApp(t, ns, "shop")
		l := newLab(t, app.objects()...)
		r := l.start(t.Context(), app.release)
		evict := func(pod *corev1.Pod) {
			l.put(as(pod, func(p *corev1.Pod) {
				running(pinnedTo(digestA))(p)
				p.Status.Phase = corev1.PodSucceeded
				p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: ended(0, "Completed")}
			}))
			l.put(event(pod, "Pod", "Evicted", `Usage of EmptyDir volume "memory" exceeds the limit "1Mi". `))
			time.Sleep(time.Second)
		}
		evict(app.pod)
		require.False(t, r.over(), "once may be the node's fault: %v", r.err)
		evict(podOf(app.set, "ReplicaSet", "shop-2-b", app.deployment.Spec.Template))
		f := r.failure(t)
		assert.Equal(t, EphemeralStorage, f.Cause)
		assert.Less(t, f.Elapsed, 3*time.Second)
	})
}

// A release that leaves the template as it was may mend what a former one failed of.
func TestADeadlineOfBeforeTheRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded",
			LastUpdateTime: metav1.Now(), LastTransitionTime: metav1.Now(), Message: `ReplicaSet "shop-2" has timed out progressing.`}}
		l := newLab(t, d, old, updated, oldPod, as(newPod, waiting("ContainerCreating", "")))
		time.Sleep(10 * time.Minute)
		rel := release(t)
		rel.Deployed = time.Now()
		r := l.start(t.Context(), rel)
		require.False(t, r.over(), "%v", r.err)
		time.Sleep(10 * time.Second)
		l.put(as(newPod, ready(pinnedTo(digestA))), complete(d))
		<-r.done
		require.NoError(t, r.err)
	})
}
