package e2e_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/rollout"
)

// markdown is the table of all cells, faults first.
func (m *matrix) markdown(took time.Duration) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.SortStableFunc(m.table, func(a, b result) int { return cmp.Compare(a.cell.String(), b.cell.String()) })
	var faults, controls, b strings.Builder
	n := tally{}
	for _, r := range m.table {
		if r.cell.fault.cause == "" {
			n.control(r)
			fmt.Fprintf(&controls, "| %s | %s | %s | %s | %s | %s | %s |\n", r.cell.fault.name, r.cell.kind, r.cell.mode,
				r.ours(), r.helm.control(), r.kubectl.control(), r.status.control())
			continue
		}
		n.fault(r)
		fmt.Fprintf(&faults, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", r.cell.fault.name, r.cell.kind, r.cell.mode,
			r.ours(), r.named(), r.field(), r.helm.text(r.fact), r.kubectl.text(r.fact), r.status.text(r.fact))
	}
	fmt.Fprintf(&b, matrixIntro, len(m.table), took.Round(time.Second), matrixWidth, matrixPatience, rivalCap)
	b.WriteString(n.String())
	b.WriteString("\n## Faults\n\n| reason | kind | mode | fairlead: verdict after the fact | cause named | field named | helm --wait | kubectl rollout status | kstatus |\n|---|---|---|---|---|---|---|---|---|\n")
	b.WriteString(faults.String())
	b.WriteString("\n## Controls, which come up\n\n| what happens meanwhile | kind | mode | fairlead | helm --wait | kubectl rollout status | kstatus |\n|---|---|---|---|---|---|---|\n")
	b.WriteString(controls.String())
	return b.String()
}

const matrixIntro = `# Fault matrix

Written by TestFaultMatrix: %d rollouts on a kind cluster in %s, %d at once. Each is applied by the real helm command.
"After the fact" is the time from when somebody else's watch of the API server has shown what decides until fairlead returned
its verdict with all evidence collected. What decides is a rule: the second crash, or a missing ConfigMap for as long as the
rule says; here no rule is longer than %s. The other tools had %s from when the object was applied; "said nothing" means that they
still waited then, "failed, +N s" is after the same fact, and "-" that they were not asked or have no opinion on the kind.
kubectl's and kstatus' are their own computations (k8s.io/kubectl/pkg/polymorphichelpers, github.com/fluxcd/cli-utils), run on
every change of the object. A "ready" of theirs beside a fault is what they said of a rollout that was failing.

`

// tally counts what was said.
type tally struct {
	faults, named, ready, controls, aborts int
	slowest                                time.Duration
	rivals                                 [3]struct{ asked, failed, ready, controls, aborts int }
}

func (n *tally) fault(r result) {
	n.faults++
	if r.failure != nil && r.failure.Cause == r.cell.fault.cause {
		n.named++
		n.slowest = max(n.slowest, r.verdict.Sub(r.fact))
	}
	if r.err == nil {
		n.ready++
	}
	for i, o := range []opinion{r.helm, r.kubectl, r.status} {
		if o.asked {
			n.rivals[i].asked++
		}
		switch {
		case o.asked && o.said == saidFailed:
			n.rivals[i].failed++
		case o.asked && o.said == saidReady:
			n.rivals[i].ready++
		}
	}
}

func (n *tally) control(r result) {
	n.controls++
	if r.err != nil {
		n.aborts++
	}
	for i, o := range []opinion{r.helm, r.kubectl, r.status} {
		if o.asked {
			n.rivals[i].controls++
		}
		if o.asked && o.said == saidFailed {
			n.rivals[i].aborts++
		}
	}
}

func (n *tally) String() string {
	var b strings.Builder
	b.WriteString("| | faults: asked | noticed | said ready | controls: asked | wrong aborts |\n|---|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| fairlead (slowest verdict %.1f s after the fact) | %d | %d, cause named | %d | %d | %d |\n", n.slowest.Seconds(), n.faults, n.named, n.ready, n.controls, n.aborts)
	for i, name := range []string{"helm --wait", "kubectl rollout status", "kstatus"} {
		c := n.rivals[i]
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d |\n", name, c.asked, c.failed, c.ready, c.controls, c.aborts)
	}
	return b.String()
}

func (r result) ours() string {
	switch {
	case r.err == nil:
		return fmt.Sprintf("ready after %.1f s", r.verdict.Sub(r.began).Seconds())
	case r.failure == nil:
		return "error"
	case r.cell.fault.cause == "":
		return "**wrong abort**: " + string(r.failure.Cause)
	}
	return fmt.Sprintf("%.2f s", r.verdict.Sub(r.fact).Seconds())
}

func (r result) named() string {
	switch {
	case r.failure == nil:
		return "**none**"
	case r.failure.Cause == rollout.TimedOut:
		return fmt.Sprintf("%s: %s", r.failure.Cause, r.failure.Pending)
	}
	return string(r.failure.Cause)
}

func (r result) field() string {
	if r.failure == nil || r.failure.Decisive.Field == "" {
		return ""
	}
	return "`" + r.failure.Decisive.Field + "`"
}

// control tells an opinion on what comes up.
func (o opinion) control() string {
	switch {
	case !o.asked:
		return "-"
	case o.said == saidFailed:
		return "**wrong abort**: " + strings.ReplaceAll(fmt.Sprintf("%.80s", o.reason), "\n", " ")
	case o.said == "":
		return "said nothing"
	}
	return o.said
}

// labelNode is a node that comes late.
func labelNode(ctx context.Context, m *matrix, _ string, _ *workload) error {
	if !pause(ctx, 8*time.Second) {
		return nil
	}
	_, err := m.world.kube.CoreV1().Nodes().Patch(ctx, m.node, types.MergePatchType, []byte(`{"metadata":{"labels":{"`+lateLabel+`":"yes"}}}`), metav1.PatchOptions{})
	return err
}
