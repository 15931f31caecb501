package rollout

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// grace is what a session tolerates of a program that may crash for want of another
// workload of its release.
type grace struct {
	// was are the workloads that have been done, awaited those that were on their way at
	// the last look at which a crash was tolerated.
	was, awaited map[stages.Object]bool
}

// note takes in how far the workloads are.
func (g *grace) note(all []assessment) {
	for _, a := range all {
		if a.done {
			g.was[a.object] = true
		}
	}
}

// onTheirWay returns the workloads of which others may be in want: too few of their pods
// are ready, and nothing is known to keep them from it. One that was done doesn't count:
// it may be others that have brought it down.
func (g *grace) onTheirWay(all []assessment, terminal []finding) map[stages.Object]bool {
	out := map[stages.Object]bool{}
	for _, a := range all {
		fails := func(f finding) bool { return f.released == a.object }
		if a.lacking && !a.done && !g.was[a.object] && !slices.ContainsFunc(terminal, fails) {
			out[a.object] = true
		}
	}
	return out
}

// excuse leaves out of the findings that have become terminal those that have to wait for
// other workloads. What fails itself among these is the reason of all. Once they are there,
// crashes are counted anew, for so far they say nothing; pardoned says so. The first look
// may find them there.
func (g *grace) excuse(all []assessment, terminal []finding, first bool) (decisive []finding, pardoned bool) {
	coming := g.onTheirWay(all, terminal)
	excusable := func(f finding) bool { return f.excusable && !g.awaited[f.released] }
	switch some := slices.ContainsFunc(terminal, func(f finding) bool { return f.excusable }); {
	case len(coming) > 0 && some:
		g.awaited = coming
		return slices.DeleteFunc(terminal, func(f finding) bool { return f.excusable }), false
	case len(coming) > 0 || len(g.awaited) == 0 && !first:
		return terminal, false
	case len(g.awaited) == 0:
		excusable = func(f finding) bool { return f.excusable && mayHaveWaited(f, all) }
		if !slices.ContainsFunc(terminal, excusable) {
			return terminal, false
		}
	}
	terminal = slices.DeleteFunc(terminal, excusable)
	g.awaited = nil
	return terminal, len(terminal) == 0
}

// mayHaveWaited reports whether another workload became ready after a crash.
func mayHaveWaited(f finding, all []assessment) bool {
	return f.exit != nil && slices.ContainsFunc(all, func(a assessment) bool {
		return a.object != f.released && a.served.After(f.exit.FinishedAt.Time)
	})
}

// pardon has crashes counted from now on.
func (in *inspector) pardon() {
	for _, m := range in.world.feedsOf(pods.name) {
		m.mu.RLock()
		for name, o := range m.objects {
			pod, ok := o.(*corev1.Pod)
			if !ok || name.Namespace != m.namespace {
				continue
			}
			for _, s := range allStatuses(pod) {
				in.ends[containerKey{pod.UID, s.Name}] = pastEnds{endsOf(s), "before what it may wait for was ready"}
			}
		}
		m.mu.RUnlock()
	}
}
