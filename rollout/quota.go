package rollout

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// maxRetry bounds the wait for a controller that tries again to create pods.
const maxRetry = 2 * time.Minute

// holding is since when a quota that a workload needs is used by pods on their way out,
// and since when by none of them any more.
type holding struct {
	since, freed time.Time
	// bound is when those that were there at first are gone and the controller has tried
	// again. In a busy namespace there are always others.
	bound time.Time
	// pods is how many the workload has got so far.
	pods int
}

// retried is when a controller that was refused pods all the time has tried again: its
// pauses double, so that the next is about as long as it has waited already.
func (h *holding) retried() time.Time { return h.after(h.freed) }

func (h *holding) after(freed time.Time) time.Time {
	return freed.Add(min(freed.Sub(h.since), maxRetry))
}

// awaitQuota stops the clock for pods that are refused for a quota of which pods on their
// way out, whosever they are, use a part, and until the controller has tried again.
func (in *inspector) awaitQuota(a *assessment, now time.Time) {
	refused := false
	for i := range a.findings {
		f := &a.findings[i]
		if f.cause != QuotaExceeded || !strings.Contains(f.message, "exceeded quota") {
			continue
		}
		refused = true
		if until := in.quotaFree(a.object, f.subject, now); until.After(now) {
			f.postponed = true
			a.recheck = sooner(a.recheck, until)
		}
	}
	if !refused {
		delete(in.held, a.object)
	}
}

// quotaFree returns until when the quota that a workload needs for the pods of owner may
// become free by itself.
func (in *inspector) quotaFree(workload stages.Object, owner subject, now time.Time) time.Time {
	var until time.Time
	for _, p := range allIn[*corev1.Pod](in.world, pods.name, owner.namespace) {
		until = later(until, usesQuotaUntil(p))
	}
	h, got := in.held[workload], len(ownedBy[*corev1.Pod](in.world, pods.name, owner.uid))
	if h == nil || got > h.pods {
		h = &holding{pods: got}
		in.held[workload] = h
	}
	leaving := until.After(now)
	switch {
	case !leaving && h.since.IsZero():
		return time.Time{}
	case !leaving && h.freed.IsZero():
		h.freed = now
	case leaving && h.since.IsZero():
		h.since = now
		h.bound = h.after(until)
	case leaving:
		h.freed = time.Time{}
	}
	if !leaving {
		until = h.retried()
	}
	return sooner(until, h.bound)
}

// usesQuotaUntil returns for how long a pod on its way out counts against a quota: to the
// end of its containers, or for another grace period after it should be gone; zero for
// one that doesn't leave.
func usesQuotaUntil(p *corev1.Pod) time.Time {
	if p.DeletionTimestamp == nil || hasEnded(p) {
		return time.Time{}
	}
	grace := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if p.DeletionGracePeriodSeconds != nil {
		grace = *p.DeletionGracePeriodSeconds
	}
	return p.DeletionTimestamp.Add(time.Duration(grace) * time.Second)
}
