package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/stages"
)

// finding is one reason why a workload is not rolled out yet.
type finding struct {
	cause   Cause
	reason  string // as Kubernetes names it
	message string
	subject subject
	// released is the object of the release that it is about, template what its pods
	// are made of; nil where that isn't known.
	released stages.Object
	template *corev1.PodSpec
	pod      *corev1.Pod // nil where it is about no pod
	// container and role ("container", "init container", "sidecar") say where.
	container  string
	role       string
	exit       *corev1.ContainerStateTerminated
	probe      *Probe
	scheduling *Scheduling
	restarts   int32
	count      int // occurrences so far, for rules that count
	// shared says that count is of all pods that stand in for each other.
	shared bool
	// relapse is of a container that runs again, which keeps nothing from being done.
	relapse bool
	// postponed says that time doesn't count against it now.
	postponed bool
	// past says that it is of before what counts, so that it decides nothing.
	past bool
	// judgedAs is the cause by whose rule it is judged, if not by its own.
	judgedAs Cause
	// excusable says that it may come of another workload's not being there yet.
	excusable bool
}

// key identifies the finding from one look to the next.
func (f finding) key() string {
	return strings.Join([]string{f.subject.kind, f.subject.namespace, f.subject.name, string(f.subject.uid), f.container, string(f.cause)}, "\x00")
}

// inspector looks at pods.
type inspector struct {
	world    *world
	image    stages.Image
	strict   bool
	settle   time.Duration
	toEnd    bool      // a bare pod is done when it has succeeded
	spare    bool      // as many pods may be missing as the workload itself allows
	drain    bool      // pods that have been replaced are counted as long as they run
	deployed time.Time // when the release was, or began to be; zero if that isn't known
	// ready remembers when a pod was first seen ready, by pod and restarts.
	ready map[readyKey]time.Time
	// history are the pods that had failed, and the jobs that had ended, before the
	// first look.
	history map[types.UID]bool
	// unwells remembers when a liveness probe was first seen to fail, by pod and
	// restarts.
	unwells map[readyKey]time.Time
	// doubt bounds how long such a pod is held up.
	doubt time.Duration
	// restarts are how often containers had been restarted then.
	restarts map[containerKey]int32
	// ends are how often containers had ended before it counts.
	ends map[containerKey]pastEnds
	// failures are the pods that failed while we looked, by the place that a new
	// pod takes: the owner, and the pod's name or node where that matters.
	failures map[string]map[types.UID]bool
	// held is whose quota is used by pods on their way out, by the workload that is
	// refused pods.
	held map[stages.Object]*holding
	// trials are what the pods of each job came to.
	trials map[types.UID]*trials
	// completed remembers jobs that may be deleted as soon as they are done.
	completed map[stages.Object]assessment
}

func newInspector(w *world, img stages.Image, s settings) *inspector {
	return &inspector{
		world: w, image: img, strict: s.StrictImageID, settle: s.Settle, toEnd: s.Completion, spare: s.AllowUnavailable, drain: s.drain,
		ready: map[readyKey]time.Time{}, history: map[types.UID]bool{}, unwells: map[readyKey]time.Time{},
		restarts: map[containerKey]int32{}, ends: map[containerKey]pastEnds{}, failures: map[string]map[types.UID]bool{},
		held: map[stages.Object]*holding{}, trials: map[types.UID]*trials{}, completed: map[stages.Object]assessment{},
		doubt: min(maxDoubt, s.Timeout/2),
	}
}

type readyKey struct {
	pod      string
	restarts int32
}

type containerKey struct {
	pod  types.UID
	name string
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
	if over(pod) {
		l.findings = in.failed(pod, crashes)
		return l
	}
	l.findings = append(l.findings, in.containers(pod, crashes && !disrupted(pod))...)
	l.findings = append(l.findings, in.images(pod, &l)...)
	if f, ok := in.scheduling(pod); ok {
		l.findings = append(l.findings, f)
	}
	switch {
	case len(l.findings) > 0:
	case !condition(pod, corev1.PodReady):
		l.findings = append(l.findings, in.waiting(pod))
	default:
		l.recheck = later(in.settled(pod, now), in.unwell(pod, now))
		l.ready = l.recheck.IsZero()
	}
	if crashes && !disrupted(pod) {
		l.findings = append(l.findings, in.relapses(pod, now)...)
	}
	return l
}

// over reports whether a pod as a whole has ended although it should not have. A
// controller's pod that should run for ever is said to have succeeded if it was ended
// from outside, by an eviction for one, and its program obeyed.
func over(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded &&
		pod.Spec.RestartPolicy == corev1.RestartPolicyAlways && metav1.GetControllerOf(pod) != nil
}

// failed says why a pod as a whole has ended.
func (in *inspector) failed(pod *corev1.Pod, crashes bool) []finding {
	reason, message := in.ending(pod)
	f := finding{cause: ending(reason, message), reason: reason, message: message, subject: podSubject(pod), pod: pod}
	switch {
	case !crashes:
		return in.hopeless(pod)
	case in.history[pod.UID]:
		return nil
	}
	place, shared := placeOf(pod)
	if in.failures[place] == nil {
		in.failures[place] = map[types.UID]bool{}
	}
	in.failures[place][pod.UID] = true
	f.count, f.shared = len(in.failures[place]), shared
	if f.cause != PodFailed {
		return []finding{f} // it was ended from outside; how its containers ended is no news
	}
	return append(in.containers(pod, crashes), f)
}

// ending returns why a pod as a whole has ended.
func (in *inspector) ending(pod *corev1.Pod) (reason, message string) {
	reason, message = in.endedFor(pod)
	if c := disruption(pod); c != nil && reason == "" {
		reason, message = c.Reason, c.Message
	}
	return orElse(reason, string(pod.Status.Phase)), message
}

// placeOf names what a new pod takes the place of: a StatefulSet's has the same
// name, a DaemonSet's the same node, and a ReplicaSet's is any of them.
func placeOf(pod *corev1.Pod) (place string, shared bool) {
	ref := metav1.GetControllerOf(pod)
	switch {
	case ref == nil:
		return string(pod.UID), false
	case ref.Kind == "StatefulSet":
		return string(ref.UID) + "/" + pod.Name, false
	case ref.Kind == "DaemonSet":
		return string(ref.UID) + "/" + pod.Spec.NodeName, false
	}
	return string(ref.UID), true
}

// disruption returns the condition of a pod that is being ended from outside: by
// an eviction, a drain, a taint, a preemption.
func disruption(pod *corev1.Pod) *corev1.PodCondition {
	for i, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

func disrupted(pod *corev1.Pod) bool { return disruption(pod) != nil }

// settled returns when a pod that is ready may be believed, or zero for now.
// Without a readiness probe, ready only says that the process was started.
func (in *inspector) settled(pod *corev1.Pod, now time.Time) time.Time {
	if in.settle <= 0 || probed(pod) {
		return time.Time{}
	}
	key := readyKey{pod: string(pod.UID)}
	started := time.Time{}
	for _, s := range allStatuses(pod) { // sidecars are among the init containers
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

// probed reports whether all that keeps running in a pod has a readiness probe.
func probed(pod *corev1.Pod) bool {
	unprobed := func(c corev1.Container) bool { return c.ReadinessProbe == nil }
	return len(pod.Spec.Containers) > 0 && !slices.ContainsFunc(pod.Spec.Containers, unprobed) &&
		!slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return isSidecar(c) && unprobed(c) })
}

func isSidecar(c corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
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
		f := finding{subject: podSubject(pod), pod: pod, container: s.Name, role: roleOf(pod, i, s.Name)}
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

func condition(pod *corev1.Pod, t corev1.PodConditionType) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// readySince returns when a pod that is ready became so.
func readySince(pod *corev1.Pod) time.Time {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

// roleOf says what kind of container the i-th of allStatuses is.
func roleOf(pod *corev1.Pod, i int, name string) string {
	if i >= len(pod.Status.InitContainerStatuses) {
		return "container"
	}
	for _, c := range pod.Spec.InitContainers {
		if c.Name == name && isSidecar(c) {
			return sidecar
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
