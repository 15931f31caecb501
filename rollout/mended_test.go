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

// mended is a Deployment whose pod has crashed for an hour, and a release that leaves the
// template as it was.
func mended(t *testing.T, state func(*corev1.Pod)) (l *lab, r *run, d *appsv1.Deployment, pod *corev1.Pod) {
	t.Helper()
	d = deployment(pinnedTo(digestA), 1)
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 1, UpdatedReplicas: 1}
	set := replicaSet(d, 2, d.Spec.Template)
	pod = podOf(set, "ReplicaSet", "shop-2-x", d.Spec.Template)
	l = newLab(t, d, set, as(pod, state))
	time.Sleep(time.Hour)
	rel := release(t)
	rel.Deployed = time.Now()
	r = l.start(t.Context(), rel)
	return l, r, d, pod
}

// Crashes of before the release that mends them are history, also where the kubelet has
// yet to start the container again.
func TestCrashesOfBeforeTheReleaseThatMendsThem(t *testing.T) {
	for name, before := range map[string]func(*corev1.Pod){
		"backing off": crashed(1, "Error", 9),
		"just ended": func(p *corev1.Pod) {
			crashed(1, "Error", 0)(p)
			p.Status.ContainerStatuses[0].RestartCount = 9
		},
		"running once more": restarted(9),
		"out of memory":     crashed(137, "OOMKilled", 9),
		"could not start":   crashed(127, "ContainerCannotRun", 9),
		"can't be started":  notRunnable(9),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, r, d, pod := mended(t, before)
				time.Sleep(2 * time.Minute)
				require.False(t, r.over(), "%v", r.err)
				l.put(as(pod, restarted(10)))
				time.Sleep(time.Minute)
				require.False(t, r.over(), "%v", r.err)
				l.put(as(pod, func(p *corev1.Pod) { restarted(10)(p); ready(pinnedTo(digestA))(p) }), complete(d))
				<-r.done
				require.NoError(t, r.err)
			})
		})
	}
}

func TestAnInitContainerThatTheReleaseMends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r, d, pod := mended(t, func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "migrate", Image: "migrate:1"}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{
				Name: "migrate", RestartCount: 9, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
				LastTerminationState: corev1.ContainerState{Terminated: ended(1, "Error")},
			}}
		})
		time.Sleep(2 * time.Minute)
		require.False(t, r.over(), "%v", r.err)
		l.put(as(pod, ready(pinnedTo(digestA))), complete(d))
		<-r.done
		require.NoError(t, r.err)
	})
}

// What a release doesn't mend goes on crashing, and is said to.
func TestCrashesThatTheReleaseDoesNotMend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, r, _, pod := mended(t, crashed(1, "Error", 9))
		l.put(as(pod, crashed(1, "Error", 10)))
		require.False(t, r.over(), "one crash may be of the configuration before: %v", r.err)
		l.put(as(pod, crashed(1, "Error", 11)))
		f := r.failure(t)
		assert.Equal(t, Crash, f.Cause)
		assert.Equal(t, int32(11), f.Restarts)
		assert.Contains(t, f.Decisive.Message, "2 times")
	})
	synctest.Test(t, func(t *testing.T) {
		l, r, _, pod := mended(t, notRunnable(9))
		l.put(as(pod, notRunnable(10)))
		assert.Equal(t, CommandNotRunnable, r.failure(t).Cause)
	})
}

// A pod that never starts again is told at the timeout, with why it had ended.
func TestACrashOfBeforeIsNamedAtTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r, _, _ := mended(t, crashed(3, "Error", 9))
		f := r.failure(t)
		assert.Equal(t, TimedOut, f.Cause)
		assert.Equal(t, Crash, f.Pending)
		assert.Contains(t, f.Decisive.Message, "exit code 3 after 1s, before the release")
	})
}

// A verification that begins late counts the crashes since the release that it can tell.
func TestACrashBetweenTheReleaseAndTheFirstLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deployment(pinnedTo(digestA), 1)
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 1, UpdatedReplicas: 1}
		set := replicaSet(d, 2, d.Spec.Template)
		pod := podOf(set, "ReplicaSet", "shop-2-x", d.Spec.Template)
		time.Sleep(time.Hour)
		rel := release(t)
		rel.Deployed = time.Now()
		time.Sleep(time.Minute)
		l := newLab(t, d, set, as(pod, crashed(1, "Error", 9)))
		r := l.start(t.Context(), rel)
		require.False(t, r.over(), "%v", r.err)
		l.put(as(pod, crashed(1, "Error", 10)))
		assert.Equal(t, Crash, r.failure(t).Cause)
	})
}

// Pods that were made with the release, a little before it was done, count whole.
func TestCrashesOfPodsThatTheReleaseHasMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Generation: 2},
			Spec:       appsv1.StatefulSetSpec{Template: podTemplate(pinnedTo(digestA))},
			Status:     appsv1.StatefulSetStatus{ObservedGeneration: 2, UpdateRevision: "new"},
		}
		pod := labelled(podOf(set, "StatefulSet", "shop-0", podTemplate(pinnedTo(digestA))), appsv1.ControllerRevisionHashLabelKey, "new")
		time.Sleep(3 * time.Second)
		rel := release(t, stages.Object{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "shop"})
		rel.Deployed = time.Now()
		time.Sleep(time.Minute)
		f := newLab(t, set, as(pod, crashed(1, "Error", 1))).start(t.Context(), rel).failure(t)
		assert.Equal(t, Crash, f.Cause)
		assert.Zero(t, f.Elapsed)
	})
}

// Hooks that run after the objects were applied take their time: what was made before them
// is of the release all the same, and what is older is not.
func TestCrashesDuringTheHooksOfARelease(t *testing.T) {
	for name, test := range map[string]struct {
		head   time.Duration // of the pod, on the release
		counts bool
	}{
		"made by the release":                {-3 * time.Second, true},
		"at the same time, by another clock": {time.Second, true},
		"older":                              {5 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				app := newApp(t, ns, "shop")
				rel := app.release
				rel.Began = time.Now().Add(test.head)
				time.Sleep(time.Minute)
				rel.Deployed = time.Now()
				l := newLab(t, app.deployment, app.set, as(app.pod, crashed(1, "Error", 2)))
				time.Sleep(time.Second)
				r := l.start(t.Context(), rel)
				require.Equal(t, test.counts, r.over(), "%v", r.err)
				if test.counts {
					assert.Contains(t, r.failure(t).Decisive.Message, "3 times")
					return
				}
				l.finish(app)
				<-r.done
				require.NoError(t, r.err)
			})
		})
	}
}

// restarted is a container that runs, after so many restarts.
func restarted(n int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		running(pinnedTo(digestA))(p)
		p.Status.ContainerStatuses[0].RestartCount = n
		p.Status.ContainerStatuses[0].LastTerminationState.Terminated = ended(1, "Error")
	}
}

// notRunnable is a container that could not be started, after so many restarts.
func notRunnable(n int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		waiting("RunContainerError", `exec: "nope": executable file not found in $PATH`)(p)
		p.Status.ContainerStatuses[0].RestartCount = n
		p.Status.ContainerStatuses[0].LastTerminationState.Terminated = ended(128, "StartError")
	}
}
