package rollout

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// initialising is a pod whose second init container runs, and whose first is over.
func initialising(p *corev1.Pod) {
	waiting("PodInitializing", "")(p)
	p.Spec.InitContainers = []corev1.Container{{Name: "copy", Image: "copy:1"}, {Name: "wait-for-db", Image: "wait:1"}}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{
		{Name: "copy", State: corev1.ContainerState{Terminated: ended(0, "Completed")}},
		{Name: "wait-for-db", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}},
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue}}
}

// declare has the manifest name a pod's init containers.
func declare(pod *corev1.Pod, d *appsv1.Deployment, set *appsv1.ReplicaSet) {
	d.Spec.Template.Spec.InitContainers, set.Spec.Template.Spec.InitContainers = pod.Spec.InitContainers, pod.Spec.InitContainers
}

func TestAnInitContainerThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		newPod = as(newPod, initialising)
		declare(newPod, d, updated)
		f := newLab(t, d, old, updated, oldPod, newPod).start(t.Context(), release(t)).failure(t)
		assert.Equal(t, TimedOut, f.Cause)
		assert.Equal(t, "wait-for-db", f.Decisive.Container)
		assert.Equal(t, "init container", f.Role)
		assert.Equal(t, "spec.template.spec.initContainers[name=wait-for-db]", f.Decisive.Field)
		assert.Contains(t, f.Decisive.Message, "it has not ended since 2000-01-01T00:00:00Z")
		assert.Equal(t, []string{"fake logs"}, f.Decisive.Logs)
	})
}

// The controller gives up before the timeout, and says nothing of the pods.
func TestADeadlineNamesWhatThePodsWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		l := newLab(t, d, old, updated, oldPod, as(newPod, initialising))
		r := l.start(t.Context(), release(t))
		time.Sleep(time.Minute)
		late := d.DeepCopy()
		late.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded",
			LastUpdateTime: metav1.Now(), Message: `ReplicaSet "shop-2" has timed out progressing.`}}
		l.put(late)
		f := r.failure(t)
		assert.Equal(t, DeadlineExceeded, f.Cause)
		assert.Equal(t, "Deployment shop/shop", f.Decisive.Subject)
		assert.Equal(t, `ReplicaSet "shop-2" has timed out progressing. pod shop-2-x: init container wait-for-db: InitContainerRunning: it has not ended since 2000-01-01T00:00:00Z`, f.Decisive.Message)
		assert.Equal(t, []string{"fake logs"}, f.Others[0].Logs)
	})
}

func TestASidecarThatIsNotReady(t *testing.T) {
	unready := func(started *bool) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodRunning
			p.Spec.InitContainers = []corev1.Container{{
				Name: "proxy", Image: "proxy:1", RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
				StartupProbe:   &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"started"}}}},
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"ready"}}}},
			}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{
				Name: "proxy", Started: started, RestartCount: 1, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
			}}
		}
	}
	for name, test := range map[string]struct {
		state         []func(*corev1.Pod)
		event         string
		probe, target string
	}{
		"beside its container": {[]func(*corev1.Pod){ready(pinnedTo(digestA)), unready(new(true)), func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady", Message: "containers with unready status: [proxy]"}}
		}}, "Readiness probe failed: not yet", "readiness", "exec ready"},
		"before its container": {[]func(*corev1.Pod){waiting("PodInitializing", ""), unready(new(false)), func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue}}
		}}, "Startup probe failed: not yet", "startup", "exec started"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, old, updated, oldPod, newPod := upgrade()
				for _, change := range test.state {
					newPod = as(newPod, change)
				}
				declare(newPod, d, updated)
				e := event(newPod, "Pod", "Unhealthy", test.event)
				e.InvolvedObject.FieldPath = "spec.initContainers{proxy}"
				f := newLab(t, d, old, updated, oldPod, newPod, e).start(t.Context(), release(t)).failure(t)
				assert.Equal(t, TimedOut, f.Cause)
				assert.Equal(t, NotReady, f.Pending)
				assert.Equal(t, "proxy", f.Decisive.Container)
				assert.Equal(t, "sidecar", f.Role)
				assert.Equal(t, int32(1), f.Restarts)
				if assert.NotNil(t, f.Probe) {
					assert.Equal(t, Probe{Kind: ProbeKind(test.probe), Target: test.target, Response: "not yet"}, *f.Probe)
				}
				assert.Equal(t, "spec.template.spec.initContainers[name=proxy]."+test.probe+"Probe.exec.command", f.Decisive.Field)
				assert.Equal(t, []string{"fake logs"}, f.Decisive.Logs)
			})
		})
	}
}
