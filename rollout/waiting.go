package rollout

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// scheduling reports that the scheduler found no node.
func (in *inspector) scheduling(pod *corev1.Pod) (finding, bool) {
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.PodScheduled || c.Status != corev1.ConditionFalse ||
			c.Reason != corev1.PodReasonUnschedulable && c.Reason != corev1.PodReasonSchedulingGated {
			continue
		}
		cause, _ := classify(schedulingPatterns, c.Reason, c.Message)
		f := finding{
			cause: cause, reason: c.Reason, message: c.Message, subject: podSubject(pod), pod: pod,
			postponed: pod.Status.NominatedNodeName != "" || in.nodeOnItsWay(pod),
		}
		if s, ok := parseScheduling(c.Message); ok {
			f.scheduling = &s
		}
		return f, true
	}
	return finding{}, false
}

// nodeOnItsWay reports whether an autoscaler, the cluster's own or Karpenter,
// said that it brings a node.
func (in *inspector) nodeOnItsWay(pod *corev1.Pod) bool {
	e := in.world.events.last(pod.UID, "TriggeredScaleUp", "NotTriggerScaleUp", "Nominated")
	return e != nil && e.Reason != "NotTriggerScaleUp"
}

// waiting says what a pod that is not ready, and not failing, is waiting for.
func (in *inspector) waiting(pod *corev1.Pod) finding {
	f := finding{cause: Starting, reason: string(pod.Status.Phase), subject: podSubject(pod), pod: pod}
	for i, s := range allStatuses(pod) {
		if s.State.Waiting == nil {
			continue
		}
		f.reason, f.message = orElse(s.State.Waiting.Reason, "Waiting"), s.State.Waiting.Message
		if i < len(pod.Status.InitContainerStatuses) {
			break // the others wait for it
		}
	}
	if anyStarted(pod) {
		in.notReady(&f, pod)
		return f
	}
	if !condition(pod, corev1.PodReadyToStartContainers) {
		in.preparing(&f, pod)
	}
	return f
}

// notReady says which container of a pod that runs is not ready, and what its
// probe was answered.
func (in *inspector) notReady(f *finding, pod *corev1.Pod) {
	f.cause, f.reason = NotReady, string(NotReady)
	container := firstUnready(pod)
	if container == "" {
		f.cause, f.reason, f.message = GateClosed, string(GateClosed), closedGates(pod)
		return
	}
	f.message = "running, but not ready: " + strings.Join(unready(pod), ", ")
	f.container, f.role = container, "container"
	for _, s := range pod.Status.ContainerStatuses {
		if s.Name == container {
			f.restarts = s.RestartCount
		}
	}
	if p, found := in.lastProbe(pod, container, nil); found {
		f.probe = &p
		f.message += "; last probe: " + string(p.Kind) + " " + p.Target + ": " + p.Response
	}
}

// preparing says what holds up a pod whose containers can't be made yet. Only
// the latest event counts: the kubelet has come further after any other.
func (in *inspector) preparing(f *finding, pod *corev1.Pod) {
	events := in.world.events.of(pod.UID)
	if len(events) == 0 {
		return
	}
	e := events[len(events)-1]
	cause, known := classify(eventPatterns, e.Reason, e.Message)
	if !known {
		return
	}
	if cause == VolumeMount {
		// That a mount timed out tells less than why the volume isn't attached.
		attach := in.world.events.last(pod.UID, "FailedAttachVolume", "SuccessfulAttachVolume")
		if attach != nil && attach.Reason == "FailedAttachVolume" {
			cause, e = VolumeAttach, attach
		}
	}
	f.cause, f.reason, f.message = cause, e.Reason, e.Message
}

func anyStarted(pod *corev1.Pod) bool {
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Running != nil {
			return true
		}
	}
	return false
}

func unready(pod *corev1.Pod) []string {
	var out []string
	for _, s := range pod.Status.ContainerStatuses {
		if !s.Ready {
			out = append(out, s.Name)
		}
	}
	return out
}

func firstUnready(pod *corev1.Pod) string {
	if all := unready(pod); len(all) > 0 {
		return all[0]
	}
	return ""
}

// closedGates says which readiness gates a pod still waits for, in the kubelet's
// own words where it has said it.
func closedGates(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Message != "" {
			return c.Message
		}
	}
	return "its containers are ready, but its readiness gates are not met"
}
