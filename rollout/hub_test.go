package rollout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	k8stesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/stages"
)

// app is a release of one Deployment with one pod that is starting.
type app struct {
	deployment *appsv1.Deployment
	set        *appsv1.ReplicaSet
	pod        *corev1.Pod
	release    stages.Release
}

func newApp(t testing.TB, namespace, name string) app {
	d := deployment(pinnedTo(digestA), 1)
	d.Namespace, d.Name, d.UID = namespace, name, types.UID(namespace+name)
	set := replicaSet(d, 2, d.Spec.Template)
	set.Namespace, set.UID = namespace, types.UID(namespace+name+"-rs")
	pod := podOf(set, "ReplicaSet", name+"-2-x", d.Spec.Template)
	pod.Namespace, pod.UID = namespace, types.UID(namespace+name+"-pod")
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 1, UpdatedReplicas: 1}
	r := release(t, stages.Object{APIVersion: "apps/v1", Kind: "Deployment", Name: name})
	r.Namespace, r.Name = namespace, name
	return app{d, set, pod, r}
}

func (a app) objects() []runtime.Object { return []runtime.Object{a.deployment, a.set, a.pod} }

// finish makes the app's pod ready.
func (l *lab) finish(a app) {
	l.put(as(a.pod, ready(pinnedTo(digestA))), complete(a.deployment))
}

// requests counts what was asked of a lab, such as "watch pods in shop", or "read
// deployments in shop" for a list of one.
func (l *lab) requests() map[string]int {
	out := map[string]int{}
	for _, a := range l.client.Actions() {
		verb := a.GetVerb()
		if list, ok := a.(k8stesting.ListAction); ok && !list.GetListRestrictions().Fields.Empty() {
			verb = "read"
		}
		out[fmt.Sprintf("%s %s in %s", verb, a.GetResource().Resource, a.GetNamespace())]++
	}
	return out
}

// together verifies every app at the same time, and returns when all wait.
func together(t *testing.T, v *Verifier, apps []app) func() []error {
	errs := make([]error, len(apps))
	var wg sync.WaitGroup
	for i, a := range apps {
		wg.Go(func() { _, errs[i] = v.Verify(t.Context(), a.release) })
	}
	synctest.Wait()
	return func() []error {
		wg.Wait()
		return errs
	}
}

func TestManyReleasesShareOneWatchOfEachKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var apps []app
		var objects []runtime.Object
		for i := range 50 {
			a := newApp(t, ns, fmt.Sprintf("app-%02d", i))
			apps, objects = append(apps, a), append(objects, a.objects()...)
		}
		l := newLab(t, objects...)
		v := l.verifier()
		wait := together(t, v, apps)
		want := map[string]int{}
		for _, resource := range []string{"pods", "events", "deployments", "replicasets"} {
			want["list "+resource+" in shop"], want["watch "+resource+" in shop"] = 1, 1
		}
		want["read deployments in shop"] = len(apps) - 1 // The first has just been listed.
		assert.Equal(t, want, l.requests())
		for _, a := range apps[1:] {
			l.finish(a)
		}
		time.Sleep(time.Second)
		v.cluster.hub.mu.Lock()
		assert.Len(t, v.cluster.hub.feeds, 4, "one is left that needs them")
		v.cluster.hub.mu.Unlock()
		l.put(as(apps[0].pod, crashed(1, "Error", 1)))
		for i, err := range wait() {
			if i == 0 {
				require.ErrorContains(t, err, "pod shop/app-00-2-x")
			} else {
				require.NoError(t, err)
			}
		}
		assert.Empty(t, v.cluster.hub.feeds, "the last to leave closes them")
		assert.Equal(t, want["watch pods in shop"], l.requests()["watch pods in shop"])
	})
}

func TestWideClusterSharesOneWatchAmongNamespaces(t *testing.T) {
	for name, test := range map[string]struct {
		refused []string
		watches map[string]int
	}{
		"allowed": {nil, map[string]int{"watch pods in ": 1, "watch events in ": 1, "watch deployments in ": 1, "watch replicasets in ": 1}},
		"pods refused": {[]string{"pods"}, map[string]int{
			"watch pods in a": 1, "watch pods in b": 1, "watch events in ": 1, "watch deployments in ": 1, "watch replicasets in ": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				apps := []app{newApp(t, "a", "shop"), newApp(t, "b", "shop"), newApp(t, "a", "blog")}
				l := newLab(t)
				for _, a := range apps {
					l.put(a.objects()...)
				}
				for _, resource := range test.refused {
					l.client.PrependReactor("list", resource, func(a k8stesting.Action) (bool, runtime.Object, error) {
						if a.GetNamespace() != "" {
							return false, nil, nil
						}
						return forbid(a)
					})
				}
				v := l.verifier()
				v.cluster.hub.wide = true
				wait := together(t, v, apps)
				watches := l.requests()
				for request := range watches {
					if request[:5] != "watch" {
						delete(watches, request)
					}
				}
				assert.Equal(t, test.watches, watches)
				for _, a := range apps {
					l.finish(a)
				}
				for _, err := range wait() {
					require.NoError(t, err)
				}
			})
		})
	}
}

// A session is only woken by what it has read.
func TestOtherReleasesWakeNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, other := newApp(t, ns, "mine"), newApp(t, ns, "other")
		l := newLab(t, append(mine.objects(), other.objects()...)...)
		v := l.verifier()
		w := newWorld(v.cluster.hub)
		for _, r := range kinds["apps/Deployment"].needs {
			w.join(t.Context(), r, ns, "")
		}
		defer w.leave()
		synctest.Wait()
		in := newInspector(w, mine.release.Image, settings{})
		look := func() assessment {
			select {
			case <-w.wakeUp:
			default:
			}
			w.beginLook()
			defer w.endLook()
			return in.deployment(stages.Object{APIVersion: "apps/v1", Kind: "Deployment", Namespace: ns, Name: "mine"}, time.Now())
		}
		look()
		l.finish(other)
		l.put(event(other.pod, "Pod", "Unhealthy", "probe failed"))
		assert.Empty(t, w.wakeUp, "nothing of mine has changed")
		l.put(event(mine.pod, "Pod", "Unhealthy", "probe failed"))
		assert.Len(t, w.wakeUp, 1)
		look()
		l.put(as(mine.pod, ready(pinnedTo(digestA))))
		assert.Len(t, w.wakeUp, 1)
		assert.Equal(t, 1, look().ready)
		l.remove(mine.pod)
		assert.Len(t, w.wakeUp, 1)
		assert.Equal(t, 0, look().ready)
	})
}

// Who comes later must not be told a refusal of before.
func TestRefusalIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, ns, "shop")
		l := newLab(t, a.objects()...)
		l.finish(a)
		denied := true
		l.client.PrependReactor("list", "pods", func(a k8stesting.Action) (bool, runtime.Object, error) {
			if denied {
				return forbid(a)
			}
			return false, nil, nil
		})
		v := l.verifier()
		w := newWorld(v.cluster.hub)
		w.join(t.Context(), pods, ns, "") // somebody who stays
		defer w.leave()
		synctest.Wait()
		_, err := v.Verify(t.Context(), a.release)
		require.ErrorContains(t, err, "grant the verbs list and watch on pods")
		denied = false
		time.Sleep(2 * time.Second)
		_, err = v.Verify(t.Context(), a.release)
		require.NoError(t, err)
	})
}

// The clock of a bookmark is what a watch goes on from.
func TestBookmarksMoveTheWatchOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		var watches []*watch.RaceFreeFakeWatcher
		var versions []string
		l.client.PrependWatchReactor("pods", func(a k8stesting.Action) (bool, watch.Interface, error) {
			w := watch.NewRaceFreeFake()
			watches = append(watches, w)
			if a, ok := a.(k8stesting.WatchActionImpl); ok {
				versions = append(versions, a.ListOptions.ResourceVersion)
			}
			return true, w, nil
		})
		w := newWorld(l.cluster().hub)
		w.join(t.Context(), pods, ns, "")
		defer w.leave()
		synctest.Wait()
		watches[0].Action(watch.Bookmark, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "42"}})
		time.Sleep(2 * time.Second)
		watches[0].Stop()
		synctest.Wait()
		require.Len(t, versions, 2)
		assert.Equal(t, "42", versions[1])
		assert.Equal(t, 1, l.requests()["list pods in shop"], "nothing is listed again")
		assert.True(t, w.joined[0].status().synced)
	})
}

// A cancelled session leaves nothing running, also while the API server is silent.
func TestCancelWhileTheServerIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, ns, "shop")
		l := newLab(t, a.objects()...)
		l.client.PrependReactor("list", "*", func(k8stesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("connection refused")
		})
		v := l.verifier()
		wait := together(t, v, []app{a, newApp(t, ns, "blog")})
		time.Sleep(10 * time.Minute)
		for _, err := range wait() {
			require.ErrorIs(t, err, stages.ErrIndeterminate)
		}
		assert.Empty(t, v.cluster.hub.feeds)
	})
}

// Sessions come, are cancelled and go, and the cluster is closed meanwhile: each gets
// its verdict, and nothing is left.
func TestSessionsComeAndGo(t *testing.T) {
	a := newApp(t, ns, "shop")
	l := newLab(t, a.deployment, a.set, as(a.pod, ready(pinnedTo(digestA))))
	v := l.verifier()
	done := complete(a.deployment)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			for j := range 10 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration((i+j)%5)*time.Millisecond)
				_, err := v.Verify(ctx, a.release)
				if err != nil { // Late ones find the release done.
					assert.ErrorIs(t, err, context.DeadlineExceeded)
				}
				cancel()
				assert.NoError(t, v.cluster.Close())
			}
			_, err := v.Verify(t.Context(), a.release)
			assert.NoError(t, err)
		})
	}
	time.Sleep(50 * time.Millisecond)
	l.write(done)
	// The lab's watches may miss what changes while they are opened.
	over := make(chan struct{})
	go func() { wg.Wait(); close(over) }()
	for n := 0; ; n++ {
		select {
		case <-over:
			assert.Empty(t, v.cluster.hub.feeds)
			return
		case <-time.After(20 * time.Millisecond):
			done.Annotations["again"] = fmt.Sprint(n)
			l.write(done.DeepCopy())
		}
	}
}

// storm is a watch that a test feeds as fast as it is read.
type storm struct {
	in   chan watch.Event
	out  chan watch.Event
	over chan struct{}
	once sync.Once
}

func newStorm() *storm {
	s := &storm{in: make(chan watch.Event), out: make(chan watch.Event), over: make(chan struct{})}
	go func() {
		defer close(s.out)
		for {
			select {
			case e := <-s.in:
				select {
				case s.out <- e:
				case <-s.over:
					return
				}
			case <-s.over:
				return
			}
		}
	}()
	return s
}

func (s *storm) Stop()                          { s.once.Do(func() { close(s.over) }) }
func (s *storm) ResultChan() <-chan watch.Event { return s.out }

func (s *storm) modify(o runtime.Object) {
	select {
	case s.in <- watch.Event{Type: watch.Modified, Object: o}:
	case <-s.over:
	}
}

// stormy makes the lab's watch of pods a storm.
func (l *lab) stormy() *storm {
	s := newStorm()
	l.client.PrependWatchReactor("pods", func(k8stesting.Action) (bool, watch.Interface, error) { return true, s, nil })
	return s
}

// The decisive fact comes amid a storm: the verdict still follows within a second.
func TestVerdictWithinASecondOfTheFact(t *testing.T) {
	a := newApp(t, ns, "shop")
	l := newLab(t, a.objects()...)
	pods := l.stormy()
	v := l.verifier()
	verdict := make(chan time.Time, 1)
	go func() {
		_, err := v.Verify(t.Context(), a.release)
		assert.ErrorContains(t, err, "shop-2-x")
		verdict <- time.Now()
	}()
	var fact time.Time
	for i := range 3000 {
		p := as(podOf(a.set, "ReplicaSet", fmt.Sprintf("shop-2-%03d", i%1000), a.deployment.Spec.Template), running(pinnedTo(digestA)))
		pods.modify(p)
		if i == 2000 {
			pods.modify(as(a.pod, waiting("ErrImagePull", "manifest unknown: not found")))
			fact = time.Now()
		}
	}
	assert.Less(t, (<-verdict).Sub(fact), time.Second)
}
