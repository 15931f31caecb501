package rollout

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	k8stesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/stages"
)

func TestCancelReturnsItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		l := newLab(t, d, old, updated, oldPod, newPod)
		stop := errors.New("somebody pressed stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		r := l.start(ctx, release(t))
		cancel(stop)
		require.True(t, r.over())
		require.ErrorIs(t, r.err, stop)
		assert.Contains(t, r.err.Error(), "0 of 1 ready")
		assert.False(t, stages.IsPermanent(r.err))
	})
}

func TestForbiddenNamesWhatToGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.client.PrependReactor("list", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
		})
		r := l.start(t.Context(), release(t))
		require.True(t, r.over())
		assert.True(t, stages.IsPermanent(r.err))
		assert.Contains(t, r.err.Error(), "grant the verbs list and watch on pods in namespace shop")
	})
}

// The right to list alone is no right to wait.
func TestForbiddenWatchIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		l := newLab(t, d, old, updated, oldPod, newPod)
		l.client.PrependWatchReactor("pods", func(k8stesting.Action) (bool, watch.Interface, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
		})
		r := l.start(t.Context(), release(t))
		require.True(t, r.over())
		assert.True(t, stages.IsPermanent(r.err))
		require.ErrorContains(t, r.err, "watch pods in namespace shop: pods is forbidden")
		require.ErrorContains(t, r.err, "grant the verbs list and watch on pods in namespace shop")
	})
}

func TestDoesWithoutEventsReplicaSetsAndLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, _, oldPod, newPod := upgrade()
		d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: "NewReplicaSetAvailable", Message: `ReplicaSet "shop-1" has successfully progressed.`}}
		l := newLab(t, d, as(oldPod, crashed(1, "Error", 5)), newPod)
		for _, name := range []string{"events", "replicasets"} {
			l.client.PrependReactor("list", name, func(k8stesting.Action) (bool, runtime.Object, error) {
				return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: name}, "", errors.New("no"))
			})
		}
		r := l.start(t.Context(), release(t))
		require.False(t, r.over(), "the condition is still about the old ReplicaSet: %v", r.err)
		d = d.DeepCopy()
		d.Status.Conditions[0].Reason, d.Status.Conditions[0].Message = "ReplicaSetUpdated", `ReplicaSet "shop-2" is progressing.`
		l.put(d)
		require.False(t, r.over())
		l.put(as(newPod, crashed(1, "Error", 1)))
		f := r.failure(t)
		assert.Equal(t, "pod shop/shop-2-x", f.Decisive.Subject)
		assert.Equal(t, []string{"ReplicaSet shop/shop-2", "Deployment shop/shop"}, f.Decisive.Owners)
		assert.Equal(t, []string{"(events unavailable: may not list events in namespace shop)"}, f.Decisive.Events)
	})
}

func TestUnreachableClusterIsIndeterminate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		l := newLab(t, d, old, updated, oldPod, as(newPod, waiting("CreateContainerConfigError", `secret "s" not found`)))
		l.config.Timeout = time.Minute
		gone := errors.New("dial tcp: connection refused")
		var down bool
		var watches []*watch.RaceFreeFakeWatcher
		l.client.PrependReactor("list", "*", func(k8stesting.Action) (bool, runtime.Object, error) { return down, nil, gone })
		l.client.PrependWatchReactor("*", func(k8stesting.Action) (bool, watch.Interface, error) {
			if down {
				return true, nil, gone
			}
			w := watch.NewRaceFreeFake()
			watches = append(watches, w)
			return true, w, nil
		})
		r := l.start(t.Context(), release(t))
		time.Sleep(2 * time.Second)
		down = true
		for _, w := range watches {
			w.Stop()
		}
		time.Sleep(30 * time.Second)
		require.False(t, r.over(), "what is out of date decides nothing")
		<-r.done
		require.ErrorIs(t, r.err, stages.ErrIndeterminate)
		require.ErrorIs(t, r.err, gone)
		assert.False(t, stages.IsPermanent(r.err))
		assert.Equal(t, time.Minute, r.elapsed)
	})
}

func TestExpiredWatchIsListedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		l := newLab(t, d, old, updated, oldPod, newPod)
		broken := true
		l.client.PrependWatchReactor("*", func(k8stesting.Action) (bool, watch.Interface, error) {
			if !broken {
				return false, nil, nil
			}
			w := watch.NewFakeWithChanSize(1, false)
			expired := apierrors.NewResourceExpired("too old resource version").Status()
			w.Error(&expired)
			return true, w, nil
		})
		r := l.start(t.Context(), release(t))
		l.put(as(newPod, ready(pinnedTo(digestA))), complete(d))
		time.Sleep(2 * time.Second)
		require.True(t, r.over(), "a new list brings what the watch missed")
		require.NoError(t, r.err)
	})
}

func TestRefusesBadInput(t *testing.T) {
	l := newLab(t)
	good := release(t)
	for name, rel := range map[string]stages.Release{
		"nothing":    {},
		"no image":   {Name: "shop", Namespace: ns, Objects: good.Objects},
		"no objects": {Image: good.Image, Name: "shop", Namespace: ns},
		"no name":    {Image: good.Image, Namespace: ns, Objects: good.Objects},
		"nameless":   {Image: good.Image, Name: "shop", Namespace: ns, Objects: []stages.Object{{Kind: "Pod"}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := l.verifier().Verify(t.Context(), rel)
			require.ErrorIs(t, err, stages.ErrInvalid)
		})
	}
}
