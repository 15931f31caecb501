package rollout

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

func leavingNow(p *corev1.Pod) {
	now := metav1.Now()
	p.DeletionTimestamp, p.Finalizers = &now, []string{"test/kept"}
}

// A release that was restored is proven when what it replaces has ended, or takes
// too long to.
func TestRestoredWaitsForWhatItReplaces(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"being deleted":  leavingNow,
		"yet to be told": func(*corev1.Pod) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, old, updated, oldPod, newPod := upgrade()
				l := newLab(t, complete(d), old, updated, as(oldPod, change), as(newPod, ready(pinnedTo(digestA))))
				require.True(t, l.start(t.Context(), release(t)).over(), "a new release doesn't wait")

				r := l.begin(t.Context(), release(t), (*Verifier).VerifyRestored)
				time.Sleep(10 * time.Second)
				require.False(t, r.over())
				assert.Contains(t, r.progress, "waiting for 1 pods that were replaced to end")
				l.remove(oldPod)
				require.True(t, r.over())
				require.NoError(t, r.err)
				assert.NotContains(t, r.result.Checks[0].Message, "replaced")

				l.put(as(oldPod, change))
				r = l.begin(t.Context(), release(t), (*Verifier).VerifyRestored)
				time.Sleep(drainTime - time.Second)
				require.False(t, r.over())
				time.Sleep(time.Second)
				require.True(t, r.over(), "that one of them doesn't end is no failure")
				require.NoError(t, r.err)
				assert.Contains(t, r.result.Checks[0].Message, "; pods that were replaced and take long to end: 1")
			})
		})
	}
}

func TestLingering(t *testing.T) {
	pod := func(name string, change func(*corev1.Pod)) *corev1.Pod {
		return as(podOf(nil, "", name, podTemplate(pinnedTo(digestA))), change)
	}
	none := func(*corev1.Pod) {}
	mine, other, leaving := pod("mine", none), pod("other", none), pod("leaving", leavingNow)
	gone := pod("gone", func(p *corev1.Pod) { leavingNow(p); p.Status.Phase = corev1.PodFailed })
	evicted := pod("evicted", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
	all := []*corev1.Pod{mine, other, leaving, gone, evicted}
	assert.Equal(t, 2, lingering("Deployment", all[:1], all))
	assert.Equal(t, 2, lingering("DaemonSet", all[:1], all))
	assert.Equal(t, 1, lingering("StatefulSet", all[:1], all), "below its partition, pods stay")
	assert.Zero(t, lingering("Deployment", all[:1], all[:1]))
}

func TestRestoredReleaseMayNameNoImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, updated, _, newPod := upgrade()
		l := newLab(t, complete(d), updated, as(newPod, ready(pinnedTo(digestB))))
		rel := release(t)
		rel.Image = stages.Image{}
		r := l.begin(t.Context(), rel, (*Verifier).VerifyRestored)
		require.True(t, r.over())
		require.NoError(t, r.err)
		assert.True(t, r.result.Image.IsZero())
		assert.Equal(t, "1 of 1 ready", r.result.Checks[0].Message)

		r = l.start(t.Context(), rel)
		require.True(t, r.over())
		require.ErrorIs(t, r.err, stages.ErrInvalid)
	})
}

// What the time of a rollback leaves is used up to the evidence.
func TestRestoredTellsWhatIsMissingBeforeTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, old, updated, oldPod, newPod := upgrade()
		l := newLab(t, d, old, updated, oldPod, newPod)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		f := l.begin(ctx, release(t), (*Verifier).VerifyRestored).failure(t)
		require.NoError(t, ctx.Err(), "the verdict comes before the deadline")
		assert.Equal(t, TimedOut, f.Cause)
		assert.Contains(t, f.Error(), "not rolled out within 19.25s")
	})
}
