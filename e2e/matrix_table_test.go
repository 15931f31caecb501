package e2e_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// row is one line of the table, with all that is told of it.
type row struct {
	Reason, Kind string
	Mode         mode
	Control      bool
	// Decided and Verdict are from the fact on, of a control from its beginning.
	Decided, Verdict time.Duration
	Ready, Named     bool
	Early            string
	Cause, Field     string
	Helm             opinion
	Kubectl          opinion
	Status           opinion
}

func (r row) name() string { return r.Reason + "/" + r.Kind + "/" + string(r.Mode) }

// row sums a result up.
func (r result) row() row {
	since := r.fact
	if r.failure == nil {
		since = r.began
	}
	out := row{
		Reason: r.cell.fault.name, Kind: r.cell.kind, Mode: r.cell.mode, Control: r.cell.fault.cause == "", Ready: r.err == nil, Early: r.early,
		Verdict: r.verdict.Sub(since), Helm: r.helm, Kubectl: r.kubectl, Status: r.status,
	}
	for _, o := range []*opinion{&out.Helm, &out.Kubectl, &out.Status} {
		o.After = o.at.Sub(since)
	}
	switch f := r.failure; {
	case f != nil:
		out.Decided, out.Cause, out.Field = out.Verdict-f.Collecting, string(f.Cause), f.Decisive.Field
		out.Named = f.Cause == r.cell.fault.cause && f.Pending == r.cell.fault.pending
		if f.Pending != "" {
			out.Cause += ": " + string(f.Pending)
		}
	case r.err != nil:
		out.Cause = "error"
	}
	return out
}

// findings are what the runs so far have found.
type findings struct {
	Took time.Duration
	Rows []row
}

// write writes the table to the artifacts, and to MATRIX.md if asked to.
func (m *matrix) write(t *testing.T, took time.Duration) {
	t.Helper()
	dir := filepath.Join("..", "dist")
	require.NoError(t, os.MkdirAll(dir, 0o750))
	all, file := findings{Took: took, Rows: m.rows}, filepath.Join(dir, "fault-matrix.json")
	if *matrixMerge {
		before := earlier(t, file)
		all.Took += before.Took
		for _, old := range before.Rows {
			if !slices.ContainsFunc(m.rows, func(r row) bool { return r.name() == old.name() }) {
				all.Rows = append(all.Rows, old)
			}
		}
	}
	slices.SortFunc(all.Rows, func(a, b row) int { return cmp.Compare(a.name(), b.name()) })
	kept, err := json.Marshal(all)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, kept, 0o600))
	text := all.markdown()
	t.Log("\n" + text)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "fault-matrix.md"), []byte(text), 0o600))
	if *matrixUpdate {
		require.NoError(t, os.WriteFile("MATRIX.md", []byte(text), 0o600))
	}
}

func earlier(t *testing.T, file string) (found findings) {
	t.Helper()
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return found
	}
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &found))
	return found
}

// markdown is the table of all cells, faults first.
func (all findings) markdown() string {
	var faults, controls, b strings.Builder
	n := tally{}
	for _, r := range all.Rows {
		if r.Control {
			n.control(r)
			fmt.Fprintf(&controls, "| %s | %s | %s | %s | %s | %s | %s |\n", r.Reason, r.Kind, r.Mode,
				r.ours(), r.Helm.control(), r.Kubectl.control(), r.Status.control())
			continue
		}
		n.fault(r)
		fmt.Fprintf(&faults, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", r.Reason, r.Kind, r.Mode,
			r.ours(), cmp.Or(r.Cause, "**none**"), r.field(), r.Helm.text(), r.Kubectl.text(), r.Status.text())
	}
	fmt.Fprintf(&b, matrixIntro, len(all.Rows), all.Took.Round(time.Second), matrixWidth, runtime.NumCPU(), matrixPatience, rivalCap)
	b.WriteString(n.String())
	b.WriteString(n.times())
	b.WriteString("\n## Faults\n\n| reason | kind | mode | fairlead: decided, verdict after the fact | cause named | field named | helm --wait | kubectl rollout status | kstatus |\n|---|---|---|---|---|---|---|---|---|\n")
	b.WriteString(faults.String())
	b.WriteString("\n## Controls, which come up\n\n| what happens meanwhile | kind | mode | fairlead | helm --wait | kubectl rollout status | kstatus |\n|---|---|---|---|---|---|---|\n")
	b.WriteString(controls.String())
	return b.String()
}

const matrixIntro = `# Fault matrix

Written by TestFaultMatrix: %d rollouts on a kind cluster in %s, %d at once on %d processors. Each is applied by the real
helm command. "After the fact" is the time from when somebody else's watch of the API server has shown what decides, or the
verifier was asked if that was later. It has decided after the first time, and returned its verdict, with the logs and events
that it could collect, after the second. What decides is a rule: the second crash, or a missing ConfigMap for as long as the
rule says; here no rule is longer than %s, and that for a quota stands still while old pods leave. The other tools had %s from when the object was applied; "said nothing" means that they
still waited then, "failed, +N s" is after the same fact, and "-" that they were not asked or have no opinion on the kind.
kubectl's and kstatus' are their own computations (k8s.io/kubectl/pkg/polymorphichelpers, github.com/fluxcd/cli-utils), run on
every change of the object. A "ready" of theirs beside a fault is what they said of a rollout that was failing.

The pods of a ReplicaSet and of a ReplicationController are made as a Deployment's are, those of a CronJob (waited for by
Config.CronRuns) as a Job's, so that these kinds have one fault in each different place. A DaemonSet makes no pods for nodes
that they don't fit, a Pod has no controller that is refused, and what restarts for ever can't be a Job. Kinds without pods
have tests of their own: TestClaims, TestLoadBalancer and TestCustomResources here, the others in package rollout.

`

// tally counts what was said.
type tally struct {
	faults, named, ready, controls, aborts, early int
	decided, verdicts                             []time.Duration
	rivals                                        [3]struct{ asked, failed, ready, controls, aborts int }
}

func (n *tally) fault(r row) {
	n.faults++
	if r.Named {
		n.named++
		n.decided, n.verdicts = append(n.decided, r.Decided), append(n.verdicts, r.Verdict)
	}
	if r.Ready {
		n.ready++
	}
	for i, o := range []opinion{r.Helm, r.Kubectl, r.Status} {
		if o.Asked {
			n.rivals[i].asked++
		}
		switch {
		case o.Asked && o.Said == saidFailed:
			n.rivals[i].failed++
		case o.Asked && o.Said == saidReady:
			n.rivals[i].ready++
		}
	}
}

func (n *tally) control(r row) {
	n.controls++
	if !r.Ready {
		n.aborts++
	}
	if r.Early != "" {
		n.early++
	}
	for i, o := range []opinion{r.Helm, r.Kubectl, r.Status} {
		if o.Asked {
			n.rivals[i].controls++
		}
		if o.Asked && o.Said == saidFailed {
			n.rivals[i].aborts++
		}
	}
}

func (n *tally) String() string {
	var b strings.Builder
	b.WriteString("| | faults: asked | noticed | said ready | controls: asked | wrong aborts | said ready too early |\n|---|---|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| fairlead | %d | %d, cause named | %d | %d | %d | %d |\n", n.faults, n.named, n.ready, n.controls, n.aborts, n.early)
	for i, name := range []string{"helm --wait", "kubectl rollout status", "kstatus"} {
		c := n.rivals[i]
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | |\n", name, c.asked, c.failed, c.ready, c.controls, c.aborts)
	}
	return b.String()
}

// times is the distribution of how long fairlead took.
func (n *tally) times() string {
	var b strings.Builder
	b.WriteString("\n| fairlead, after the fact | p50 | p90 | p99 | slowest |\n|---|---|---|---|---|\n")
	for _, line := range []struct {
		name string
		took []time.Duration
	}{{"decided", n.decided}, {"verdict, with logs and events", n.verdicts}} {
		slices.Sort(line.took)
		fmt.Fprintf(&b, "| %s |", line.name)
		for _, p := range []int{50, 90, 99, 100} {
			if at := (len(line.took)*p+99)/100 - 1; at >= 0 { // the nearest rank
				fmt.Fprintf(&b, " %.2f s", line.took[at].Seconds())
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (r row) ours() string {
	switch {
	case r.Early != "":
		return "**ready too early**: " + r.Early
	case r.Ready:
		return fmt.Sprintf("ready after %.1f s", r.Verdict.Seconds())
	case r.Control:
		return "**wrong abort**: " + r.Cause
	}
	return fmt.Sprintf("%.2f s, %.2f s", r.Decided.Seconds(), r.Verdict.Seconds())
}

func (r row) field() string {
	if r.Field == "" {
		return ""
	}
	return "`" + r.Field + "`"
}
