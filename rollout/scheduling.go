package rollout

import (
	"regexp"
	"strconv"
	"strings"
)

// Scheduling is why the scheduler found no node, as it said itself.
type Scheduling struct {
	// Nodes is how many nodes there are.
	Nodes int `json:"nodes"`
	// Predicates say what excluded how many of them. A node may be excluded by
	// several.
	Predicates []Predicate `json:"predicates,omitempty"`
}

// Predicate is one thing that excluded nodes.
type Predicate struct {
	Kind PredicateKind `json:"kind"`
	// Nodes is how many nodes it excluded. What concerns the pod and not a node,
	// such as a claim that doesn't exist, excludes them all.
	Nodes int `json:"nodes"`
	// Resource is what was insufficient: "cpu", "memory", "example.com/gpu".
	Resource string `json:"resource,omitempty"`
	// Message is the scheduler's wording.
	Message string `json:"message"`
}

// PredicateKind is what a node was excluded by.
type PredicateKind string

// The kinds of predicates.
const (
	PredicateResource        PredicateKind = "Resource"
	PredicateTooManyPods     PredicateKind = "TooManyPods"
	PredicateNodeAffinity    PredicateKind = "NodeAffinity"
	PredicateTaint           PredicateKind = "Taint"
	PredicateCordoned        PredicateKind = "Cordoned"
	PredicatePodAffinity     PredicateKind = "PodAffinity"
	PredicatePodAntiAffinity PredicateKind = "PodAntiAffinity"
	PredicateTopologySpread  PredicateKind = "TopologySpread"
	PredicateHostPort        PredicateKind = "HostPort"
	PredicateNodeName        PredicateKind = "NodeName"
	PredicateVolume          PredicateKind = "Volume"
	PredicateDevice          PredicateKind = "Device"
	PredicateOther           PredicateKind = "Other"
)

// predicateWords tell the kinds by the plug-ins' wording, up to Kubernetes 1.37.
var predicateWords = []struct {
	words string
	kind  PredicateKind
}{
	{"too many pods", PredicateTooManyPods},
	{"insufficient ", PredicateResource},
	{"node affinity/selector", PredicateNodeAffinity},
	{"persistentvolume's node affinity", PredicateVolume},
	{"node affinity", PredicateNodeAffinity},
	{"untolerated taint", PredicateTaint},
	{"didn't tolerate", PredicateTaint},
	{"were unschedulable", PredicateCordoned},
	{"unknown conditions", PredicateCordoned},
	{"anti-affinity", PredicatePodAntiAffinity},
	{"pod affinity", PredicatePodAffinity},
	{"topology spread", PredicateTopologySpread},
	{"free ports", PredicateHostPort},
	{"requested node name", PredicateNodeName},
	{"volume", PredicateVolume},
	{"pvc", PredicateVolume},
	{"free storage", PredicateVolume},
	{"available disk", PredicateVolume},
	{"resourceclaim", PredicateDevice},
	{"cannot allocate all claims", PredicateDevice},
	// Of nodes that were left out before they were looked at, the scheduler only
	// says by which plug-in.
	{"plugin(s) [noderesourcesfit", PredicateResource},
	{"plugin(s) [nodeaffinity", PredicateNodeAffinity},
	{"plugin(s) [tainttoleration", PredicateTaint},
	{"plugin(s) [nodeunschedulable", PredicateCordoned},
	{"plugin(s) [interpodaffinity", PredicatePodAffinity},
	{"plugin(s) [podtopologyspread", PredicateTopologySpread},
	{"plugin(s) [nodeports", PredicateHostPort},
	{"plugin(s) [nodename", PredicateNodeName},
	{"plugin(s) [dynamicresources", PredicateDevice},
}

var noNodes = regexp.MustCompile(`(?s)^\s*0/(\d+) nodes are available: ?(.*)`)

// parseScheduling reads a scheduler's message, such as "0/3 nodes are available:
// 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: ...".
func parseScheduling(message string) (Scheduling, bool) {
	match := noNodes.FindStringSubmatch(message)
	if match == nil {
		return Scheduling{}, false
	}
	nodes, err := strconv.Atoi(match[1])
	if err != nil {
		return Scheduling{}, false
	}
	s := Scheduling{Nodes: nodes}
	text, _, _ := strings.Cut(match[2], " preemption: ")
	text, _, _ = strings.Cut(text, ". no new claims")
	text = strings.TrimSuffix(strings.TrimSpace(text), ".")
	for _, part := range splitPredicates(text) {
		s.Predicates = append(s.Predicates, parsePredicate(part, nodes))
	}
	return s, true
}

// splitPredicates splits at the commas before a number; others are of a taint.
func splitPredicates(text string) []string {
	const comma = ", "
	var out []string
	begin, at := 0, 0 // of the last one of out, and of the part looked at
	for part := range strings.SplitSeq(text, comma) {
		end := at + len(part)
		if _, _, counted := leadingCount(part); !counted && len(out) > 0 {
			out[len(out)-1] = text[begin:end]
		} else if part != "" {
			begin = at
			out = append(out, part)
		}
		at = end + len(comma)
	}
	return out
}

func leadingCount(text string) (count int, rest string, ok bool) {
	number, rest, found := strings.Cut(text, " ")
	if !found {
		return 0, text, false
	}
	count, err := strconv.Atoi(number)
	return count, rest, err == nil && count >= 0
}

func parsePredicate(text string, nodes int) Predicate {
	p := Predicate{Kind: PredicateOther, Nodes: nodes, Message: text}
	if count, rest, ok := leadingCount(text); ok {
		p.Nodes, p.Message = count, rest
	}
	lower := strings.ToLower(p.Message)
	for _, w := range predicateWords {
		if strings.Contains(lower, w.words) {
			p.Kind = w.kind
			break
		}
	}
	if _, resource, found := strings.Cut(p.Message, "Insufficient "); found && p.Kind == PredicateResource {
		p.Resource = strings.TrimSuffix(resource, ".")
	}
	return p
}
