package rollout

import (
	"slices"

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
// which the first look may find already, pardoned are those whose crashes are counted anew,
// for so far they say nothing: all but what was waited for.
func (g *grace) excuse(all []assessment, terminal []finding, first bool) (decisive []finding, pardoned []assessment) {
	coming := g.onTheirWay(all, terminal)
	excusable := func(f finding) bool { return f.excusable && !g.awaited[f.released] }
	switch some := slices.ContainsFunc(terminal, func(f finding) bool { return f.excusable }); {
	case len(coming) > 0 && some:
		g.awaited = coming
		return slices.DeleteFunc(terminal, func(f finding) bool { return f.excusable }), nil
	case len(coming) > 0:
		return terminal, nil
	case len(g.awaited) == 0:
		excusable = func(f finding) bool { return first && f.excusable && mayHaveWaited(f, all) }
		if !slices.ContainsFunc(terminal, excusable) {
			return terminal, nil
		}
	}
	terminal = slices.DeleteFunc(terminal, excusable)
	awaited := g.awaited
	g.awaited = nil
	if len(terminal) > 0 {
		return terminal, nil
	}
	return nil, slices.DeleteFunc(slices.Clone(all), func(a assessment) bool { return awaited[a.object] })
}

// mayHaveWaited reports whether another workload became ready after a crash.
func mayHaveWaited(f finding, all []assessment) bool {
	return f.exit != nil && slices.ContainsFunc(all, func(a assessment) bool {
		return a.object != f.released && a.served.After(f.exit.FinishedAt.Time)
	})
}

// pardon has crashes of workloads counted from now on.
func (in *inspector) pardon(all []assessment) {
	for _, a := range all {
		for _, f := range a.findings {
			if f.pod == nil {
				continue
			}
			for _, s := range allStatuses(f.pod) {
				in.ends[containerKey{f.pod.UID, s.Name}] = pastEnds{endsOf(s), "before what it may wait for was ready"}
			}
		}
	}
}
