package rollout

import (
	"encoding/json"
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

// about is an event about one container of a pod.
func about(p *corev1.Pod, container, reason, message string) *corev1.Event {
	e := event(p, "Pod", reason, message)
	e.InvolvedObject.FieldPath = "spec.containers{" + container + "}"
	return e
}

func TestProbeKillTellsTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		newPod.Spec.Containers[0].StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-f", "/up"}}}}
		l := newLab(t, d, old, updated, oldPod, newPod)
		r := l.start(t.Context(), release(t))
		l.put(about(newPod, "app", "Unhealthy", "Startup probe failed: no such file"), about(newPod, "app", "Killing", "Container app failed startup probe, will be restarted"))
		l.put(as(newPod, crashed(143, "Error", 0)))
		require.False(t, r.over(), "one kill is forgiven")
		l.put(as(newPod, crashed(143, "Error", 1)))
		f := r.failure(t)
		assert.Equal(t, StartupKilled, f.Cause)
		assert.Equal(t, &Probe{Kind: ProbeStartup, Target: "exec test -f /up", Response: "no such file"}, f.Probe)
		assert.Equal(t, int32(15), f.Signal)
		assert.Equal(t, "spec.template.spec.containers[name=app].startupProbe.exec.command", f.Decisive.Field)
		assert.Equal(t, "kubectl describe pod shop-2-x -n shop", f.Decisive.Command)
		assert.Equal(t, []string{"kubectl describe pod shop-2-x -n shop", "kubectl logs shop-2-x -n shop -c app --previous"}, f.Advice.Commands)
		assert.NotEmpty(t, f.Advice.Usual)
	})
}

func TestARestartThatNobodySawCounts(t *testing.T) {
	restarted := func(times int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			running(pinnedTo(digestA))(p)
			p.Status.ContainerStatuses[0].RestartCount = times
			p.Status.ContainerStatuses[0].LastTerminationState.Terminated = ended(1, "Error")
		}
	}
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		l := newLab(t, d, old, updated, oldPod, as(newPod, restarted(7)))
		r := l.start(t.Context(), release(t))
		time.Sleep(time.Second)
		l.put(as(newPod, restarted(8)))
		time.Sleep(time.Minute)
		require.False(t, r.over(), "seven of them were before, and one is forgiven: %v", r.err)
		l.put(as(newPod, restarted(9)))
		f := r.failure(t)
		assert.Equal(t, Crash, f.Cause)
		assert.Contains(t, f.Error(), "exit code 1 after 1s, 2 times")
	})
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		l := newLab(t, d, old, updated, oldPod, newPod)
		r := l.start(t.Context(), release(t))
		l.put(as(newPod, func(p *corev1.Pod) { ready(pinnedTo(digestA))(p); restarted(1)(p); ready(pinnedTo(digestA))(p) }), complete(d))
		require.True(t, r.over(), "it is ready all the same")
		require.NoError(t, r.err)
	})
}

func TestAFailingLivenessProbeIsWaitedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		newPod.Spec.Containers[0].LivenessProbe = &corev1.Probe{PeriodSeconds: 10, FailureThreshold: 3}
		l := newLab(t, d, old, updated, oldPod, newPod)
		r := l.start(t.Context(), release(t))
		well := as(newPod, ready(pinnedTo(digestA)))
		l.put(about(newPod, "app", "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500"))
		require.False(t, r.over())
		l.put(well, complete(d)) // later: watches of different kinds keep no order among them
		require.False(t, r.over(), "the kubelet may be about to end it")
		time.Sleep(32 * time.Second)
		require.False(t, r.over())
		l.put(about(newPod, "app", "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 502"))
		time.Sleep(2 * time.Second)
		require.True(t, r.over(), "it was not ended, so it is well enough")
		require.NoError(t, r.err)
	})
}

func TestEventsOfOtherContainersAndRunsDecideNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		long := event(newPod, "Pod", "Killing", "Container app failed liveness probe, will be restarted")
		long.LastTimestamp = metav1.NewTime(time.Now().Add(-time.Minute))
		l := newLab(t, d, old, updated, oldPod, newPod, long, about(newPod, "application", "Killing", "Container application failed liveness probe, will be restarted"))
		r := l.start(t.Context(), release(t))
		l.put(as(newPod, crashed(1, "Error", 1)))
		assert.Equal(t, Crash, r.failure(t).Cause)
	})
}

func TestSchedulingIsTyped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		f := newLab(t, d, old, updated, oldPod, as(newPod, unschedulable)).start(t.Context(), release(t)).failure(t)
		require.NotNil(t, f.Scheduling)
		assert.Equal(t, []Predicate{{Kind: PredicateResource, Nodes: 1, Resource: "cpu", Message: "Insufficient cpu"}}, f.Scheduling.Predicates)
		assert.Equal(t, "spec.template.spec.containers[name=app].resources.requests.cpu", f.Decisive.Field)
	})
}

func TestTimeoutTellsWhatWasPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		l := newLab(t, d, old, updated, oldPod, as(newPod, running(pinnedTo(digestA))), about(newPod, "app", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"))
		f := l.start(t.Context(), release(t)).failure(t)
		assert.Equal(t, TimedOut, f.Cause)
		assert.Equal(t, NotReady, f.Pending)
		assert.Equal(t, ProbeReadiness, f.Probe.Kind)
	})
}

func TestRuleForAReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		l := newLab(t, d, old, updated, oldPod, as(newPod, waiting("ErrImagePull", "manifest unknown")))
		l.config.Reasons = map[string]Rule{"ErrImagePull": {Class: TerminalAfter, After: 40 * time.Second}}
		assert.Equal(t, 40*time.Second, l.start(t.Context(), release(t)).failure(t).Elapsed)
	})
	_, err := New(Config{Reasons: map[string]Rule{"ErrImagePull": {Count: -1}}})
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = New(Config{Reasons: map[string]Rule{"": {}}})
	require.ErrorIs(t, err, stages.ErrInvalid)
}

// endedAs is a pod that something outside of it has ended.
func endedAs(reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, reason, message
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: ended(137, "Error")}
	}
}

func TestPodsThatEndFromOutside(t *testing.T) {
	for reason, cause := range map[string]Cause{"Evicted": Evicted, "NodeShutdown": NodeShutdown, "OutOfcpu": NodeRefused, "UnexpectedAdmissionError": NodeRefused} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, old, updated, oldPod, newPod := upgrade()
				gone := func(name string) *corev1.Pod {
					return as(newPod, func(p *corev1.Pod) {
						p.Name, p.UID = name, types.UID(name)
						endedAs(reason, "The node was low on resource: memory.")(p)
					})
				}
				l := newLab(t, d, old, updated, as(oldPod, endedAs(reason, "the old one")), gone("before-1"), gone("before-2"), gone("before-3"), newPod)
				r := l.start(t.Context(), release(t))
				time.Sleep(time.Second)
				for _, name := range []string{"shop-2-1", "shop-2-2", "shop-2-3"} {
					require.False(t, r.over(), "%v", r.err)
					l.put(gone(name))
				}
				f := r.failure(t)
				assert.Equal(t, cause, f.Cause)
				assert.Equal(t, reason, f.Decisive.Reason)
				assert.Empty(t, f.Decisive.Container, "how its containers ended is no news")
			})
		})
	}
}

// What an event, a status or a variable holds in the clear must not come out.
func TestDiagnosisKeepsSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const planted, inURL, inHeader = "canary-of-the-environment", "canary-in-a-url", "canary-in-a-header"
		d, old, updated, oldPod, newPod := upgrade()
		newPod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "DB_PASSWORD", Value: planted}, {Name: "DATABASE_URL", Value: "postgres://shop:" + inURL + "@db/shop"}}
		newPod.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"check", planted}}}}
		l := newLab(t, d, old, updated, oldPod, newPod)
		r := l.start(t.Context(), release(t))
		l.put(about(newPod, "app", "Unhealthy", "Liveness probe failed: could not log in with "+planted+", Authorization: Bearer "+inHeader))
		l.put(event(newPod, "Pod", "FailedSync", "dial postgres://shop:"+inURL+"@db/shop with "+planted))
		l.put(as(newPod, func(p *corev1.Pod) {
			crashed(143, "Error", 1)(p)
			p.Status.ContainerStatuses[0].LastTerminationState.Terminated.Message = "panic: " + planted + " or " + inURL
		}))
		f := r.failure(t)
		require.Equal(t, ProbeKilled, f.Cause)
		text, err := json.Marshal(f)
		require.NoError(t, err)
		assert.Contains(t, string(text), "could not log in")
		for _, canary := range []string{planted, inURL, inHeader} {
			assert.NotContains(t, string(text), canary)
			assert.NotContains(t, f.Error(), canary)
		}
		w := witness{settings: settings{clean: cleaner{known: secretValues(&newPod.Spec)}}}
		assert.Equal(t, []string{"logging in with ***", "and ***"}, w.settings.clean.tail("logging in with "+planted+"\nand "+inURL+"\n", 9, 999))
	})
}

func TestAStaleProgressDeadlineDecidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded", Message: `ReplicaSet "shop-1" has timed out progressing.`}}
		l := newLab(t, d, old, updated, oldPod, newPod)
		r := l.start(t.Context(), release(t))
		require.False(t, r.over(), "it is about the ReplicaSet before: %v", r.err)
		d = d.DeepCopy()
		d.Status.Conditions[0].Message = `ReplicaSet "shop-2" has timed out progressing.`
		l.put(d)
		f := r.failure(t)
		assert.Equal(t, DeadlineExceeded, f.Cause)
		assert.Equal(t, "spec.progressDeadlineSeconds", f.Decisive.Field)
	})
}

func TestAProgramForAnotherArchitecture(t *testing.T) {
	f := &Failure{Cause: Crash, Decisive: stages.Evidence{Field: "spec.template.spec.containers[name=app]", Logs: []string{"exec /app: exec format error"}}}
	f.reconsider()
	assert.Equal(t, ImageWrongPlatform, f.Cause)
	assert.Equal(t, "spec.template.spec.containers[name=app].image", f.Decisive.Field)
	assert.Equal(t, ImageWrongPlatform.remedy(), f.Decisive.Remedy)
}

func TestEveryAdviceIsComplete(t *testing.T) {
	names := map[string]string{"namespace": "shop", "pod": "shop-1", "container": "app", "workload": "deployment/shop", "release": "shop", "user": "bot"}
	for _, c := range Causes() {
		a := AdviceFor(c).filled(names)
		assert.NotEmpty(t, a.Symptom, c)
		assert.NotEmpty(t, a.Usual, c)
		assert.NotEmpty(t, a.Remedy, c)
		assert.Len(t, a.Commands, len(AdviceFor(c).Commands), "%s: every placeholder is known", c)
		assert.NotEmpty(t, a.Commands, c)
	}
	assert.Zero(t, AdviceFor("Nonsense"))
	assert.Equal(t, []string{describeNodes}, AdviceFor(Unschedulable).filled(nil).Commands, "what needs a name is left out")
}
