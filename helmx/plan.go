package helmx

import (
	"context"
	"fmt"

	"helm.sh/helm/v3/pkg/release"

	"github.com/fairlead-dev/fairlead/stages"
)

// Plan renders the chart for the image, as the cluster's version and kinds would
// have it, and compares it with the manifest of the deployed revision. Hooks are
// among the manifests, so that gates see them, but not among the changes.
func (d *Deployer) Plan(ctx context.Context, req stages.PlanRequest) (stages.Plan, error) {
	if err := d.checkImage(req.Image); err != nil {
		return stages.Plan{}, fmt.Errorf("plan release %s: %w", d.name(), err)
	}
	plan, err := d.plan(ctx, req.Image)
	if err != nil {
		return stages.Plan{}, fmt.Errorf("plan release %s: %w", d.name(), err)
	}
	return plan, nil
}

func (d *Deployer) plan(ctx context.Context, img stages.Image) (stages.Plan, error) {
	s, err := d.session(ctx)
	if err != nil {
		return stages.Plan{}, err
	}
	history, err := s.history(d.cfg.Release)
	if err != nil {
		return stages.Plan{}, err
	}
	last := newest(history)
	install := last == nil || last.Info.Status == release.StatusUninstalled
	rendered, err := d.render(s, img, revisionOf(last)+1, !install)
	if err != nil {
		return stages.Plan{}, err
	}
	var before []object
	if !install {
		// What Helm takes for the present state: the deployed revision, or failing
		// that the last attempt.
		base := deployed(history)
		if base == nil {
			base = last
		}
		if before, err = parseObjects(base.Manifest, d.cfg.Namespace, s.mapper); err != nil {
			return stages.Plan{}, fmt.Errorf("revision %d: %w", base.Version, err)
		}
	}
	changes, err := compare(before, rendered.objects)
	if err != nil {
		return stages.Plan{}, err
	}
	manifests, err := rendered.stream(d.cfg.Namespace)
	if err != nil {
		return stages.Plan{}, err
	}
	return stages.Plan{Image: img, Release: d.name(), Manifests: manifests, Changes: changes}, nil
}
