package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	initContainer = "init container"
	sidecar       = "sidecar"
)

// containers classifies what each container's status says.
func (in *inspector) containers(pod *corev1.Pod, crashes bool) []finding {
	var out []finding
	for i, s := range allStatuses(pod) {
		f := finding{subject: podSubject(pod), pod: pod, container: s.Name, role: roleOf(pod, i, s.Name), restarts: s.RestartCount}
		switch {
		case s.State.Waiting != nil:
			if !in.waits(&f, pod, s) {
				continue
			}
		case s.State.Terminated != nil:
			t := s.State.Terminated
			if t.ExitCode == 0 && (f.role == initContainer || pod.Spec.RestartPolicy != corev1.RestartPolicyAlways) || endedWithPod(pod, f.role, t) {
				continue
			}
			f.reason, f.message = t.Reason, t.Message
			in.crashed(&f, pod, s, t, in.endsSince(pod, s))
		default:
			continue
		}
		if !crashes && crashCauses[f.cause] {
			continue
		}
		out = append(out, f)
	}
	return out
}

// endedWithPod reports whether a sidecar was ended because the pod's work is over: the
// kubelet asks it to when all other containers have ended for good, and how it obeys
// says nothing.
func endedWithPod(pod *corev1.Pod, role string, t *corev1.ContainerStateTerminated) bool {
	if role != sidecar || pod.Spec.RestartPolicy == corev1.RestartPolicyAlways || len(pod.Status.ContainerStatuses) == 0 {
		return false
	}
	return !slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.State.Terminated == nil || t.FinishedAt.Before(&s.State.Terminated.FinishedAt)
	})
}

// crashCauses are those that say that the program ended after it was started.
var crashCauses = map[Cause]bool{Crash: true, InitCrash: true, OutOfMemory: true, ProbeKilled: true, StartupKilled: true, HookFailed: true}

// waits classifies a container that waits, and reports whether that is more than
// a normal start.
func (in *inspector) waits(f *finding, pod *corev1.Pod, s corev1.ContainerStatus) bool {
	f.reason, f.message = s.State.Waiting.Reason, s.State.Waiting.Message
	message := f.message
	if c := containerOf(&pod.Spec, s.Name); c != nil {
		message = unnamed(message, c.Image)
	}
	cause, known := classify(waitingPatterns, f.reason, message)
	if !known {
		return false
	}
	f.cause = cause
	switch {
	case cause == Crash:
		in.crashed(f, pod, s, s.LastTerminationState.Terminated, in.endsSince(pod, s))
	case slices.Contains(pullReasons, f.reason):
		f.count = in.world.pulls(pod, s.Name)
	case slices.Contains(startReasons, f.reason):
		happened(f, in.endsSince(pod, s))
	default:
		f.count = int(s.RestartCount) + 1
	}
	return true
}

// unnamed returns a message without the name of the image that it is about, which may
// hold the very words that tell causes apart, such as "denied".
func unnamed(message, image string) string {
	const name = "the image"
	repository, _, _ := strings.Cut(image, "@")
	if slash := strings.LastIndexByte(repository, '/'); strings.Contains(repository[slash+1:], ":") {
		repository = repository[:strings.LastIndexByte(repository, ':')]
	}
	if repository != image {
		message = strings.ReplaceAll(message, image, name)
	}
	if strings.Contains(repository, "/") { // else it may be a mere word
		message = strings.ReplaceAll(message, repository, name)
	}
	return message
}

// longRun is how long a container must have run for its earlier ends to be
// forgotten; the kubelet resets its back-off after the same time.
const longRun = 10 * time.Minute

// relapses reports containers that run, but that ended while we looked. The
// kubelet may restart one at once, so that its end is never to be seen but in
// the number of its restarts. It doesn't keep the pod from being ready.
func (in *inspector) relapses(pod *corev1.Pod, now time.Time) []finding {
	var out []finding
	for i, s := range allStatuses(pod) {
		key := containerKey{pod.UID, s.Name}
		ends := int(s.RestartCount - max(in.restarts[key], in.ends[key].n))
		if s.State.Running == nil || s.LastTerminationState.Terminated == nil || ends < 1 {
			continue
		}
		f := finding{subject: podSubject(pod), pod: pod, container: s.Name, role: roleOf(pod, i, s.Name), restarts: s.RestartCount}
		f.reason = s.LastTerminationState.Terminated.Reason
		if now.Sub(s.State.Running.StartedAt.Time) >= longRun {
			ends = 1
		}
		in.crashed(&f, pod, s, s.LastTerminationState.Terminated, ends)
		f.relapse = true
		out = append(out, f)
	}
	return out
}

// crashed fills in what the end of a container's process says, the last of so
// many.
func (in *inspector) crashed(f *finding, pod *corev1.Pod, s corev1.ContainerStatus, t *corev1.ContainerStateTerminated, ends int) {
	f.cause = Crash
	happened(f, ends)
	if f.role == initContainer {
		f.cause = InitCrash
	}
	if t == nil {
		return
	}
	f.exit = t
	if ran, known := ranFor(t); known && ran >= longRun {
		f.count = min(f.count, 1)
	}
	switch cause, known := classify(waitingPatterns, t.Reason, t.Message); {
	case t.Reason == "OOMKilled":
		f.cause, f.reason = OutOfMemory, t.Reason
	case known && cause != Crash:
		f.cause, f.reason = cause, t.Reason
	default:
		in.killed(f, pod, s.Name, t)
	}
	if f.reason == "Error" && f.count > 1 {
		f.reason = "CrashLoopBackOff" // which the kubelet calls it a moment later
	}
	f.message = describeExit(t, f.count, pod.Spec.RestartPolicy == corev1.RestartPolicyAlways && f.role != initContainer)
	if f.past {
		f.message += ", " + in.ends[containerKey{pod.UID, s.Name}].why
	}
	if f.cause == OutOfMemory && t.Reason != "OOMKilled" && signalOf(t) == 9 {
		f.message += ", most likely out of memory: the kernel killed it, and nothing in the cluster had asked for that"
	}
	if f.probe != nil {
		f.message += fmt.Sprintf("; killed for its %s probe %s: %s", f.probe.Kind, f.probe.Target, f.probe.Response)
	}
}

// killed finds out whether the kubelet ended the process, for a probe or a hook, or
// the kernel. Of a process that the kernel kills for its use of memory, the runtime may
// hear that only after its end, which then is a mere "Error".
func (in *inspector) killed(f *finding, pod *corev1.Pod, container string, t *corev1.ContainerStateTerminated) {
	if e := in.eventAbout(pod, container, t, "FailedPostStartHook"); e != nil {
		f.cause, f.reason = HookFailed, e.Reason
		return
	}
	kind, killing := "", in.eventAbout(pod, container, t, "Killing")
	if killing != nil {
		kind = probeKilling(killing.Message)
	}
	if kind == "" && killedOrAsked(t) {
		// The event of the kill may come later than its effect; that of the probe
		// came before.
		if p, found := in.lastProbe(pod, container, t); found && p.Kind != ProbeReadiness {
			kind = string(p.Kind)
		}
	}
	switch ProbeKind(kind) {
	case ProbeStartup:
		f.cause = StartupKilled
	case ProbeLiveness:
		f.cause = ProbeKilled
	default:
		if signalOf(t) == 9 && killing == nil && pod.DeletionTimestamp == nil && limitsMemory(&pod.Spec, container) {
			f.cause = OutOfMemory
		}
		return
	}
	if p, found := in.lastProbe(pod, container, t); found && string(p.Kind) == kind {
		f.probe = &p
	}
}

// limitsMemory reports whether a container may use no more than so much memory.
func limitsMemory(spec *corev1.PodSpec, container string) bool {
	limited := func(r *corev1.ResourceRequirements) bool { return r != nil && r.Limits.Memory().Sign() > 0 }
	c := containerOf(spec, container)
	return limited(spec.Resources) || c != nil && limited(&c.Resources)
}

// killedOrAsked reports whether a process ended by SIGKILL or SIGTERM.
func killedOrAsked(t *corev1.ContainerStateTerminated) bool {
	signal := signalOf(t)
	return signal == 9 || signal == 15
}

// signalOf returns the signal that ended a process, or 0.
func signalOf(t *corev1.ContainerStateTerminated) int32 {
	switch {
	case t == nil:
		return 0
	case t.Signal != 0:
		return t.Signal
	case t.ExitCode > 128 && t.ExitCode < 128+65:
		return t.ExitCode - 128
	}
	return 0
}

// ranFor returns how long a process ran; one that could not be started has no
// start, or one in 1970.
func ranFor(t *corev1.ContainerStateTerminated) (time.Duration, bool) {
	ran := t.FinishedAt.Sub(t.StartedAt.Time)
	return ran, t.StartedAt.Unix() > 0 && ran >= 0
}

// describeExit says how a process ended.
func describeExit(t *corev1.ContainerStateTerminated, count int, restarted bool) string {
	var b strings.Builder
	switch {
	case t.Signal != 0:
		fmt.Fprintf(&b, "killed by signal %d", t.Signal)
	case signalOf(t) != 0:
		fmt.Fprintf(&b, "exit code %d (signal %d)", t.ExitCode, signalOf(t))
	default:
		fmt.Fprintf(&b, "exit code %d", t.ExitCode)
	}
	if t.ExitCode == 0 && restarted {
		b.WriteString(" although it should keep running")
	}
	switch ran, known := ranFor(t); {
	case !known:
	case ran < time.Second: // whole seconds are all that the API tells
		b.WriteString(" within a second")
	default:
		fmt.Fprintf(&b, " after %s", ran)
	}
	if count > 1 {
		fmt.Fprintf(&b, ", %d times", count)
	}
	if t.Reason == "OOMKilled" {
		b.WriteString(", out of memory")
	}
	if m := strings.TrimSpace(t.Message); m != "" {
		b.WriteString(": " + m)
	}
	return b.String()
}
