package rollout

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// deployTime is how long before a deployer was done it may have made a pod, if it
	// doesn't say when it began.
	deployTime = 10 * time.Second
	// clockSkew is the difference between its clock and the API server's, which tells
	// whole seconds.
	clockSkew = 2 * time.Second
)

// released returns when the release was deployed, as far as that is known, and since when
// pods that are made are its own.
func (s *session) released() (deployed, born time.Time) {
	deployed = s.deployed
	if deployed.IsZero() {
		deployed = s.began
	}
	if s.born.IsZero() {
		return deployed, deployed.Add(-deployTime)
	}
	return later(deployed, s.born), s.born.Add(-clockSkew)
}

// remember notes which pods had failed, which jobs had ended and how often containers had
// been restarted before the first look at a release, of which pods are since it was born: that
// says nothing about this rollout. It goes by all pods there are, for whose they are may
// only be seen later. Where the same deployment was looked at before, that says how often
// containers had been restarted.
func (in *inspector) remember(deployed, born time.Time, again bool) {
	for _, m := range in.world.feedsOf(pods.name) {
		m.mu.RLock()
		for name, o := range m.objects {
			if pod, ok := o.(*corev1.Pod); ok && name.Namespace == m.namespace {
				in.rememberPod(pod, deployed, born, again)
			}
		}
		m.mu.RUnlock()
	}
	for _, m := range in.world.feedsOf(jobs.name) {
		m.mu.RLock()
		for _, o := range m.objects {
			if job, ok := o.(*batchv1.Job); ok && isOver(job) {
				in.history[job.UID] = true
			}
		}
		m.mu.RUnlock()
	}
}

func (in *inspector) rememberPod(pod *corev1.Pod, deployed, born time.Time, again bool) {
	if over(pod) && metav1.GetControllerOf(pod) != nil {
		in.history[pod.UID] = true
	}
	if again {
		return
	}
	older := pod.CreationTimestamp.Time.Before(born)
	for _, s := range allStatuses(pod) {
		key := containerKey{pod.UID, s.Name}
		if s.RestartCount > 0 {
			in.restarts[key] = s.RestartCount
		}
		if older {
			in.ends[key] = pastEnds{endsBefore(s, deployed), "before the release"}
		}
	}
}

// endsBefore returns how often a container had ended before the release. Of the times of
// its ends, Kubernetes tells only the last.
func endsBefore(s corev1.ContainerStatus, deployed time.Time) int32 {
	ends := endsOf(s)
	if last := lastEnd(s); last != nil && last.FinishedAt.After(deployed) {
		ends--
	}
	return ends
}

// endsOf returns how often a container has ended.
func endsOf(s corev1.ContainerStatus) int32 {
	if s.State.Running == nil && lastEnd(s) != nil {
		return s.RestartCount + 1
	}
	return s.RestartCount
}

func lastEnd(s corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if s.State.Terminated != nil {
		return s.State.Terminated
	}
	return s.LastTerminationState.Terminated
}

// pastEnds are how often a container had ended before its ends count.
type pastEnds struct {
	n   int32
	why string
}

// endsSince returns how often a container that has ended did so since its ends count.
func (in *inspector) endsSince(pod *corev1.Pod, s corev1.ContainerStatus) int {
	return int(s.RestartCount + 1 - in.ends[containerKey{pod.UID, s.Name}].n)
}

// happened takes in how often something happened since it counts.
func happened(f *finding, times int) {
	f.count, f.past = max(times, 0), times < 1
	f.postponed = f.postponed || f.past
}
