package helmx

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"helm.sh/helm/v3/pkg/release"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-dev/fairlead/stages"
)

// Plan renders the chart for the image, as the cluster's version and kinds would
// have it, and has the API server try, object by object and without changing
// anything, what Helm would send. The changes are what would become of the live
// objects, defaults and admission included; an object that the account may not try
// is compared with the deployed revision instead, and a note says so. Hooks are
// among the manifests, so that gates see them, and not among the changes: Plan.Hooks
// compares them with those of the deployed revision.
//
// Objects that don't fit the cluster are no error: their change has a
// [stages.Refusal]. An error means that the plan could not be made.
func (d *Deployer) Plan(ctx context.Context, req stages.PlanRequest) (stages.Plan, error) {
	if err := d.checkImage(req.Image); err != nil {
		return stages.Plan{}, fmt.Errorf("plan release %s: %w", d.name(), err)
	}
	plan, err := d.plan(ctx, req.Image, req.Defined)
	if err != nil {
		return stages.Plan{}, fmt.Errorf("plan release %s: %w", d.name(), err)
	}
	return plan, nil
}

func (d *Deployer) plan(ctx context.Context, img stages.Image, defined []stages.Kind) (stages.Plan, error) {
	s, err := d.session(ctx)
	if err != nil {
		return stages.Plan{}, err
	}
	s.learn(defined)
	history, err := s.history(d.cfg.Release)
	if err != nil {
		return stages.Plan{}, err
	}
	o, err := d.foresee(s, img, history)
	if err != nil {
		return stages.Plan{}, err
	}
	trials, err := o.try(s, nil, true)
	if err != nil {
		return stages.Plan{}, err
	}
	v := newVeil(s.secrets)
	plan := stages.Plan{Image: img, Release: d.name(), Digest: o.digest(trials), Defines: o.defines(s)}
	if plan.Manifests, err = o.rendered.stream(v); err != nil {
		return stages.Plan{}, err
	}
	for _, t := range trials {
		change, err := t.change(v)
		if err != nil {
			return stages.Plan{}, err
		}
		if change != nil {
			plan.Changes = append(plan.Changes, *change)
		}
		if drift := t.drift(v, change); drift != nil {
			plan.Drift = append(plan.Drift, *drift)
		}
		plan.Notes = append(plan.Notes, t.notes...)
	}
	flagMoves(plan.Changes)
	if plan.Hooks, err = o.hookChanges(v); err != nil {
		return stages.Plan{}, err
	}
	if plan.Dangers, err = o.hookDangers(s); err != nil {
		return stages.Plan{}, err
	}
	notes := slices.Concat(plan.Notes, o.notes, uncheckedImages(o.rendered.objects, d.cfg.ImageFields))
	plan.Notes = tidy(notes, v)
	d.cluster.plans.remember(plan.Digest, trials)
	return plan, nil
}

// tidy masks notes, and takes out those that say the same.
func tidy(notes []stages.Note, v veil) []stages.Note {
	seen := map[stages.Note]bool{}
	var out []stages.Note
	for _, n := range notes {
		n.Message = v.text(n.Message)
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	slices.SortStableFunc(out, func(a, b stages.Note) int { return cmp.Compare(a.Kind, b.Kind) })
	return out
}

// outlook is what a deployment would start from.
type outlook struct {
	release   string
	namespace string
	img       stages.Image
	// revision is the newest one, install whether there is none to upgrade.
	revision int
	install  bool
	rendered *rendering
	// crds is what becomes of the definitions in the crds folder.
	crds CRDs
	// redefined are kinds whose definitions the release, or one that goes before, changes.
	redefined map[schema.GroupKind]bool
	// content is what was rendered, with what renders anew every time marked.
	content any
	// before is what Helm takes for the present state.
	before []object
	// hooksBefore are the objects of the hooks of that state.
	hooksBefore []object
	notes       []stages.Note
}

// foresee renders, and reads what Helm would compare with. It tells the session
// what is secret.
func (d *Deployer) foresee(s *session, img stages.Image, history []*release.Release) (*outlook, error) {
	last := newest(history)
	o := &outlook{
		release: d.cfg.Release, namespace: d.cfg.Namespace, img: img, revision: revisionOf(last),
		crds: d.cfg.CRDs, install: last == nil || last.Info.Status == release.StatusUninstalled,
	}
	var err error
	if o.rendered, err = d.render(s, img, nextRevision(o.revision, o.install), !o.install); err != nil {
		return nil, err
	}
	if err := o.settle(d, s); err != nil {
		return nil, err
	}
	var former []string
	if !o.install {
		// The deployed revision, or failing that the last attempt.
		base := deployed(history)
		if base == nil {
			base = last
		}
		if o.before, err = parseObjects(base.Manifest, s.namespace, s.mapper); err != nil {
			return nil, fmt.Errorf("revision %d: %w", base.Version, err)
		}
		if o.hooksBefore, err = hookObjects(base.Hooks, s.namespace, s.mapper); err != nil {
			return nil, fmt.Errorf("revision %d: %w", base.Version, err)
		}
		former = append(secretStrings(o.before), d.source.secretsOfRecord(base)...)
	}
	s.secrets = slices.Concat(former, secretStrings(o.rendered.objects), secretStrings(o.rendered.hooked), d.source.secrets())
	return o, nil
}

// settle renders a chart that may not be deterministic once more.
func (o *outlook) settle(d *Deployer, s *session) error {
	o.content = o.rendered.content()
	if !d.source.volatile {
		return nil
	}
	again, err := d.render(s, o.img, nextRevision(o.revision, o.install), !o.install)
	if err != nil {
		return err
	}
	for i, obj := range o.rendered.objects {
		if i < len(again.objects) && !equalContent(obj.content, again.objects[i].content) {
			o.notes = append(o.notes, stages.Note{Kind: stages.NoteVolatile, Object: obj.id,
				Message: "it renders differently every time; the fields that do are not bound by the digest"})
		}
	}
	o.content = common(o.content, again.content())
	return nil
}
