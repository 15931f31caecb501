package environment

import (
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Environment is a place that is released to. Name and Namespace are required.
// Treat it as immutable.
type Environment struct {
	// Name is for people and for records, such as "production".
	Name string
	// Namespace is where the release lives. As declared, it may hold one
	// placeholder, see the package comment; as [Set.Resolve] returns it, it is a name.
	Namespace string
	// Context is the kubeconfig context of the cluster; empty takes the current one.
	Context string
	// ValuesFiles are laid over the chart's own values, in order.
	ValuesFiles []string
	// Branches, Tags and PullRequests are patterns of what is delivered here. Those
	// of PullRequests match the branch that is to be merged into.
	Branches, Tags, PullRequests []string
	// PromotesFrom names the environment whose image is released here, instead of
	// one that was built for it. See [Promotion].
	PromotesFrom string
	// Gates name the gates that must have passed. [Deployer] insists on them.
	Gates []string
	// Approvals are the people who must have agreed. If any is required, [Deployer]
	// insists on the pass of an [ApprovalGate].
	Approvals Approvals
}

// Approvals say who has to agree to a release. The zero value asks nobody.
type Approvals struct {
	// Required is how many different people must agree.
	Required int
	// From names who may; required, with at least that many different names.
	// Names are compared exactly.
	From []string
	// Within is for how long an approval holds; 0 means until it is taken back.
	Within time.Duration
}

// CheckGates decides whether every gate that e names, and the [ApprovalGate] if e
// requires approvals, is among decisions with a pass: a gate that failed, or failed
// once, is a fail, one that is missing or could not decide is inconclusive.
func (e Environment) CheckGates(decisions []stages.Decision) stages.Decision {
	out := stages.Decision{Gate: "gates of " + e.Name, Verdict: stages.Pass}
	for _, gate := range e.required() {
		verdict, message := passed(gate, decisions)
		if verdict == stages.Pass {
			continue
		}
		out.Reasons = append(out.Reasons, stages.Reason{Rule: gate, Subject: e.Name, Message: message})
		if verdict == stages.Fail || out.Verdict == stages.Pass {
			out.Verdict = verdict
		}
	}
	return out
}

// required returns the names of all gates that must have passed.
func (e Environment) required() []string {
	gates := slices.Clone(e.Gates)
	if e.Approvals.Required > 0 && !slices.Contains(gates, e.approvalGate()) {
		gates = append(gates, e.approvalGate())
	}
	return gates
}

// approvalGate is the name that [ApprovalGate] decides under.
func (e Environment) approvalGate() string { return "approval of " + e.Name }

// passed returns the worst that a gate said, and what that means.
func passed(gate string, decisions []stages.Decision) (stages.Verdict, string) {
	verdict, message := stages.Inconclusive, "the gate has not decided; add it to the pipeline"
	for _, d := range decisions {
		switch {
		case d.Gate != gate:
		case d.Verdict == stages.Fail:
			return stages.Fail, "the gate refused"
		case d.Verdict != stages.Pass:
			return stages.Inconclusive, "the gate could not decide"
		default:
			verdict, message = stages.Pass, ""
		}
	}
	return verdict, message
}

// patterns returns the patterns for one kind of ref.
func (e Environment) patterns(kind Kind) []string {
	switch kind {
	case KindBranch:
		return e.Branches
	case KindTag:
		return e.Tags
	case KindPullRequest:
		return e.PullRequests
	}
	return nil
}

func (e Environment) clone() Environment {
	for _, list := range []*[]string{&e.ValuesFiles, &e.Branches, &e.Tags, &e.PullRequests, &e.Gates, &e.Approvals.From} {
		*list = slices.Clone(*list)
	}
	return e
}

// String returns "name (namespace)".
func (e Environment) String() string { return fmt.Sprintf("%s (%s)", e.Name, e.Namespace) }
