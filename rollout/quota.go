package rollout

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// maxRetry bounds the wait for a controller that tries again to create pods.
const maxRetry = 2 * time.Minute

// holding is since when a quota that a workload needs is used by pods on their way out,
// and since when by none of them any more.
type holding struct{ since, freed time.Time }

// retried is when a controller that was refused pods all the time has tried again: its
// pauses double, so that the next is about as long as it has waited already.
func (h holding) retried() time.Time { return h.freed.Add(min(h.freed.Sub(h.since), maxRetry)) }

// awaitQuota stops the clock for pods that are refused for a quota of which pods on their
// way out, whosever they are, use a part, and until the controller has tried again.
func (in *inspector) awaitQuota(a *assessment, now time.Time) {
	for i := range a.findings {
		f := &a.findings[i]
		if f.cause != QuotaExceeded || !strings.Contains(f.message, "exceeded quota") {
			continue
		}
		if until := in.quotaFree(f.subject.namespace, now); until.After(now) {
			f.postponed = true
			a.recheck = sooner(a.recheck, until)
		}
	}
}

// quotaFree returns until when a namespace's quota may become free by itself.
func (in *inspector) quotaFree(namespace string, now time.Time) time.Time {
	var until time.Time
	for _, p := range allIn[*corev1.Pod](in.world, pods.name, namespace) {
		until = later(until, usesQuotaUntil(p))
	}
	h := in.held[namespace]
	switch {
	case until.After(now):
		if h.since.IsZero() || !h.freed.IsZero() && now.After(h.retried()) {
			h.since = now
		}
		h.freed = time.Time{}
		in.held[namespace] = h
		return until
	case h.since.IsZero():
		return time.Time{}
	case h.freed.IsZero():
		h.freed = now
		in.held[namespace] = h
	}
	return h.retried()
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
