package rollout

import (
	"strings"
	"time"

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
	if in.initialising(&f, pod) {
		return f
	}
	if !condition(pod, corev1.PodReadyToStartContainers) {
		in.preparing(&f, pod)
	}
	return f
}

// initRunning is the reason of a finding about an init container that runs, for which
// Kubernetes has none: it only says that the others are PodInitializing.
const initRunning = "InitContainerRunning"

// initialising says which init container, or which sidecar that has not started yet, the
// others wait for; false if none runs.
func (in *inspector) initialising(f *finding, pod *corev1.Pod) bool {
	for i, s := range pod.Status.InitContainerStatuses {
		role := roleOf(pod, i, s.Name)
		switch {
		case s.State.Running == nil:
		case role == sidecar && s.Started != nil && !*s.Started:
			in.unreadyContainer(f, pod, s, role)
			f.message = "running, but not started: " + s.Name + f.probed()
			return true
		case role == initContainer:
			f.reason, f.container, f.role, f.restarts = initRunning, s.Name, role, s.RestartCount
			f.message = "it has not ended since " + s.State.Running.StartedAt.UTC().Format(time.RFC3339)
			return true
		}
	}
	return false
}

// notReady says which container of a pod that runs is not ready, and what its
// probe was answered.
func (in *inspector) notReady(f *finding, pod *corev1.Pod) {
	names := unready(pod)
	for i, s := range allStatuses(pod) {
		if len(names) > 0 && s.Name == names[0] {
			in.unreadyContainer(f, pod, s, roleOf(pod, i, s.Name))
			f.message = "running, but not ready: " + strings.Join(names, ", ") + f.probed()
			return
		}
	}
	f.cause, f.reason, f.message = GateClosed, string(GateClosed), closedGates(pod)
}

func (in *inspector) unreadyContainer(f *finding, pod *corev1.Pod, s corev1.ContainerStatus, role string) {
	f.cause, f.reason, f.container, f.role, f.restarts = NotReady, string(NotReady), s.Name, role, s.RestartCount
	if p, found := in.lastProbe(pod, s.Name, nil); found {
		f.probe = &p
	}
}

// probed says what the container's probe was answered.
func (f finding) probed() string {
	if f.probe == nil {
		return ""
	}
	return "; last probe: " + string(f.probe.Kind) + " " + f.probe.Target + ": " + f.probe.Response
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

// unready returns the containers, and then the sidecars, that are not ready.
func unready(pod *corev1.Pod) []string {
	var out []string
	for _, s := range pod.Status.ContainerStatuses {
		if !s.Ready {
			out = append(out, s.Name)
		}
	}
	for i, s := range pod.Status.InitContainerStatuses {
		if !s.Ready && roleOf(pod, i, s.Name) == sidecar {
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
