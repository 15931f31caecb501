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

// install is a first install of a shop, and of the database that it can't do without.
type install struct {
	*lab
	shop     app
	database *appsv1.StatefulSet
	pod      *corev1.Pod // the database's
	release  stages.Release
}

func newInstall(t *testing.T) install {
	t.Helper()
	shop, three := newApp(t, ns, "shop"), int32(3)
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "db", UID: "db", Generation: 1},
		Spec:       appsv1.StatefulSetSpec{Template: podTemplate("db:1"), Replicas: &three},
	}
	pod := labelled(podOf(set, "StatefulSet", "db-0", set.Spec.Template), appsv1.ControllerRevisionHashLabelKey, "db-1")
	return install{newLab(t, append(shop.objects(), set, pod)...), shop, set, pod, release(t, shop.release.Objects[0], objectOf("StatefulSet", "db"))}
}

func objectOf(kind, name string) stages.Object {
	return stages.Object{APIVersion: "apps/v1", Kind: kind, Name: name}
}

// serve makes so many of the database's pods ready.
func (i install) serve(n int32) {
	set := i.database.DeepCopy()
	set.Status = appsv1.StatefulSetStatus{ObservedGeneration: 1, UpdateRevision: "db-1", Replicas: n, ReadyReplicas: n, AvailableReplicas: n}
	for _, name := range []string{"db-0", "db-1", "db-2"}[:n] {
		pod := as(i.pod, ready("db:1"))
		pod.Name, pod.UID = name, i.pod.UID+"-"+pod.UID
		i.put(pod)
	}
	i.put(set)
}

func (i install) crash(times int32) { i.put(as(i.shop.pod, crashed(1, "Error", times-1))) }

func TestCrashesWhileAnotherWorkloadStarts(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, i install, r *run){
		"it comes up": func(t *testing.T, i install, r *run) {
			i.finish(i.shop)
			<-r.done
			require.NoError(t, r.err)
		},
		"it goes on crashing": func(t *testing.T, i install, r *run) {
			i.crash(6)
			require.False(t, r.over(), "that run may have begun before: %v", r.err)
			i.crash(7)
			f := r.failure(t)
			assert.Equal(t, Crash, f.Cause)
			assert.Equal(t, "Deployment shop/shop", f.Workload.String())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newInstall(t)
				r := i.start(t.Context(), i.release)
				for n := range int32(5) {
					i.crash(n + 1)
					time.Sleep(10 * time.Second)
					require.False(t, r.over(), "after %d crashes: %v", n+1, r.err)
				}
				i.serve(1)
				require.False(t, r.over(), "one of three may not be enough: %v", r.err)
				i.serve(3)
				require.False(t, r.over(), "it is not known yet what becomes of it: %v", r.err)
				test(t, i, r)
			})
		})
	}
}

// Where nothing else is on its way, a crash loop is known as early as ever.
func TestCrashesThatNothingExcuses(t *testing.T) {
	for name, test := range map[string]func(i install){
		"the other one is done": func(i install) { i.serve(3) },
		"pods of the other one serve while it is updated": func(i install) {
			i.serve(3)
			set := i.database.DeepCopy()
			set.Generation = 2
			set.Status = appsv1.StatefulSetStatus{ObservedGeneration: 2, UpdateRevision: "db-2", Replicas: 3, ReadyReplicas: 2, AvailableReplicas: 2}
			i.put(set)
		},
		"the other one crashes, too": func(i install) { i.put(as(i.pod, crashed(1, "Error", 1))) },
		"nothing is wanted of the other one": func(i install) {
			set := i.database.DeepCopy()
			set.Spec.Replicas = new(int32)
			set.Status.CurrentReplicas = 1
			i.put(set)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newInstall(t)
				i.database.Status = appsv1.StatefulSetStatus{ObservedGeneration: 1, UpdateRevision: "db-1"}
				i.put(i.database)
				test(i)
				r := i.start(t.Context(), i.release)
				require.False(t, r.over(), "%v", r.err)
				i.crash(1)
				require.False(t, r.over(), "%v", r.err)
				i.crash(2)
				require.True(t, r.over())
				assert.Equal(t, Crash, r.failure(t).Cause)
			})
		})
	}
	t.Run("a rule that grants nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			i := newInstall(t)
			i.config.Rules = map[Cause]Rule{Crash: {Class: TerminalAfter, Count: 2}}
			r := i.start(t.Context(), i.release)
			i.crash(2)
			assert.Zero(t, r.failure(t).Elapsed)
		})
	})
	t.Run("too many", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			i := newInstall(t)
			r := i.start(t.Context(), i.release)
			i.crash(5)
			require.False(t, r.over(), "%v", r.err)
			i.crash(6)
			f := r.failure(t)
			assert.Equal(t, Crash, f.Cause)
			assert.Contains(t, f.Decisive.Message, "6 times")
		})
	})
}

// Of a workload that fails, and one that crashes for want of it, the first is named.
func TestTheFailureOfWhatOthersWaitFor(t *testing.T) {
	for name, test := range map[string]struct {
		state func(*corev1.Pod)
		cause Cause
	}{
		"no image": {waiting("ErrImagePull", "manifest unknown"), ImageNotFound},
		"crashes":  {crashed(1, "Error", 1), Crash},
		"no node":  {unschedulable, Unschedulable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newInstall(t)
				i.database.Status = appsv1.StatefulSetStatus{ObservedGeneration: 1, UpdateRevision: "db-1"}
				i.put(i.database)
				r := i.start(t.Context(), i.release)
				i.crash(3)
				require.False(t, r.over(), "%v", r.err)
				i.put(as(i.pod, test.state))
				f := r.failure(t)
				assert.Equal(t, test.cause, f.Cause)
				assert.Equal(t, "StatefulSet shop/db", f.Workload.String())
				assert.Equal(t, "pod shop/shop-2-x", f.Others[0].Subject)
			})
		})
	}
}

// A job of the release may prepare what its other workloads need, also when its turn comes.
func TestCrashesWhileAJobRuns(t *testing.T) {
	queued := job()
	queued.Spec.Suspend, queued.Labels = new(true), map[string]string{queueLabel: "batch"}
	for name, j := range map[string]*batchv1.Job{"running": job(), "in a queue": queued} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shop := newApp(t, ns, "shop")
				l := newLab(t, append(shop.objects(), j)...)
				r := l.start(t.Context(), release(t, shop.release.Objects[0], migrate))
				l.put(as(shop.pod, crashed(1, "Error", 3)))
				require.False(t, r.over(), "%v", r.err)
				l.put(job(completeJob...))
				require.False(t, r.over(), "%v", r.err)
				l.finish(shop)
				<-r.done
				require.NoError(t, r.err)
			})
		})
	}
}

// What a program has crashed for may have come while the hooks of its release ran, so that
// the first look finds it ready already.
func TestCrashesBeforeTheFirstLook(t *testing.T) {
	for name, counts := range map[string]bool{"the other was ready later": false, "the other was ready before": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newInstall(t)
				i.release.Began = time.Now()
				if counts {
					i.serve(3)
				}
				time.Sleep(time.Minute)
				i.crash(3)
				time.Sleep(time.Second)
				if !counts {
					i.serve(3)
				}
				i.release.Deployed = time.Now()
				r := i.start(t.Context(), i.release)
				require.Equal(t, counts, r.over(), "%v", r.err)
				if counts {
					assert.Equal(t, Crash, r.failure(t).Cause)
					return
				}
				i.finish(i.shop)
				<-r.done
				require.NoError(t, r.err)
			})
		})
	}
}

// What others wait for may be ready for a moment between its crashes: these go on counting.
func TestCrashesOfWhatOthersWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web, api := newApp(t, ns, "web"), newApp(t, ns, "api")
		l := newLab(t, append(web.objects(), api.objects()...)...)
		l.config.Timeout = time.Hour
		r := l.start(t.Context(), release(t, web.release.Objects[0], api.release.Objects[0]))
		serving := func(n int32) {
			d := api.deployment.DeepCopy()
			d.Status.ReadyReplicas = n
			l.put(d)
		}
		crashes := int32(0)
		for range 6 {
			for n := range int32(2) {
				l.put(as(web.pod, crashed(1, "Error", 2*crashes+n)))
				time.Sleep(30 * time.Second)
			}
			l.put(as(api.pod, restarted(crashes)))
			serving(1)
			time.Sleep(5 * time.Second)
			serving(0)
			l.put(as(api.pod, crashed(1, "Error", crashes)))
			crashes++
			if r.over() {
				break
			}
		}
		f := r.failure(t)
		assert.Equal(t, Crash, f.Cause)
		assert.LessOrEqual(t, crashes, int32(3))
	})
}
