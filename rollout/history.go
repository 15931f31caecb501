package rollout

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deployTime is how long before a deployer was done it may have made a pod, give or take
// the difference between its clock and the API server's.
const deployTime = 10 * time.Second

// remember notes which pods had failed, which jobs had ended and how often containers had
// been restarted before the first look at a release that was deployed at some time: that
// says nothing about this rollout. It goes by all pods there are, for whose they are may
// only be seen later.
func (in *inspector) remember(deployed time.Time) {
	for _, m := range in.world.feedsOf(pods.name) {
		m.mu.RLock()
		for name, o := range m.objects {
			if pod, ok := o.(*corev1.Pod); ok && name.Namespace == m.namespace {
				in.rememberPod(pod, deployed)
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

func (in *inspector) rememberPod(pod *corev1.Pod, deployed time.Time) {
	if over(pod) && metav1.GetControllerOf(pod) != nil {
		in.history[pod.UID] = true
	}
	older := pod.CreationTimestamp.Time.Before(deployed.Add(-deployTime))
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
