package rollout

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/fairlead-dev/fairlead/stages"
)

func resourceOf(o runtime.Object) schema.GroupVersionResource {
	kinds, _, err := scheme.Scheme.ObjectKinds(o)
	kind := o.GetObjectKind().GroupVersionKind()
	if err == nil {
		kind = kinds[0]
	}
	if kind.Kind == "Gateway" { // which the guess would make "gatewaies"
		return kind.GroupVersion().WithResource("gateways")
	}
	r, _ := meta.UnsafeGuessKindToResource(kind)
	return r
}

// upgrade is a Deployment of one replica on its way from revision 1 to 2.
func upgrade() (d *appsv1.Deployment, old, updated *appsv1.ReplicaSet, oldPod, newPod *corev1.Pod) {
	d = deployment(pinnedTo(digestA), 1)
	before := podTemplate(pinnedTo(digestB))
	old, updated = replicaSet(d, 1, before), replicaSet(d, 2, d.Spec.Template)
	oldPod = as(podOf(old, "ReplicaSet", "shop-1-x", before), ready(pinnedTo(digestB)))
	newPod = podOf(updated, "ReplicaSet", "shop-2-x", d.Spec.Template)
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 2, UpdatedReplicas: 1, AvailableReplicas: 1}
	return d, old, updated, oldPod, newPod
}

func TestUpgradeVerifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		stale := d.DeepCopy()
		stale.Status.ObservedGeneration = 1
		l := newLab(t, stale, old, oldPod)
		r := l.start(t.Context(), release(t))
		require.False(t, r.over(), "the controller has not seen the change")
		l.put(updated, d)
		l.put(newPod)
		l.put(as(newPod, running(pinnedTo(digestA))))
		time.Sleep(20 * time.Second)
		require.False(t, r.over(), "a slow start is no failure")
		l.put(as(newPod, ready(pinnedTo(digestA))))
		require.False(t, r.over(), "the old pod still runs")
		l.put(complete(d))
		require.True(t, r.over())
		require.NoError(t, r.err)
		assert.Equal(t, image(t, digestA), r.result.Image)
		require.Len(t, r.result.Checks, 1)
		assert.Equal(t, "rollout Deployment shop/shop", r.result.Checks[0].Name)
		assert.Equal(t, 20*time.Second, r.result.Checks[0].Elapsed)
		assert.Contains(t, r.progress, "Deployment shop/shop: 0 of 1 ready; its controller has not seen the change yet")
		assert.Equal(t, "Deployment shop/shop: 1 of 1 ready", r.progress[len(r.progress)-1])
	})
}

// Each way of failing, from the state that decides to the verdict.
func TestFailures(t *testing.T) {
	notFound := `rpc error: code = NotFound desc = failed to pull and unpack image "x": failed to resolve reference "x": x: not found`
	unreachable := `failed to do request: Head "http://localhost:5001/v2/": dial tcp 127.0.0.1:5001: connect: connection refused`
	tests := map[string]struct {
		pod    []func(*corev1.Pod) // one state after the other, a second apart
		cause  Cause
		reason string
		within time.Duration // of the last state
		text   string
	}{
		"image not found": {[]func(*corev1.Pod){waiting("ErrImagePull", notFound)}, ImageNotFound, "ErrImagePull", 0, "push the image"},
		"back-off of an image not found": {
			[]func(*corev1.Pod){waiting("ImagePullBackOff", `Back-off pulling image "x": ErrImagePull: `+notFound)}, ImageNotFound, "ImagePullBackOff", 0, "not found",
		},
		"registry unreachable three times": {[]func(*corev1.Pod){
			waiting("ErrImagePull", unreachable), waiting("ImagePullBackOff", "Back-off: "+unreachable),
			waiting("ErrImagePull", unreachable), waiting("ImagePullBackOff", "Back-off: "+unreachable),
			waiting("ErrImagePull", unreachable),
		}, ImageUnreachable, "ErrImagePull", 0, "connection refused"},
		"registry unreachable for a minute": {[]func(*corev1.Pod){waiting("ErrImagePull", unreachable)}, ImageUnreachable, "ErrImagePull", time.Minute, "registry"},
		"crash loop":                        {[]func(*corev1.Pod){crashed(3, "Error", 0), crashed(3, "Error", 1)}, Crash, "CrashLoopBackOff", 0, "exit code 3 after 1s, 2 times"},
		"clean exits":                       {[]func(*corev1.Pod){crashed(0, "Completed", 1)}, Crash, "CrashLoopBackOff", 0, "should keep running"},
		"out of memory":                     {[]func(*corev1.Pod){crashed(137, "OOMKilled", 1)}, OutOfMemory, "OOMKilled", 0, "signal 9"},
		"out of memory as the runtime hears of it too late": {[]func(*corev1.Pod){limited(crashed(137, "Error", 1))}, OutOfMemory, "CrashLoopBackOff", 0, "most likely out of memory"},
		"killed by nobody knows whom":                       {[]func(*corev1.Pod){crashed(137, "Error", 1)}, Crash, "CrashLoopBackOff", 0, "signal 9"},
		"no such command": {[]func(*corev1.Pod){waiting("RunContainerError", `exec: "nope": executable file not found in $PATH`)},
			CommandNotRunnable, "RunContainerError", 0, "command and args"},
		"missing ConfigMap": {[]func(*corev1.Pod){waiting("CreateContainerConfigError", `configmap "settings" not found`)},
			ConfigMissing, "CreateContainerConfigError", 30 * time.Second, `configmap "settings" not found`},
		"runs as root": {[]func(*corev1.Pod){waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")},
			RunsAsRoot, "CreateContainerConfigError", 0, "runAsUser"},
		"no node": {[]func(*corev1.Pod){func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available: 1 Insufficient memory."}}
		}}, Unschedulable, "Unschedulable", 30 * time.Second, "Insufficient memory"},
		"another digest": {[]func(*corev1.Pod){func(p *corev1.Pod) {
			p.Spec.Containers[0].Image = repository + ":v2"
			ready(pinnedTo(digestB))(p)
		}}, ImageMismatch, "ImageMismatch", 0, "released was"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, old, updated, oldPod, newPod := upgrade()
				l := newLab(t, d, old, updated, oldPod, newPod)
				r := l.start(t.Context(), release(t))
				for i, state := range test.pod {
					if i > 0 {
						time.Sleep(time.Second)
					}
					require.False(t, r.over(), "state %d decides nothing", i)
					l.put(as(newPod, state))
				}
				decided := time.Now()
				f := r.failure(t)
				assert.Equal(t, test.within, time.Since(decided), "time to the verdict")
				assert.Equal(t, test.cause, f.Cause)
				assert.Equal(t, test.reason, f.Decisive.Reason)
				assert.Equal(t, "pod shop/shop-2-x", f.Decisive.Subject)
				assert.Equal(t, "app", f.Decisive.Container+map[bool]string{true: "app"}[test.cause == Unschedulable])
				assert.Equal(t, []string{"ReplicaSet shop/shop-2", "Deployment shop/shop"}, f.Decisive.Owners)
				assert.Equal(t, test.cause == ImageMismatch, errors.Is(r.err, stages.ErrSubjectMismatch))
				assert.Contains(t, f.Error(), test.text)
				assert.NotContains(t, f.Error(), "\n")
				assert.Equal(t, f.Decisive, stages.EvidenceOf(r.err)[0])
			})
		})
	}
}

// What must never fail a rollout.
func TestNoFalseAborts(t *testing.T) {
	tests := map[string]func(l *lab, d *appsv1.Deployment, oldPod, newPod *corev1.Pod){
		"old pods crash": func(l *lab, _ *appsv1.Deployment, oldPod, _ *corev1.Pod) {
			l.put(as(oldPod, crashed(1, "Error", 7)))
		},
		"another release's pods crash": func(l *lab, _ *appsv1.Deployment, _, newPod *corev1.Pod) {
			other := as(newPod, crashed(1, "Error", 7))
			other.Name, other.UID = "other-2-x", "other"
			other.OwnerReferences[0].UID = "other"
			l.put(other)
		},
		"a pod without an owner crashes": func(l *lab, _ *appsv1.Deployment, _, newPod *corev1.Pod) {
			other := as(newPod, crashed(1, "Error", 7))
			other.Name, other.UID, other.OwnerReferences = "stray", "stray", nil
			l.put(other)
		},
		"one restart": func(l *lab, _ *appsv1.Deployment, _, newPod *corev1.Pod) {
			l.put(as(newPod, crashed(1, "Error", 0)))
			time.Sleep(time.Second)
			l.put(as(newPod, func(p *corev1.Pod) {
				running(pinnedTo(digestA))(p)
				p.Status.ContainerStatuses[0].RestartCount = 1
				p.Status.ContainerStatuses[0].LastTerminationState.Terminated = ended(1, "Error")
			}))
		},
		"a slow start": func(l *lab, _ *appsv1.Deployment, _, newPod *corev1.Pod) {
			l.put(as(newPod, running(pinnedTo(digestA))))
			l.put(event(newPod, "Pod", "Unhealthy", "Startup probe failed: connection refused"))
			time.Sleep(4 * time.Minute)
		},
		"a slow pull": func(l *lab, _ *appsv1.Deployment, _, newPod *corev1.Pod) {
			l.put(event(newPod, "Pod", "FailedMount", `MountVolume.SetUp failed for volume "x" : configmap "x" not found`))
			time.Sleep(time.Second)
			l.put(event(newPod, "Pod", "Pulling", "Pulling image"))
			time.Sleep(4 * time.Minute)
		},
		"a registry that hiccups": func(l *lab, _ *appsv1.Deployment, _, newPod *corev1.Pod) {
			l.put(as(newPod, waiting("ErrImagePull", "dial tcp: i/o timeout")))
			time.Sleep(10 * time.Second)
			l.put(as(newPod, waiting("ErrImagePull", "503 Service Unavailable")))
			time.Sleep(10 * time.Second)
		},
		"a Secret that comes later": func(l *lab, _ *appsv1.Deployment, _, newPod *corev1.Pod) {
			l.put(as(newPod, waiting("CreateContainerConfigError", `secret "s" not found`)))
			time.Sleep(20 * time.Second)
		},
		"no node until old pods have left": func(l *lab, _ *appsv1.Deployment, oldPod, newPod *corev1.Pod) {
			now := metav1.Now()
			l.put(as(oldPod, func(p *corev1.Pod) { p.DeletionTimestamp = &now }))
			l.put(as(newPod, unschedulable))
			time.Sleep(50 * time.Second)
			l.remove(oldPod)
			time.Sleep(20 * time.Second)
		},
		"no node until the autoscaler brings one": func(l *lab, _ *appsv1.Deployment, _, newPod *corev1.Pod) {
			l.put(as(newPod, unschedulable))
			l.put(event(newPod, "Pod", "TriggeredScaleUp", "pod triggered scale-up"))
			time.Sleep(3 * time.Minute)
		},
		"an init container fails twice": func(l *lab, _ *appsv1.Deployment, _, newPod *corev1.Pod) {
			l.put(as(newPod, func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "wait", Image: "wait:1"}}
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "wait", RestartCount: 1, State: corev1.ContainerState{Terminated: ended(1, "Error")}}}
			}))
			time.Sleep(20 * time.Second)
		},
		"a pod is ended to make room": func(l *lab, _ *appsv1.Deployment, _, newPod *corev1.Pod) {
			l.put(as(newPod, func(p *corev1.Pod) {
				crashed(137, "Error", 5)(p)
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "PreemptionByScheduler"}}
			}))
			time.Sleep(10 * time.Second)
		},
		"no node while others are preempted": func(l *lab, _ *appsv1.Deployment, _, newPod *corev1.Pod) {
			l.put(as(newPod, func(p *corev1.Pod) { unschedulable(p); p.Status.NominatedNodeName = "node" }))
			time.Sleep(time.Minute)
		},
		"a registry that refuses once": func(l *lab, _ *appsv1.Deployment, _, newPod *corev1.Pod) {
			l.put(as(newPod, waiting("ErrImagePull", "401 Unauthorized")))
			l.put(as(newPod, waiting("ImagePullBackOff", "Back-off pulling image: 401 Unauthorized")))
			time.Sleep(15 * time.Second)
		},
		"an old ReplicaSet over quota": func(l *lab, d *appsv1.Deployment, _, _ *corev1.Pod) {
			old := replicaSet(d, 1, podTemplate(pinnedTo(digestB)))
			old.Status.Conditions = []appsv1.ReplicaSetCondition{{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "exceeded quota"}}
			l.put(old)
			time.Sleep(time.Minute)
		},
	}
	for name, disturb := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, old, updated, oldPod, newPod := upgrade()
				l := newLab(t, d, old, updated, oldPod, newPod)
				r := l.start(t.Context(), release(t))
				disturb(l, d, oldPod, newPod)
				require.False(t, r.over(), "aborted: %v", r.err)
				l.put(as(newPod, ready(pinnedTo(digestA))))
				l.put(complete(d))
				require.True(t, r.over())
				require.NoError(t, r.err)
			})
		})
	}
}

func unschedulable(p *corev1.Pod) {
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available: 1 Insufficient cpu."}}
}

func TestQuotaFailsThroughTheReplicaSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deployment(pinnedTo(digestA), 1)
		rs := replicaSet(d, 2, d.Spec.Template)
		rs.Status.Conditions = []appsv1.ReplicaSetCondition{{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate",
			Message: `pods "shop-2-x" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0`,
		}}
		l := newLab(t, d, rs)
		f := l.start(t.Context(), release(t)).failure(t)
		assert.Equal(t, QuotaExceeded, f.Cause)
		assert.Equal(t, "ReplicaSet shop/shop-2", f.Decisive.Subject)
		assert.Equal(t, 5*time.Second, f.Elapsed)
	})
}

func TestTimeoutSaysWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		l := newLab(t, d, old, updated, oldPod, as(newPod, running(pinnedTo(digestA))), event(newPod, "Pod", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"))
		l.config.Timeout = 30 * time.Second
		f := l.start(t.Context(), release(t)).failure(t)
		assert.Equal(t, TimedOut, f.Cause)
		assert.Contains(t, f.Error(), "not rolled out within 30s (Deployment shop/shop: 0 of 1 ready)")
		assert.Contains(t, f.Error(), "statuscode: 503")
		assert.Equal(t, []string{"fake logs"}, f.Decisive.Logs)
		assert.Equal(t, 30*time.Second, f.Elapsed)
	})
}

func TestProgressDeadlineNamesThePod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded", Message: "timed out"}}
		l := newLab(t, d, old, updated, oldPod, as(newPod, running(pinnedTo(digestA))))
		f := l.start(t.Context(), release(t)).failure(t)
		assert.Equal(t, DeadlineExceeded, f.Cause)
		require.Len(t, f.Others, 1)
		assert.Equal(t, "pod shop/shop-2-x", f.Others[0].Subject)
	})
}

func TestSettleCatchesACrashThatReadinessHides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, _, _ := upgrade()
		d.Spec.Template.Spec.Containers[0].ReadinessProbe = nil
		updated.Spec.Template.Spec.Containers[0].ReadinessProbe = nil
		pod := podOf(updated, "ReplicaSet", "shop-2-x", d.Spec.Template)
		l := newLab(t, complete(d), old, updated, as(pod, ready(pinnedTo(digestA))))
		r := l.start(t.Context(), release(t))
		time.Sleep(3 * time.Second)
		require.False(t, r.over(), "ready without a probe proves nothing yet")
		l.put(as(pod, crashed(1, "Error", 0)))
		time.Sleep(time.Second)
		l.put(as(pod, crashed(1, "Error", 1)))
		assert.Equal(t, Crash, r.failure(t).Cause)
	})
}

func TestAnEventIsSoonerThanTheStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, _, newPod := upgrade()
		l := newLab(t, complete(d), old, updated, newPod)
		r := l.start(t.Context(), release(t))
		time.Sleep(time.Minute) // the event before is about an earlier run
		before := about(newPod, "app", "BackOff", "Back-off restarting failed container app in pod shop-2-x")
		time.Sleep(time.Second)
		well := as(newPod, ready(pinnedTo(digestA)))
		time.Sleep(time.Second)
		failed := about(newPod, "app", "BackOff", "Back-off restarting failed container app in pod shop-2-x again")
		l.put(before, failed)
		l.put(well)
		require.False(t, r.over(), "the status is behind")
		l.put(as(newPod, crashed(1, "Error", 1)))
		assert.Equal(t, Crash, r.failure(t).Cause)
	})
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, _, newPod := upgrade()
		before := about(newPod, "app", "BackOff", "Back-off restarting failed container app in pod shop-2-x")
		time.Sleep(time.Second)
		r := newLab(t, complete(d), old, updated, before, as(newPod, ready(pinnedTo(digestA)))).start(t.Context(), release(t))
		require.True(t, r.over(), "it was restarted since")
		require.NoError(t, r.err)
	})
}

// A sidecar that was restarted has to prove itself anew, as any container.
func TestSettleWaitsForSidecars(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, _, _ := upgrade()
		proxy := corev1.Container{Name: "proxy", Image: "proxy:1", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}
		for _, template := range []*corev1.PodTemplateSpec{&d.Spec.Template, &updated.Spec.Template} {
			template.Spec.InitContainers = []corev1.Container{proxy}
		}
		pod := podOf(updated, "ReplicaSet", "shop-2-x", d.Spec.Template)
		sidecar := func(restarts int32) func(*corev1.Pod) {
			return func(p *corev1.Pod) {
				ready(pinnedTo(digestA))(p)
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "proxy", RestartCount: restarts,
					State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}}}
			}
		}
		l := newLab(t, complete(d), old, updated, as(pod, sidecar(0)))
		r := l.start(t.Context(), release(t))
		time.Sleep(DefaultSettle - time.Second)
		require.False(t, r.over(), "only the program has a readiness probe")
		l.put(as(pod, sidecar(1)))
		time.Sleep(DefaultSettle - time.Second)
		require.False(t, r.over(), "the sidecar was restarted meanwhile")
		<-r.done
		require.NoError(t, r.err)
		assert.Equal(t, 2*DefaultSettle-time.Second, r.elapsed)
	})
}

func TestSettleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, _, _ := upgrade()
		d.Spec.Template.Spec.Containers[0].ReadinessProbe = nil
		updated.Spec.Template.Spec.Containers[0].ReadinessProbe = nil
		pod := podOf(updated, "ReplicaSet", "shop-2-x", d.Spec.Template)
		r := newLab(t, complete(d), old, updated, as(pod, ready(pinnedTo(digestA)))).start(t.Context(), release(t))
		<-r.done
		require.NoError(t, r.err)
		assert.Equal(t, DefaultSettle, r.elapsed)
	})
}

func TestUnusedImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deployment("docker.io/library/nginx:1", 1)
		l := newLab(t, d)
		r := l.start(t.Context(), release(t))
		f := r.failure(t)
		assert.Equal(t, ImageMismatch, f.Cause)
		require.ErrorIs(t, r.err, stages.ErrSubjectMismatch)
		assert.Contains(t, f.Error(), "no pod of the release runs an image of "+repository)
	})
}
