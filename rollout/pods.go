package rollout

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// finding is one reason why a workload is not rolled out yet.
type finding struct {
	cause   Cause
	reason  string // as Kubernetes names it
	message string
	subject subject
	pod     *corev1.Pod // nil where it is about no pod
	// container and role ("container", "init container", "sidecar") say where.
	container string
	role      string
	exit      *corev1.ContainerStateTerminated
	restarts  int32
	count     int // occurrences so far, for rules that count
	// postponed says that time doesn't count against it now.
	postponed bool
}

// key identifies the finding from one look to the next.
func (f finding) key() string {
	return strings.Join([]string{f.subject.kind, f.subject.namespace, f.subject.name, string(f.subject.uid), f.container, string(f.cause)}, "\x00")
}

// inspector looks at pods.
type inspector struct {
	world  *world
	image  stages.Image
	strict bool
	settle time.Duration
	toEnd  bool // a bare pod is done when it has succeeded
	spare  bool // as many pods may be missing as the workload itself allows
	// ready remembers when a pod was first seen ready, by pod and restarts.
	ready map[readyKey]time.Time
	// completed remembers jobs that may be deleted as soon as they are done.
	completed map[stages.Object]assessment
}

type readyKey struct {
	pod      string
	restarts int32
}

// look is what a pod's status comes to.
type look struct {
	ready    bool
	recheck  time.Time // when to look again although nothing has changed; zero for never
	findings []finding
	proven   int // containers seen to run the image
	renamed  stages.Digest
}

// inspect looks at a pod of the revision being rolled out. Where crashes are
// somebody else's business (a job has its own limit), they are not reported.
func (in *inspector) inspect(pod *corev1.Pod, crashes bool, now time.Time) look {
	var l look
	l.findings = append(l.findings, in.containers(pod, crashes)...)
	l.findings = append(l.findings, in.images(pod, &l)...)
	if f, ok := in.scheduling(pod); ok {
		l.findings = append(l.findings, f)
	}
	if pod.Status.Phase == corev1.PodFailed {
		if !crashes {
			return l
		}
		l.findings = append(l.findings, finding{
			cause: PodFailed, reason: orElse(pod.Status.Reason, "Failed"), message: pod.Status.Message, subject: podSubject(pod), pod: pod,
		})
		return l
	}
	switch {
	case len(l.findings) > 0:
	case !condition(pod, corev1.PodReady):
		l.findings = append(l.findings, in.waiting(pod))
	default:
		l.recheck = in.settled(pod, now)
		l.ready = l.recheck.IsZero()
	}
	return l
}

// settled returns when a pod that is ready may be believed, or zero for now.
// Without a readiness probe, ready only says that the process was started.
func (in *inspector) settled(pod *corev1.Pod, now time.Time) time.Time {
	if in.settle <= 0 || probed(pod) {
		return time.Time{}
	}
	key := readyKey{pod: string(pod.UID)}
	started := time.Time{}
	for _, s := range pod.Status.ContainerStatuses {
		key.restarts += s.RestartCount
		if s.State.Running != nil && s.State.Running.StartedAt.After(started) {
			started = s.State.Running.StartedAt.Time
		}
	}
	// A minute covers any tolerable difference between the nodes' clocks and ours.
	if !started.IsZero() && now.Sub(started) > in.settle+time.Minute {
		return time.Time{}
	}
	first, seen := in.ready[key]
	if !seen {
		first = now
		in.ready[key] = now
	}
	if until := first.Add(in.settle); until.After(now) {
		return until
	}
	return time.Time{}
}

func probed(pod *corev1.Pod) bool {
	for _, c := range pod.Spec.Containers {
		if c.ReadinessProbe == nil {
			return false
		}
	}
	return len(pod.Spec.Containers) > 0
}

// containers classifies what each container's status says.
func (in *inspector) containers(pod *corev1.Pod, crashes bool) []finding {
	var out []finding
	for i, s := range allStatuses(pod) {
		f := finding{subject: podSubject(pod), pod: pod, container: s.Name, role: "container", restarts: s.RestartCount}
		if i < len(pod.Status.InitContainerStatuses) {
			f.role = initRole(pod, s.Name)
		}
		switch {
		case s.State.Waiting != nil:
			f.reason, f.message = s.State.Waiting.Reason, s.State.Waiting.Message
			cause, known := classify(waitingPatterns, f.reason, f.message)
			if !known {
				continue
			}
			f.cause = cause
			switch {
			case cause == Crash:
				in.crashed(&f, pod, s, s.LastTerminationState.Terminated)
			case cause == StartFailed:
				f.count = int(s.RestartCount) + 1
			default:
				f.count = in.world.pulls(pod, s.Name)
			}
		case s.State.Terminated != nil:
			t := s.State.Terminated
			if t.ExitCode == 0 && (f.role == "init container" || pod.Spec.RestartPolicy != corev1.RestartPolicyAlways) {
				continue
			}
			f.reason, f.message = t.Reason, t.Message
			in.crashed(&f, pod, s, t)
		default:
			continue
		}
		if !crashes && (f.cause == Crash || f.cause == OutOfMemory || f.cause == ProbeKilled) {
			continue
		}
		out = append(out, f)
	}
	return out
}

// longRun is how long a container must have run for its earlier ends to be
// forgotten; the kubelet resets its back-off after the same time.
const longRun = 10 * time.Minute

// crashed fills in what the end of a container's process says.
func (in *inspector) crashed(f *finding, pod *corev1.Pod, s corev1.ContainerStatus, t *corev1.ContainerStateTerminated) {
	f.cause, f.count = Crash, int(s.RestartCount)+1
	if t == nil {
		return
	}
	f.exit = t
	if ran, known := ranFor(t); known && ran >= longRun {
		f.count = 1
	}
	kill := in.world.events.last(pod.UID, "Killing")
	switch cause, known := classify(waitingPatterns, t.Reason, t.Message); {
	case t.Reason == "OOMKilled":
		f.cause, f.reason = OutOfMemory, t.Reason
	case known && cause != Crash:
		f.cause, f.reason = cause, t.Reason
	case kill != nil && strings.Contains(kill.Message, s.Name) && strings.Contains(kill.Message, "probe"):
		f.cause = ProbeKilled
	}
	if f.reason == "Error" && f.count > 1 {
		f.reason = "CrashLoopBackOff" // which the kubelet calls it a moment later
	}
	f.message = describeExit(t, f.count, pod.Spec.RestartPolicy == corev1.RestartPolicyAlways)
	if f.cause == ProbeKilled {
		if probe := in.world.events.last(pod.UID, "Unhealthy"); probe != nil {
			f.message += "; " + probe.Message
		}
	}
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
	case t.ExitCode > 128 && t.ExitCode < 128+65:
		fmt.Fprintf(&b, "exit code %d (signal %d)", t.ExitCode, t.ExitCode-128)
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

// images compares what the containers run with the image released.
func (in *inspector) images(pod *corev1.Pod, l *look) []finding {
	if in.image.IsZero() {
		return nil
	}
	var out []finding
	specs := specImages(pod)
	for i, s := range allStatuses(pod) {
		if s.State.Running == nil && s.State.Terminated == nil {
			continue
		}
		f := finding{subject: podSubject(pod), pod: pod, container: s.Name, role: "container"}
		if i < len(pod.Status.InitContainerStatuses) {
			f.role = initRole(pod, s.Name)
		}
		switch p, running := prove(in.image, specs[s.Name], s, in.strict); p {
		case proven:
			l.proven++
		case pinned:
			l.proven++
			l.renamed = running
		case unknown:
			f.cause, f.reason, f.message = Starting, "ImageIDPending", "the kubelet has not reported the image yet"
			out = append(out, f)
		case foreign:
			f.cause, f.reason = ImageMismatch, string(ImageMismatch)
			f.message = fmt.Sprintf("runs %s from %s, released was %s", orElse(running.String(), "an unknown digest"), specs[s.Name], in.image)
			out = append(out, f)
		}
	}
	return out
}

// scheduling reports that the scheduler found no node.
func (in *inspector) scheduling(pod *corev1.Pod) (finding, bool) {
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.PodScheduled || c.Status != corev1.ConditionFalse || c.Reason != corev1.PodReasonUnschedulable {
			continue
		}
		cause, _ := classify(schedulingPatterns, c.Reason, c.Message)
		return finding{
			cause: cause, reason: c.Reason, message: c.Message, subject: podSubject(pod), pod: pod,
			postponed: in.world.events.last(pod.UID, "TriggeredScaleUp") != nil,
		}, true
	}
	return finding{}, false
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
		f.cause, f.reason, f.message = NotReady, string(NotReady), notReadyMessage(pod)
		if e := in.world.events.last(pod.UID, "Unhealthy"); e != nil {
			f.message += "; last probe: " + e.Message
		}
		return f
	}
	// Only the latest event counts: the kubelet has come further after any other.
	if events := in.world.events.of(pod.UID); len(events) > 0 && !condition(pod, corev1.PodReadyToStartContainers) {
		e := events[len(events)-1]
		if cause, known := classify(eventPatterns, e.Reason, e.Message); known {
			f.cause, f.reason, f.message = cause, e.Reason, e.Message
		}
	}
	return f
}

func anyStarted(pod *corev1.Pod) bool {
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Running != nil {
			return true
		}
	}
	return false
}

func notReadyMessage(pod *corev1.Pod) string {
	var unready []string
	for _, s := range pod.Status.ContainerStatuses {
		if !s.Ready {
			unready = append(unready, s.Name)
		}
	}
	if len(unready) == 0 {
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady {
				return orElse(c.Message, "the pod's readiness gates are not met")
			}
		}
		return "the pod is not ready"
	}
	return "running, but not ready: " + strings.Join(unready, ", ")
}

func condition(pod *corev1.Pod, t corev1.PodConditionType) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func initRole(pod *corev1.Pod, name string) string {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == name && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			return "sidecar"
		}
	}
	return "init container"
}

func specImages(pod *corev1.Pod) map[string]string {
	images := map[string]string{}
	for _, c := range pod.Spec.InitContainers {
		images[c.Name] = c.Image
	}
	for _, c := range pod.Spec.Containers {
		images[c.Name] = c.Image
	}
	return images
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
