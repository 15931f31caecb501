package rollout

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
)

// templatePaths say where the pod's spec is in the manifest of each kind. In any
// other kind it is unknown.
var templatePaths = map[string]string{
	"Deployment": "spec.template.spec", "ReplicaSet": "spec.template.spec", "StatefulSet": "spec.template.spec",
	"DaemonSet": "spec.template.spec", "Job": "spec.template.spec", "CronJob": "spec.jobTemplate.spec.template.spec", "Pod": "spec",
	"ReplicationController": "spec.template.spec",
}

// field returns the path, in the manifest of the released object of a kind, of
// what is responsible for f; empty if that isn't known. Elements of lists that
// have names go by them, as in "spec.template.spec.containers[name=app].image".
func field(kind string, f finding, spec *corev1.PodSpec) string {
	if own := objectField(kind, f); own != "" {
		return own
	}
	prefix, known := templatePaths[kind]
	if !known || spec == nil {
		return ""
	}
	at := podFields{spec}
	switch f.cause {
	case AdmissionDenied, PolicyDenied, PodRefused:
		if path := at.named(f.message); path != "" {
			return strings.TrimSuffix(prefix, "spec") + path
		}
		return ""
	}
	if path := at.of(f); path != "" {
		return prefix + "." + path
	}
	return ""
}

// objectField returns what is the object's own business, not its pods'.
func objectField(kind string, f finding) string {
	job := "spec."
	if kind == "CronJob" {
		job = "spec.jobTemplate.spec."
	}
	switch f.cause {
	case DeadlineExceeded:
		switch {
		case kind == "Deployment":
			return "spec.progressDeadlineSeconds"
		case kind == "Pod":
			return "spec.activeDeadlineSeconds"
		case kind == "Job" || kind == "CronJob":
			return job + "activeDeadlineSeconds"
		}
	case JobFailed:
		switch f.reason {
		case "PodFailurePolicy":
			return job + "podFailurePolicy"
		case "FailedIndexes", "MaxFailedIndexesExceeded":
			return job + "backoffLimitPerIndex"
		}
		return job + "backoffLimit"
	case Paused:
		if kind == "Deployment" {
			return "spec.paused"
		}
		return "spec.suspend"
	case ManualUpdate:
		return "spec.updateStrategy.type"
	case QuotaExceeded:
		if kind == "StatefulSet" {
			if claimed := claimField(f.message); claimed != "" {
				return claimed
			}
		}
		switch tooMany := strings.Contains(f.message, "requested: pods="); {
		case !tooMany || kind == "Pod" || kind == "DaemonSet":
		case kind == "Job" || kind == "CronJob":
			return job + "parallelism"
		default:
			return "spec.replicas"
		}
	}
	return ""
}

var (
	claimRefused = regexp.MustCompile(`persistentvolumeclaims "([^"]+)" is forbidden`)
	claimMade    = regexp.MustCompile(`create Claim (\S+) for Pod (\S+) in StatefulSet`)
)

// claimField returns which template of a StatefulSet a claim is made from that a quota
// refuses; empty if it is about something else.
func claimField(message string) string {
	refused := claimRefused.FindStringSubmatch(message)
	if refused == nil {
		return ""
	}
	const templates = "spec.volumeClaimTemplates"
	for _, m := range claimMade.FindAllStringSubmatch(message, -1) {
		if name, ok := strings.CutSuffix(m[1], "-"+m[2]); ok && m[1] == refused[1] {
			if strings.Contains(message, "requests.storage=") {
				return templates + "[name=" + name + "].spec.resources.requests.storage"
			}
			return templates + "[name=" + name + "]"
		}
	}
	return templates
}

// podFields finds paths in a pod's spec.
type podFields struct{ spec *corev1.PodSpec }

func (p podFields) of(f finding) string {
	switch f.cause {
	case NoServiceAccount:
		return "serviceAccountName"
	case NoPriorityClass:
		return "priorityClassName"
	case NoRuntimeClass:
		return "runtimeClassName"
	case UserNamespace:
		return "hostUsers"
	case SchedulingGated:
		return "schedulingGates"
	case GateClosed:
		return "readinessGates"
	case Unschedulable:
		return p.predicate(f.scheduling)
	case VolumeUnbound, VolumeMissing, VolumeLost, VolumeAttach, VolumeMount:
		return p.volume(f.message)
	case DeviceUnprepared:
		return "resourceClaims"
	case QuotaExceeded, LimitRange:
		return p.bounded(f.message)
	case NodeRefused:
		return p.refusedByNode(f.reason, f.message)
	case PodSecurity:
		return p.securityContext(f.message)
	case EphemeralStorage:
		return p.storage(f.message)
	case ConfigMissing:
		return p.reference(f.container, f.message)
	case ImageVolume:
		return p.volume(f.message)
	}
	if c := containerOf(p.spec, f.container); c != nil {
		return p.inContainer(f, c)
	}
	return ""
}

// inContainer returns the path for a cause that lies in a container.
func (p podFields) inContainer(f finding, c *corev1.Container) string {
	at := p.container(c.Name)
	switch f.cause {
	case ImageNotFound, ImageRateLimited, ImageUnreachable, ImageWrongPlatform, ImageNameInvalid, ImagePullFailed, ImageUnsigned, ImageMismatch:
		if v := p.imageVolume(f.message, c.Image); v != "" {
			return v
		}
		return at + ".image"
	case ImageUnauthorized:
		return "imagePullSecrets"
	case ImageNeverPulled:
		return at + ".imagePullPolicy"
	case OutOfMemory:
		return at + ".resources.limits.memory"
	case RunsAsRoot:
		if c.SecurityContext != nil && c.SecurityContext.RunAsNonRoot != nil {
			return at + ".securityContext.runAsNonRoot"
		}
		return "securityContext.runAsNonRoot"
	case CommandNotRunnable:
		return at + command(c)
	case HookFailed:
		return at + ".lifecycle.postStart"
	case ProbeKilled, StartupKilled, NotReady:
		return at + probeField(f, c)
	case Crash, InitCrash, StartFailed, CreateFailed, JobFailed, TimedOut, Starting:
		return at
	}
	return ""
}

// container returns the path of a container.
func (p podFields) container(name string) string {
	for _, c := range p.spec.InitContainers {
		if c.Name == name {
			return "initContainers[name=" + name + "]"
		}
	}
	return "containers[name=" + name + "]"
}

func (p podFields) first() string {
	if len(p.spec.Containers) > 0 {
		return p.spec.Containers[0].Name
	}
	return ""
}

// command returns which of command, args and the image names the program.
func command(c *corev1.Container) string {
	switch {
	case len(c.Command) > 0:
		return ".command"
	case len(c.Args) > 0:
		return ".args"
	}
	return ".image"
}

// probeField returns what of a probe the response speaks of.
func probeField(f finding, c *corev1.Container) string {
	kind := ProbeReadiness
	switch {
	case f.probe != nil:
		kind = f.probe.Kind
	case f.cause == ProbeKilled:
		kind = ProbeLiveness
	case f.cause == StartupKilled:
		kind = ProbeStartup
	}
	probe, response := probeOf(c, kind), ""
	if f.probe != nil {
		response = f.probe.Response
	}
	path := "." + string(kind) + "Probe"
	switch {
	case probe == nil:
		return ""
	case strings.Contains(response, "context deadline exceeded") || strings.Contains(response, "timed out") || strings.Contains(response, "Client.Timeout"):
		return path + ".timeoutSeconds"
	case probe.HTTPGet != nil && strings.Contains(response, "statuscode"):
		return path + ".httpGet.path"
	case probe.HTTPGet != nil:
		return path + ".httpGet.port"
	case probe.TCPSocket != nil:
		return path + ".tcpSocket.port"
	case probe.GRPC != nil:
		return path + ".grpc"
	case probe.Exec != nil:
		return path + ".exec.command"
	}
	return path
}

// imageVolume returns the path of a volume whose image a message is about.
func (p podFields) imageVolume(message, own string) string {
	for _, v := range p.spec.Volumes {
		if v.Image != nil && v.Image.Reference != own && v.Image.Reference != "" && strings.Contains(message, v.Image.Reference) {
			return "volumes[name=" + v.Name + "].image.reference"
		}
	}
	return ""
}

// predicate returns what of the pod excluded the most nodes.
func (p podFields) predicate(s *Scheduling) string {
	if s == nil || len(s.Predicates) == 0 {
		return ""
	}
	worst := slices.MaxFunc(s.Predicates, func(a, b Predicate) int { return a.Nodes - b.Nodes })
	switch worst.Kind {
	case PredicateResource:
		return p.resource("requests."+worst.Resource, "")
	case PredicateNodeAffinity:
		if len(p.spec.NodeSelector) > 0 {
			return "nodeSelector"
		}
		return "affinity.nodeAffinity"
	case PredicateTaint, PredicateCordoned:
		return "tolerations"
	case PredicatePodAffinity:
		return "affinity.podAffinity"
	case PredicatePodAntiAffinity:
		return "affinity.podAntiAffinity"
	case PredicateTopologySpread:
		return "topologySpreadConstraints"
	case PredicateHostPort:
		return p.hostPort()
	case PredicateNodeName:
		return "nodeName"
	case PredicateDevice:
		return "resourceClaims"
	case PredicateVolume:
		return p.volume(worst.Message)
	}
	return ""
}

// escaped writes a name that has dots as one element of a path.
func escaped(name string) string {
	if strings.ContainsAny(name, "./") {
		return fmt.Sprintf("[%q]", name)
	}
	return name
}

// hungriest returns the container that has the most of a resource in its "requests"
// or "limits".
func (p podFields) hungriest(of string, name corev1.ResourceName) string {
	has := func(c *corev1.Container) quantity.Quantity {
		if of == "limits" {
			return c.Resources.Limits[name]
		}
		return c.Resources.Requests[name]
	}
	most := p.first()
	for i := range p.spec.Containers {
		amount := has(&p.spec.Containers[i])
		if amount.Cmp(has(containerOf(p.spec, most))) > 0 {
			most = p.spec.Containers[i].Name
		}
	}
	return most
}
