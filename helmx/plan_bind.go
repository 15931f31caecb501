package helmx

import (
	"fmt"
	"strings"

	"helm.sh/helm/v3/pkg/release"

	"github.com/fairlead-dev/fairlead/stages"
)

// MovedError is a deployment that is bound to a plan which is not true any more.
// Nothing was changed. It matches [stages.ErrPlanStale].
type MovedError struct {
	// Release is "namespace/name".
	Release string
	// Moved says what is not as the plan saw it.
	Moved []string
}

func (e *MovedError) Error() string {
	return fmt.Sprintf("release %s is not what was planned for: %s; nothing was changed, plan again", e.Release, strings.Join(e.Moved, "; "))
}

// Unwrap returns [stages.ErrPlanStale].
func (e *MovedError) Unwrap() error { return stages.ErrPlanStale }

// binding holds a deployment to the manifests of a plan.
type binding struct {
	release string
	img     stages.Image
	digest  planDigest
	content any
	// repeated is a further attempt of the run. The revision, which is that of the
	// attempt, may show in the manifests, so they were compared as planned.
	repeated bool
}

// bind checks that a deployment would do what the plan with that digest said. It
// returns nil where there is none. A repeated attempt of a run is held to the
// manifests alone, because the run itself has moved the rest.
func (d *Deployer) bind(s *session, digest string, img stages.Image, history []*release.Release, run string) (*binding, error) {
	if digest == "" {
		return nil, nil // No plan binds it.
	}
	want, err := parsePlanDigest(digest)
	if err != nil {
		return nil, err
	}
	moved := &MovedError{Release: d.name()}
	past, own, foreign := since(history, want.revision, run)
	if foreign != nil {
		moved.Moved = append(moved.Moved, fmt.Sprintf("revision %d (%s) was made since by %s", foreign.Version, foreign.Info.Status, author(foreign)))
		return nil, moved
	}
	if revisionOf(newest(past)) != want.revision {
		moved.Moved = append(moved.Moved, fmt.Sprintf("the newest revision is %d and was %d", revisionOf(newest(past)), want.revision))
		return nil, moved
	}
	o, err := d.foresee(s, img, past)
	if err != nil {
		return nil, err
	}
	if hashContent(img, o.content) != want.manifests {
		moved.Moved = append(moved.Moved, "the chart renders other manifests, or for another image, than the gates have seen")
		return nil, moved
	}
	if !own {
		memory := d.cluster.plans.recall(digest)
		trials, err := o.try(s, memory, false)
		if err != nil {
			return nil, err
		}
		moved.Moved = overwritten(trials, want.untried)
		if hashTrials(trials, want.untried) != want.live {
			moved.Moved = append(moved.Moved, whatMoved(trials, want.untried, memory)...)
		}
		if len(moved.Moved) > 0 {
			return nil, moved
		}
	}
	return &binding{release: d.name(), img: img, digest: want, content: o.content, repeated: own}, nil
}

// since parts a history at a revision. It reports whether run has made revisions
// after it, and returns one that somebody else has made.
func since(history []*release.Release, revision int, run string) (past []*release.Release, own bool, foreign *release.Release) {
	for _, rel := range history {
		switch {
		case rel.Version <= revision:
			past = append(past, rel)
		case run != "" && maker(rel) == runLabel(run):
			own = true
		default:
			foreign = rel
		}
	}
	return past, own, foreign
}

// overwritten names definitions of the crds folder that would be written now, and of which
// the plan says that they are as they should be.
func overwritten(trials []*trial, untried string) (out []string) {
	planned := among(untried)
	for i, t := range trials {
		if t.writesFolder() && !planned(i) {
			out = append(out, t.object.id.String()+" was changed or deleted")
		}
	}
	return out
}

// whatMoved names what differs from what the plan saw, as far as it is remembered.
func whatMoved(trials []*trial, untried string, memory map[identity]seen) []string {
	var out []string
	isUntried := among(untried)
	for i, t := range trials {
		was, known := memory[t.object.identity()]
		switch {
		case !known || was.hash == t.seen.hash || t.crds != CRDsRefuse:
		case isUntried(i) && was.uid == t.seen.uid && was.going == t.seen.going:
		case was.uid != "" && t.seen.uid == "":
			out = append(out, t.object.id.String()+" is gone")
		case was.uid != t.seen.uid:
			out = append(out, t.object.id.String()+" was made anew")
		default:
			out = append(out, t.object.id.String()+" was changed"+t.by())
		}
	}
	if len(out) == 0 {
		return []string{"live objects that the release would change have been changed, made or deleted"}
	}
	return out
}

// by names who holds the fields that would be changed.
func (t *trial) by() string {
	for _, d := range t.fields {
		if who := owner(t.live, d.path); who != "" {
			return fmt.Sprintf(" (%s by %s)", d.path, who)
		}
	}
	return ""
}

// holds checks that what Helm is about to apply is what was planned.
func (b *binding) holds(r *rendering) error {
	if b == nil || b.repeated {
		return nil
	}
	if hashContent(b.img, common(b.content, r.content())) == b.digest.manifests {
		return nil
	}
	return &MovedError{Release: b.release, Moved: []string{"what Helm is about to apply is not what was rendered for the gates"}}
}
