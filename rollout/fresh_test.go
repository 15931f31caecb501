package rollout

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	k8stesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/stages"
)

// neighbour joins all feeds that a kind needs, and stays.
func neighbour(t *testing.T, v *Verifier, kind string) {
	t.Helper()
	w := newWorld(v.cluster.hub)
	for _, r := range kinds[kind].needs {
		w.join(t.Context(), r, ns, "")
	}
	t.Cleanup(w.leave)
	synctest.Wait()
}

// lagging makes the lab's watch of a resource one that the test delivers by hand.
func (l *lab) lagging(resource string) *watch.RaceFreeFakeWatcher {
	w := watch.NewRaceFreeFake()
	l.client.PrependWatchReactor(resource, func(k8stesting.Action) (bool, watch.Interface, error) { return true, w, nil })
	return w
}

// A watch that others have opened lags behind the deployment that came just
// before: what it shows of the release is the revision before, rolled out.
func TestSharedWatchThatLagsBehind(t *testing.T) {
	for name, before := range map[string]string{"another image": pinnedTo(digestB), "the same image": pinnedTo(digestA)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newApp(t, ns, "shop")
				l := newLab(t, a.set, as(a.pod, ready(pinnedTo(digestA))))
				old := complete(deployment(before, 1))
				old.UID, old.ResourceVersion = a.deployment.UID, "10"
				l.write(old)
				watched := l.lagging("deployments")
				v := l.verifier()
				neighbour(t, v, "apps/Deployment")

				a.deployment.Generation, a.deployment.ResourceVersion = 3, "20"
				l.write(a.deployment)
				wait := together(t, v, []app{a})
				time.Sleep(5 * time.Second)
				watched.Modify(old) // Late news.
				synctest.Wait()
				assert.NotEmpty(t, v.cluster.hub.feeds)
				done := complete(a.deployment)
				done.ResourceVersion = "30"
				began := time.Now()
				watched.Modify(done)
				require.NoError(t, wait()[0])
				assert.Less(t, time.Since(began), time.Second)
				assert.Equal(t, 1, l.requests()["read deployments in shop"])
			})
		})
	}
}

// While the API server doesn't say how the object is now, nothing is decided.
func TestSharedWatchWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, ns, "shop")
		l := newLab(t, a.set, as(a.pod, ready(pinnedTo(digestA))), complete(a.deployment))
		v := l.verifier()
		neighbour(t, v, "apps/Deployment")
		l.client.PrependReactor("list", "deployments", func(k8stesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("connection refused")
		})
		_, err := v.Verify(t.Context(), a.release)
		require.ErrorIs(t, err, stages.ErrIndeterminate)
		require.ErrorContains(t, err, "read Deployment shop/shop")
	})
}

// A job of the same name that a former release ran, and that is gone, is no proof.
func TestJobOfAFormerRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		v := l.verifier()
		neighbour(t, v, "batch/Job")
		job := &batchv1.Job{TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}, ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "migrate", UID: "1"}}
		job.Spec.Template = podTemplate(pinnedTo(digestA))
		job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: "True"}}
		l.put(job)
		l.remove(job)
		_, err := v.Verify(t.Context(), release(t, stages.Object{APIVersion: "batch/v1", Kind: "Job", Name: "migrate"}))
		f, ok := errors.AsType[*Failure](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, Missing, f.Cause)
	})
}

func TestFewEndedJobsAreRemembered(t *testing.T) {
	s := newStore()
	job := &batchv1.Job{Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: "True"}}}}
	for i := range 3 * maxEnded {
		j := job.DeepCopy()
		j.Name = fmt.Sprint(i)
		s.put(j)
		s.remove(j)
	}
	assert.Len(t, s.ended.jobs, maxEnded)
}

// What a list tells that began before is no reason to forget later news.
func TestListThatComesLate(t *testing.T) {
	at := func(name, version string) *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, ResourceVersion: version}}
	}
	s := newStore()
	s.replace([]metav1.Object{at("gone", "1"), at("changed", "2")}, "2")
	s.put(at("changed", "9"))
	s.put(at("new", "8"))
	s.replace([]metav1.Object{at("changed", "4")}, "5")
	got := map[string]string{}
	for name, o := range s.objects {
		got[name.Name] = o.GetResourceVersion()
	}
	assert.Equal(t, map[string]string{"changed": "9", "new": "8"}, got)
	other := at("changed", "7")
	other.UID = "former"
	s.remove(other)
	assert.Len(t, s.objects, 2, "the end of a former one of the same name")
}

// Who may list but not watch is told so, and isn't left to list for ever.
func TestWatchIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, ns, "shop")
		l := newLab(t, a.objects()...)
		l.client.PrependWatchReactor("pods", func(action k8stesting.Action) (bool, watch.Interface, error) {
			_, _, err := forbid(action)
			return true, nil, err
		})
		began := time.Now()
		_, err := l.verifier().Verify(t.Context(), a.release)
		assert.True(t, stages.IsPermanent(err))
		require.ErrorContains(t, err, "watch pods in namespace shop")
		require.ErrorContains(t, err, "grant the verbs list and watch on pods")
		assert.Less(t, time.Since(began), time.Second)
	})
}

func TestWatchThatFailsIsNotListedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, ns, "shop")
		l := newLab(t, a.objects()...)
		l.client.PrependWatchReactor("pods", func(k8stesting.Action) (bool, watch.Interface, error) {
			return true, nil, errors.New("internal error")
		})
		_, err := l.verifier().Verify(t.Context(), a.release)
		require.ErrorIs(t, err, stages.ErrIndeterminate)
		assert.Less(t, l.requests()["list pods in shop"], int(2*DefaultTimeout/time.Second))
	})
}

// Credentials of a plug-in are renewed once they are rejected.
func TestRejectedCredentials(t *testing.T) {
	for name, times := range map[string]int{"renewed": 2, "not renewed": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newApp(t, ns, "shop")
				l := newLab(t, a.set, as(a.pod, ready(pinnedTo(digestA))), complete(a.deployment))
				var rejected atomic.Int32
				l.client.PrependReactor("list", "deployments", func(k8stesting.Action) (bool, runtime.Object, error) {
					if int(rejected.Add(1)) > times {
						return false, nil, nil
					}
					return true, nil, apierrors.NewUnauthorized("Unauthorized")
				})
				began := time.Now()
				_, err := l.verifier().Verify(t.Context(), a.release)
				if times == 2 {
					require.NoError(t, err)
					return
				}
				assert.True(t, stages.IsPermanent(err))
				require.ErrorContains(t, err, "does not accept the credentials")
				assert.Less(t, time.Since(began), 5*time.Second)
			})
		})
	}
}

// An extension API server may know no selectors of fields.
func TestSharedWatchWithoutFieldSelectors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, ns, "shop")
		l := newLab(t, a.set, as(a.pod, ready(pinnedTo(digestA))), complete(a.deployment))
		v := l.verifier()
		neighbour(t, v, "apps/Deployment")
		l.client.PrependReactor("list", "deployments", func(action k8stesting.Action) (bool, runtime.Object, error) {
			if list, ok := action.(k8stesting.ListAction); ok && !list.GetListRestrictions().Fields.Empty() {
				return true, nil, apierrors.NewBadRequest("field label not supported: metadata.name")
			}
			return false, nil, nil
		})
		_, err := v.Verify(t.Context(), a.release)
		require.NoError(t, err)
	})
}

// What a pod of ours was told stays while other objects make noise.
func TestEventsOfObjectsThatAreStillTalkedAbout(t *testing.T) {
	l := eventLog{byUID: map[types.UID][]*corev1.Event{}}
	about := func(uid string, n int) *corev1.Event {
		e := &corev1.Event{InvolvedObject: corev1.ObjectReference{UID: types.UID(uid)}}
		e.Name, e.UID = fmt.Sprint(uid, n), types.UID(fmt.Sprint(uid, n))
		return e
	}
	for i := range 3 * maxEventObjects {
		l.add(about("ours", i%20), true)
		l.add(about(fmt.Sprint("other", i), 0), true)
	}
	assert.Len(t, l.byUID, maxEventObjects)
	assert.Len(t, l.byUID["ours"], maxEventsPerObject)
	assert.LessOrEqual(t, len(l.arrived), maxEventObjects+maxEventsPerObject)
	assert.Positive(t, l.arrived[l.byUID["ours"][0].UID])
}
