package rollout

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

func TestStatefulSetReportsRefusedPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set"},
			Spec:       appsv1.StatefulSetSpec{Template: podTemplate(pinnedTo(digestA))},
		}
		l := newLab(t, set, event(set, "StatefulSet", "FailedCreate", "exceeded quota, long ago"))
		r := l.start(t.Context(), release(t, stages.Object{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "shop"}))
		time.Sleep(time.Minute)
		require.False(t, r.over(), "an event from before decides nothing")
		l.put(event(set, "StatefulSet", "FailedCreate", "exceeded quota: compute"))
		f := r.failure(t)
		assert.Equal(t, QuotaExceeded, f.Cause)
		assert.Equal(t, "StatefulSet shop/shop", f.Decisive.Subject)
	})
}

// An object that was never changed has no earlier revision that an event could be about.
func TestARefusalBeforeTheFirstLookCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Generation: 1},
			Spec:       appsv1.StatefulSetSpec{Template: podTemplate(pinnedTo(digestA))},
			Status:     appsv1.StatefulSetStatus{ObservedGeneration: 1},
		}
		l := newLab(t, set, event(set, "StatefulSet", "FailedCreate", "exceeded quota: compute"))
		f := l.start(t.Context(), release(t, stages.Object{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "shop"})).failure(t)
		assert.Equal(t, QuotaExceeded, f.Cause)
		assert.Equal(t, DefaultRule(QuotaExceeded).After, f.Elapsed)
	})
}

// A pod on its way out takes as much of the quota as the one that is to replace it. The
// controller waits longer and longer before it tries again.
func TestAQuotaIsExceededUntilPodsHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Generation: 2},
			Spec:       appsv1.StatefulSetSpec{Template: podTemplate(pinnedTo(digestA))},
			Status:     appsv1.StatefulSetStatus{ObservedGeneration: 2, UpdateRevision: "new"},
		}
		old := labelled(podOf(set, "StatefulSet", "shop-0", podTemplate(pinnedTo(digestB))), appsv1.ControllerRevisionHashLabelKey, "old")
		leavingNow(old)
		l := newLab(t, set, as(old, ready(pinnedTo(digestB))))
		r := l.start(t.Context(), release(t, stages.Object{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "shop"}))
		l.put(event(set, "StatefulSet", "FailedCreate", "exceeded quota: compute"))
		time.Sleep(30 * time.Second)
		l.put(as(old, running(pinnedTo(digestB))))
		l.remove(old)
		time.Sleep(25 * time.Second)
		require.False(t, r.over(), "the controller has not tried again yet")
		f := r.failure(t)
		assert.Equal(t, QuotaExceeded, f.Cause)
		assert.Less(t, f.Elapsed, 70*time.Second, "it is not waited for for ever")
	})
}

func TestARefusalIsOverOnceAPodIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		two := int32(2)
		set := &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Generation: 1},
			Spec:       appsv1.StatefulSetSpec{Replicas: &two, Template: podTemplate(pinnedTo(digestA))},
			Status:     appsv1.StatefulSetStatus{ObservedGeneration: 1, UpdateRevision: "new"},
		}
		l := newLab(t, set)
		r := l.start(t.Context(), release(t, stages.Object{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "shop"}))
		l.put(event(set, "StatefulSet", "FailedCreate", "failed calling webhook: no endpoints"))
		time.Sleep(2 * time.Second)
		pod := labelled(podOf(set, "StatefulSet", "shop-0", podTemplate(pinnedTo(digestA))), appsv1.ControllerRevisionHashLabelKey, "new")
		pod.CreationTimestamp = metav1.Now()
		l.put(as(pod, running(pinnedTo(digestA))))
		time.Sleep(2 * DefaultRule(WebhookFailed).After)
		require.False(t, r.over(), "it starts slowly, and the second pod waits for it: %v", r.err)
		l.put(event(set, "StatefulSet", "FailedCreate", "failed calling webhook: no endpoints again"))
		assert.Equal(t, WebhookFailed, r.failure(t).Cause)
	})
}
