package helmx

import (
	"context"
	"fmt"

	"helm.sh/helm/v3/pkg/release"

	"github.com/fairlead-dev/fairlead/stages"
)

// PlanRemoval tells what [Deployer.Uninstall] would delete, by having the API server
// try it, and changes nothing. What would stay is in the notes. The digest is that of
// a plan and serves to tell whether something else would be removed by now.
func (d *Deployer) PlanRemoval(ctx context.Context, run string) (stages.Plan, error) {
	plan, err := d.planRemoval(ctx)
	if err != nil {
		return stages.Plan{}, fmt.Errorf("plan the removal of release %s by run %s: %w", d.name(), run, err)
	}
	return plan, nil
}

func (d *Deployer) planRemoval(ctx context.Context) (stages.Plan, error) {
	s, err := d.session(ctx)
	if err != nil {
		return stages.Plan{}, err
	}
	history, err := s.history(d.cfg.Release)
	if err != nil {
		return stages.Plan{}, err
	}
	plan := stages.Plan{Release: d.name()}
	e := &estate{history: history}
	if len(history) > 0 && e.last().Info.Status != release.StatusUninstalled {
		if e, err = d.appraise(s, history); err != nil {
			return stages.Plan{}, err
		}
	}
	v := newVeil(s.secrets)
	var trials []*trial
	for _, o := range e.doomed {
		t, err := s.newTrial(o, &o, true)
		if err == nil {
			err = t.run(d.cfg.Release, d.cfg.Namespace, nil)
		}
		if err != nil {
			return stages.Plan{}, s.explain(err)
		}
		change, err := t.change(v)
		if err != nil {
			return stages.Plan{}, err
		}
		if change != nil {
			plan.Changes = append(plan.Changes, *change)
		}
		plan.Notes = append(plan.Notes, t.notes...)
		trials = append(trials, t)
	}
	for _, o := range e.left() {
		plan.Notes = append(plan.Notes, stages.Note{Kind: stages.NoteKept, Object: o.id, Message: "it stays: " + e.why[o.identity()]})
	}
	plan.Notes = tidy(plan.Notes, v)
	about := []any{"uninstall", ids(e.left())}
	plan.Digest = planDigest{revisionOf(e.last()), hashContent(stages.Image{}, about), hashTrials(trials, ""), ""}.String()
	return plan, nil
}
