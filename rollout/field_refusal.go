package rollout

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// named returns the path, from the pod's own root on, of the first field that the
// message of a webhook, a policy or the API server names; empty if it names none
// that the pod has. The message is the only one to know.
func (p podFields) named(message string) string {
	for _, at := range namedField.FindAllStringSubmatchIndex(message, -1) {
		path := message[at[2]:at[3]]
		if strings.HasPrefix(path, "/") {
			path = indexed.ReplaceAllString(strings.ReplaceAll(strings.Trim(path, "/"), "/", "."), "[$1]")
		} else if strings.HasPrefix(message[at[3]:], "(") { // the name of a function in CEL
			path = path[:strings.LastIndex(path, ".")]
		}
		if path = p.byName(path); path != "" {
			return path
		}
	}
	return ""
}

var (
	// namedField is a path as in Go's and CEL's notation, spec.containers[0].image, or
	// as a JSON pointer, /spec/containers/0/image.
	namedField = regexp.MustCompile(`(?:^|[^\w./\]-]|\bobject\.)((?:spec|metadata)(?:\.[a-zA-Z]\w*|\[\d+\])+|/(?:spec|metadata)(?:/\w+)+)`)
	indexed    = regexp.MustCompile(`\.(\d+)\b`)
	listItem   = regexp.MustCompile(`^spec\.(containers|initContainers|volumes)\[(\d+)\]`)
)

// byName writes the path of an element of a list with its name, and returns nothing
// for a path that no pod, or not this one, has.
func (p podFields) byName(path string) string {
	top, rest, _ := strings.Cut(path, ".")
	first := rest[:len(rest)-len(strings.TrimLeft(rest, letters))]
	switch {
	case top == "metadata" && (first == "labels" || first == "annotations"):
		return path
	case top != "spec" || !podSpecFields[first]:
		return ""
	}
	m := listItem.FindStringSubmatch(path)
	if m == nil {
		return path
	}
	i, err := strconv.Atoi(m[2])
	names := map[string][]string{"containers": namesOf(p.spec.Containers), "initContainers": namesOf(p.spec.InitContainers)}
	for _, v := range p.spec.Volumes {
		names["volumes"] = append(names["volumes"], v.Name)
	}
	if err != nil || i >= len(names[m[1]]) {
		return "" // an admission webhook has put it there
	}
	return "spec." + m[1] + "[name=" + names[m[1]][i] + "]" + path[len(m[0]):]
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

func namesOf(containers []corev1.Container) []string {
	var names []string
	for _, c := range containers {
		names = append(names, c.Name)
	}
	return names
}

// podSpecFields are the names that a pod's spec has for its fields.
var podSpecFields = func() map[string]bool {
	names := map[string]bool{}
	for f := range reflect.TypeFor[corev1.PodSpec]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names[name] = true
	}
	return names
}()

// How quotas and limit ranges word what they object to. A quota lists the resources
// that are exceeded.
var (
	overQuota   = regexp.MustCompile(`exceeded quota: \S+, requested: ([^=,\s]+)=`)
	mustSpecify = regexp.MustCompile(`must specify (\S+) for: ([^\s,;]+)`)
	outOfRange  = regexp.MustCompile(`(?:maximum|minimum) (\S+) usage per (?:Container|Pod) is \S+\s+(?:but|No) (limit|request)`)
)

// bounded returns the path of the request or limit that a quota or a limit range
// objects to. Where it doesn't say whose, it is that of the container that wants the
// most.
func (p podFields) bounded(message string) string {
	if claimRefused.MatchString(message) { // which no container has
		return ""
	}
	if m := mustSpecify.FindStringSubmatch(message); m != nil {
		return p.resource(m[1], m[2])
	}
	if m := overQuota.FindStringSubmatch(message); m != nil {
		return p.resource(m[1], "")
	}
	if m := outOfRange.FindStringSubmatch(message); m != nil {
		return p.resource(m[2]+"s."+m[1], "")
	}
	return ""
}

// resource returns the path of what a quota calls "limits.cpu", or "requests.cpu",
// or just "cpu"; empty for what isn't a container's, such as "pods".
func (p podFields) resource(name, container string) string {
	of, what, found := strings.Cut(name, ".")
	if !found || of != "limits" && of != "requests" {
		of, what = "requests", name
	}
	switch {
	case what == "" || what == "pods" || strings.HasPrefix(what, "count/"):
		return ""
	case container == "":
		container = p.hungriest(of, corev1.ResourceName(what))
	}
	return p.container(container) + ".resources." + of + "." + escaped(what)
}

// securitySettings are how Pod Security words what it objects to, and the path of
// that. Some settings are the pod's or a container's; then the pod's is meant.
var securitySettings = []struct {
	message *regexp.Regexp
	path    func(p podFields, match []string) string
}{
	// container "app" must set securityContext.runAsNonRoot=true
	// pod or container "app" must not set securityContext.seccompProfile.type to "Unconfined"
	// container "app" must not include "SYS_ADMIN" in securityContext.capabilities.add
	// pod must not set runAsUser=0
	{regexp.MustCompile(`(pod\b(?: (?:or|and) )?)?(?:containers? "([^"]+)"(?:, "[^"]+")*)? must (?:not )?(?:set |include (?:"[^"]+"(?:, )?)+ in )(securityContext[.\w]*|runAsUser)`), func(p podFields, m []string) string {
		setting := strings.TrimSuffix(m[3], ".")
		if setting == "runAsUser" {
			setting = "securityContext.runAsUser"
		}
		if m[1] != "" || m[2] == "" {
			return setting
		}
		return p.container(m[2]) + "." + setting
	}},
	// host namespaces (hostNetwork=true, hostPID=true)
	{regexp.MustCompile(`\((host(?:Network|PID|IPC))=true`), func(_ podFields, m []string) string { return m[1] }},
	// hostPath volumes (volume "data"), restricted volume types (volume "data" uses …)
	{regexp.MustCompile(`\(volumes? "([^"]+)"`), func(_ podFields, m []string) string { return "volumes[name=" + m[1] + "]" }},
	// hostPort (container "app" uses hostPort 80)
	{regexp.MustCompile(`containers? "([^"]+)"(?:, "[^"]+")* uses? hostPorts?`), func(p podFields, m []string) string { return p.container(m[1]) + ".ports" }},
	// forbidden sysctls (kernel.shm_rmid_forced)
	{regexp.MustCompile(`forbidden sysctls? \(`), func(podFields, []string) string { return "securityContext.sysctls" }},
}

// securityContext returns the first setting that Pod Security objects to.
func (p podFields) securityContext(message string) string {
	first, path := len(message), "securityContext"
	for _, s := range securitySettings {
		if at := s.message.FindStringIndex(message); at != nil && at[0] < first {
			first, path = at[0], s.path(p, s.message.FindStringSubmatch(message))
		}
	}
	return path
}

// devices is what the device manager says of a resource that it has too few of.
var devices = regexp.MustCompile(`number of devices unavailable for ([^\s,]+?)\.? Requested`)

// refusedByNode returns the path of what a kubelet objects to, by the reason that it
// gives a pod.
func (p podFields) refusedByNode(reason, message string) string {
	if name, short := strings.CutPrefix(reason, "OutOf"); short && name != "pods" {
		return p.resource("requests."+name, "")
	}
	switch reason {
	case "UnexpectedAdmissionError":
		if m := devices.FindStringSubmatch(message); m != nil {
			return p.resource("requests."+m[1], "")
		}
	case "NodeAffinity":
		return p.predicate(&Scheduling{Predicates: []Predicate{{Kind: PredicateNodeAffinity}}})
	case "PodOSSelectorNodeLabelDoesNotMatch":
		return "nodeSelector"
	case "NodeName":
		return "nodeName"
	case "NodePorts":
		return p.hostPort()
	case "TaintToleration":
		return "tolerations"
	case "SysctlForbidden":
		return "securityContext.sysctls"
	case "PodOSNotSupported":
		return "os.name"
	case "SupplementalGroupsPolicyNotSupported":
		return "securityContext.supplementalGroupsPolicy"
	case "PodLevelResourcesNotSupported":
		return "resources"
	}
	return ""
}

// hostPort returns the path of the ports of the first container that wants one of the
// node's.
func (p podFields) hostPort() string {
	for _, c := range p.spec.Containers {
		if slices.ContainsFunc(c.Ports, func(port corev1.ContainerPort) bool { return port.HostPort != 0 }) {
			return p.container(c.Name) + ".ports"
		}
	}
	return p.container(p.first()) + ".ports"
}
