package rollout

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// ProbeKind is which of a container's probes.
type ProbeKind string

// The kinds of probes.
const (
	ProbeStartup   ProbeKind = "startup"
	ProbeLiveness  ProbeKind = "liveness"
	ProbeReadiness ProbeKind = "readiness"
)

// Probe is a probe that failed.
type Probe struct {
	Kind ProbeKind `json:"kind"`
	// Target is what was asked, such as "GET http://:8080/healthz" or "exec test -f
	// /tmp/ready".
	Target string `json:"target,omitempty"`
	// Response is what came back, such as "HTTP probe failed with statuscode: 503".
	Response string `json:"response"`
}

// unhealthy is how the kubelet words a failed probe.
var unhealthy = regexp.MustCompile(`(?s)^(Startup|Liveness|Readiness) probe (?:failed|errored(?: and resulted in \w+ state)?): ?(.*)`)

// parseProbe reads the message of an event Unhealthy.
func parseProbe(message string) (Probe, bool) {
	match := unhealthy.FindStringSubmatch(message)
	if match == nil {
		return Probe{}, false
	}
	return Probe{Kind: ProbeKind(strings.ToLower(match[1])), Response: strings.TrimSpace(match[2])}, true
}

var killing = regexp.MustCompile(`^(?:Init c|C)ontainer \S+ failed (startup|liveness) probe`)

// probeKilling returns for which probe an event Killing says that a container is
// killed; empty for none.
func probeKilling(message string) string {
	if match := killing.FindStringSubmatch(message); match != nil {
		return match[1]
	}
	return ""
}

// eventAbout returns the last event with a reason about a container and, unless
// t is nil, about the run that ended with t.
func (in *inspector) eventAbout(pod *corev1.Pod, container string, t *corev1.ContainerStateTerminated, reason string) *corev1.Event {
	all := in.world.events.of(pod.UID)
	for i := len(all) - 1; i >= 0; i-- {
		e := all[i]
		if e.Reason != reason || !concerns(e, container) {
			continue
		}
		// Both times are the node's, in whole seconds.
		if t != nil && t.StartedAt.Unix() > 0 && eventTime(e).Before(t.StartedAt.Add(-time.Second)) {
			continue
		}
		return e
	}
	return nil
}

// concerns reports whether an event is about a container: its field path is such
// as spec.containers{app}.
func concerns(e *corev1.Event, container string) bool {
	path := e.InvolvedObject.FieldPath
	if path == "" {
		return !strings.HasPrefix(e.Message, "Container ") || strings.HasPrefix(e.Message, "Container "+container+" ")
	}
	return strings.HasSuffix(path, "{"+container+"}")
}

// lastProbe returns the last failed probe of a container, of the run that ended
// with t unless t is nil.
func (in *inspector) lastProbe(pod *corev1.Pod, container string, t *corev1.ContainerStateTerminated) (Probe, bool) {
	e := in.eventAbout(pod, container, t, "Unhealthy")
	if e == nil {
		return Probe{}, false
	}
	p, ok := parseProbe(e.Message)
	if c := containerOf(&pod.Spec, container); c != nil {
		p.Target = probeTarget(probeOf(c, p.Kind))
	}
	return p, ok
}

// unwell returns until when a pod that is ready is not to be believed, or zero
// for now: a liveness probe fails, and it takes a few more failures until the
// kubelet ends the container; or an event says that a container has failed. That is
// waited for once in each of its runs, so that a probe that only fails now and then
// holds nothing up for good.
func (in *inspector) unwell(pod *corev1.Pod, now time.Time) time.Time {
	var until time.Time
	for _, s := range allStatuses(pod) {
		if s.State.Running == nil {
			continue
		}
		doubted := min(max(in.doubtedByProbe(pod, s, now), in.doubtedByEvent(pod, s)), in.doubt)
		if doubted == 0 {
			continue
		}
		key := readyKey{pod: string(pod.UID) + "/" + s.Name, restarts: s.RestartCount}
		first, seen := in.unwells[key]
		if !seen {
			first = now
			in.unwells[key] = now
		}
		if end := first.Add(doubted); end.After(now) {
			until = later(until, end)
		}
	}
	return until
}

// doubtedByProbe returns for how long a running container is in doubt because its
// liveness probe has failed.
func (in *inspector) doubtedByProbe(pod *corev1.Pod, s corev1.ContainerStatus, now time.Time) time.Duration {
	c := containerOf(&pod.Spec, s.Name)
	if c == nil || c.LivenessProbe == nil {
		return 0
	}
	e := in.eventAbout(pod, s.Name, &corev1.ContainerStateTerminated{StartedAt: s.State.Running.StartedAt}, "Unhealthy")
	if e == nil || !strings.HasPrefix(e.Message, "Liveness ") {
		return 0
	}
	period, threshold := int64(max(c.LivenessProbe.PeriodSeconds, 1)), int64(max(c.LivenessProbe.FailureThreshold, 1))
	patience := time.Duration(min(period*threshold, int64(time.Hour/time.Second)))*time.Second + killDelay
	if now.Sub(eventTime(e)) > patience+time.Minute { // whatever the nodes' clocks say
		return 0
	}
	return patience
}

// doubtedByEvent returns for how long a container is in doubt that its kubelet, by an
// event, has said to have failed, or to be made anew, since the start that it reports:
// under load, a pod's status comes seconds later than the events about it.
func (in *inspector) doubtedByEvent(pod *corev1.Pod, s corev1.ContainerStatus) time.Duration {
	for reason, part := range map[string]string{"BackOff": "restarting failed container", "Killing": "will be restarted", "Created": ""} {
		e := in.eventAbout(pod, s.Name, nil, reason)
		if e != nil && strings.Contains(e.Message, part) && eventTime(e).After(s.State.Running.StartedAt.Time) {
			return statusDelay
		}
	}
	return 0
}

// maxDoubt is for how long a pod that is ready is held up at most. What becomes of a
// probe with a long period would only be known long after the rollout.
const maxDoubt = time.Minute

// statusDelay is how long a kubelet may take to report what it has told by an event.
const statusDelay = 30 * time.Second

// killDelay is how long it may take from the last failure of a probe until the
// container's restart is to be seen.
const killDelay = 3 * time.Second

// later returns the later of two times, of which either may be zero.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func containerOf(spec *corev1.PodSpec, name string) *corev1.Container {
	for _, all := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range all {
			if all[i].Name == name {
				return &all[i]
			}
		}
	}
	return nil
}

func probeOf(c *corev1.Container, kind ProbeKind) *corev1.Probe {
	switch kind {
	case ProbeStartup:
		return c.StartupProbe
	case ProbeLiveness:
		return c.LivenessProbe
	case ProbeReadiness:
		return c.ReadinessProbe
	}
	return nil
}

// probeTarget says what a probe asks.
func probeTarget(p *corev1.Probe) string {
	switch {
	case p == nil:
		return ""
	case p.HTTPGet != nil:
		g := p.HTTPGet
		return fmt.Sprintf("GET %s://%s:%s/%s", strings.ToLower(orElse(string(g.Scheme), "http")), g.Host, g.Port.String(), strings.TrimPrefix(g.Path, "/"))
	case p.TCPSocket != nil:
		return fmt.Sprintf("tcp %s:%s", p.TCPSocket.Host, p.TCPSocket.Port.String())
	case p.GRPC != nil:
		service := ""
		if p.GRPC.Service != nil && *p.GRPC.Service != "" {
			service = "/" + *p.GRPC.Service
		}
		return fmt.Sprintf("grpc :%d%s", p.GRPC.Port, service)
	case p.Exec != nil:
		return "exec " + strings.Join(p.Exec.Command, " ")
	}
	return ""
}
