package helmx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/release"

	"github.com/fairlead-dev/fairlead/stages"
)

// Deployer releases images with a Helm chart. It is safe for concurrent use.
type Deployer struct {
	cfg     Config
	source  *source
	cluster *Cluster
	// owned is whether the cluster is this Deployer's to close.
	owned bool
}

var (
	_ stages.Deployer    = (*Deployer)(nil)
	_ stages.Planner     = (*Deployer)(nil)
	_ stages.Compensator = (*Deployer)(nil)
	_ stages.Idempotent  = (*Deployer)(nil)
	_ stages.Closer      = (*Deployer)(nil)
	_ stages.Locker      = (*Deployer)(nil)
	_ stages.Uninstaller = (*Deployer)(nil)

	_ stages.FailureRecorder = (*Deployer)(nil)
)

// New returns a Deployer for cfg, whose chart and dependencies are local: it sends
// nothing anywhere, and all it takes is reading files. Its errors match
// [stages.ErrInvalid]. Use [Open] for a chart that has to be fetched.
func New(cfg Config) (*Deployer, error) {
	return newDeployer(context.Background(), cfg, false)
}

// Open is [New] for charts that may be remote: it fetches the chart, and the
// dependencies that it doesn't bring along, into memory. It sends nothing to the
// cluster. Its errors match [stages.ErrInvalid], unless ctx has ended or a host is
// unavailable; a [ChartError] says why a chart can't be used.
func Open(ctx context.Context, cfg Config) (*Deployer, error) {
	return newDeployer(ctx, cfg, true)
}

func newDeployer(ctx context.Context, cfg Config, online bool) (*Deployer, error) {
	if err := cfg.prepare(); err != nil {
		return nil, err
	}
	src := &source{layers: &layers{}}
	var err error
	if !cfg.RemoveOnly {
		if src, err = loadSource(ctx, &cfg, online); err != nil {
			return nil, invalidUnlessPassing(ctx, err)
		}
	}
	d := &Deployer{cfg: cfg, source: src, cluster: cfg.Cluster}
	if d.cluster == nil {
		if d.cluster, err = Connect(cfg.Kubernetes); err != nil {
			return nil, err
		}
		d.owned = true
	}
	return d, nil
}

// Close gives up idle connections, unless they are of a shared [Cluster].
func (d *Deployer) Close() error {
	if !d.owned {
		return nil
	}
	return d.cluster.Close()
}

// Chart tells which chart is released.
func (d *Deployer) Chart() ChartInfo {
	info := d.source.info
	info.Dependencies = slices.Clone(info.Dependencies)
	return info
}

// Idempotent reports whether a failed Deploy may be repeated, which is so unless
// the chart has hooks: they would run a second time. The repetition of a run
// takes over the revision that its failed attempt left pending.
func (d *Deployer) Idempotent() bool { return !d.source.hooks }

// Deploy installs the release, or upgrades it if there is one. It refuses with a
// [LockedError] while another operation holds it. A revision that was begun and
// not finished, because of a failure or a cancel, is left marked as failed.
func (d *Deployer) Deploy(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	if err := req.Clearance.Check(); err != nil {
		return stages.Release{}, fmt.Errorf("deploy release %s: %w", d.name(), err)
	}
	if d.cfg.Unscanned != "" {
		return stages.Release{}, fmt.Errorf("%w: deploy release %s: its chart takes no image of ours, use DeployUnscanned", stages.ErrInvalid, d.name())
	}
	img := req.Clearance.Image()
	rel, err := d.deploy(ctx, img, note{
		run: req.Run, image: img, commit: req.Source.Revision, author: req.Source.Author, bypass: req.Clearance.Bypass(),
		plan: req.Plan,
	})
	if err != nil {
		return stages.Release{}, fmt.Errorf("deploy %s as release %s: %w", img, d.name(), err)
	}
	return rel, nil
}

// UnscannedRequest asks for the release of a chart that brings its own images.
type UnscannedRequest struct {
	// Run identifies the run. It is recorded with the release.
	Run string
	// Source is recorded with the release.
	Source stages.Source
	// Plan, where set, is the digest of the plan that the release is held to: see
	// [stages.DeployRequest.Plan].
	Plan string
}

// DeployUnscanned is Deploy for a chart that brings nothing but images of its own.
// Config.Unscanned says why it may. [Deployer.Plan], [Deployer.Checkpoint] and
// [Deployer.Restore] take no image for it.
func (d *Deployer) DeployUnscanned(ctx context.Context, req UnscannedRequest) (stages.Release, error) {
	if d.cfg.Unscanned == "" {
		return stages.Release{}, fmt.Errorf("%w: deploy release %s: set Config.Unscanned to the reason why nothing of it was scanned", stages.ErrNotCleared, d.name())
	}
	rel, err := d.deploy(ctx, stages.Image{}, note{
		run: req.Run, commit: req.Source.Revision, author: req.Source.Author, unscanned: d.cfg.Unscanned,
		plan: req.Plan,
	})
	if err != nil {
		return stages.Release{}, fmt.Errorf("deploy release %s: %w", d.name(), err)
	}
	return rel, nil
}

// checkImage refuses an image where there must be none, and none where there must
// be one.
func (d *Deployer) checkImage(img stages.Image) error {
	switch {
	case d.cfg.RemoveOnly:
		return nil
	case d.cfg.Unscanned == "" && img.IsZero():
		return fmt.Errorf("%w: there is no image", stages.ErrInvalid)
	case d.cfg.Unscanned != "" && !img.IsZero():
		return fmt.Errorf("%w: the chart takes no image of ours, and there is %s", stages.ErrInvalid, img)
	}
	return nil
}

func (d *Deployer) deploy(ctx context.Context, img stages.Image, n note) (stages.Release, error) {
	if !d.cfg.SkipPreflight {
		s, err := d.session(ctx)
		if err != nil {
			return stages.Release{}, err
		}
		if _, err := d.begin(s, img, true); err != nil {
			return stages.Release{}, err
		}
	}
	bound, h, done, err := d.locked(ctx, n.run)
	if err != nil {
		return stages.Release{}, err
	}
	defer done()
	if d.cfg.Lock.Off || h.lease != nil {
		return d.deployLocked(bound, img, n, nil)
	}
	first, err := d.enter(bound, img, n, h)
	if err != nil {
		return stages.Release{}, err
	}
	bound, unbind := h.bind(bound)
	defer unbind()
	return d.deployLocked(bound, img, n, first)
}

// entry is what was found before the namespace was made.
type entry struct{ plan *binding }

// enter makes the namespace and takes the lock in it. There can be no release, so
// that this is the time to compare with the plan, and to refuse what can't be
// rendered.
func (d *Deployer) enter(ctx context.Context, img stages.Image, n note, h *hold) (*entry, error) {
	s, err := d.session(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := d.render(s, img, 1, false); err != nil {
		return nil, err
	}
	plan, err := d.bind(s, n.plan, img, nil, n.run)
	switch {
	case err != nil:
		return nil, err
	case !d.cfg.CreateNamespace:
		return nil, stages.Permanent(fmt.Errorf("namespace %s does not exist; make it, or set CreateNamespace", d.cfg.Namespace))
	}
	if err := d.createNamespace(s, n.run); err != nil {
		return nil, err
	}
	if err := d.place(ctx, h, n.run); err != nil {
		return nil, err
	}
	if h.lease == nil {
		return nil, fmt.Errorf("namespace %s went away as soon as it was made", d.cfg.Namespace)
	}
	return &entry{plan}, nil
}

// deployLocked deploys under the lock. Where it was taken in a namespace that was
// made for it, first is what was found before.
func (d *Deployer) deployLocked(ctx context.Context, img stages.Image, n note, first *entry) (stages.Release, error) {
	s, err := d.session(ctx)
	if err != nil {
		return stages.Release{}, err
	}
	found, err := d.begin(s, img, false) // The rights were checked before the lock was taken.
	if err != nil {
		return stages.Release{}, err
	}
	history, rendered := found.history, found.rendered
	if err := d.unlock(s, history, n.run); err != nil {
		return stages.Release{}, err
	}
	var plan *binding
	if first != nil && len(history) == 0 {
		plan = first.plan
	} else if plan, err = d.bind(s, n.plan, img, history, n.run); err != nil {
		return stages.Release{}, err
	}
	s.secrets = slices.Concat(s.secrets, secretStrings(rendered.objects), secretStrings(rendered.hooked), d.source.secrets())
	if d.cfg.CreateNamespace && d.cfg.Lock.Off {
		if err := d.createNamespace(s, n.run); err != nil {
			return stages.Release{}, err
		}
	}
	if last := newest(history); removing(last) != "" {
		if err := s.awaitDeletions(last, d.cfg.Timeout); err != nil {
			return stages.Release{}, err
		}
	}
	n.locked = !d.cfg.Lock.Off
	record := &recorder{Driver: s.store(), note: n, marks: s.marks, check: d.pinned(s, img, plan, history)}
	stages.ReportProgress(ctx, stages.Progress{Message: fmt.Sprintf("applying revision %d of release %s", revisionOf(newest(history))+1, d.name())})
	rel, err := d.apply(s, record, img, found.install)
	d.outdate(append(history, &release.Release{Manifest: rendered.manifest}))
	if err == nil && record.unsettled() {
		err = errNotRecorded // Helm's install only logs this.
	}
	if err != nil {
		err = s.explain(err)
		if record.unsettled() {
			err = d.settle(ctx, record.created.Version, n.run, err)
		}
		return stages.Release{}, err
	}
	s.tidy(history, rel)
	objects, err := parseObjects(rel.Manifest, d.cfg.Namespace, s.mapper)
	if err != nil {
		return stages.Release{}, err
	}
	return stages.Release{
		Image: img, Name: d.cfg.Release, Namespace: d.cfg.Namespace,
		Revision: rel.Version, Previous: revisionOf(deployed(history)),
		Objects: ids(objects), Began: beganAt(rel), Deployed: time.Now().UTC(),
	}, nil
}

var errNotRecorded = errors.New("the objects were applied, but the outcome could not be stored in the release record")

// apply runs Helm's action to its end. The actions' own handling of contexts is
// not used, because it returns while the work goes on: the session's requests end
// with its context, and thereby the work.
func (d *Deployer) apply(s *session, record *recorder, img stages.Image, install bool) (*release.Release, error) {
	chart, values, err := d.source.instance(d.cfg.Logger)
	if err != nil {
		return nil, err
	}
	if err := d.cfg.Image.inject(values, img); err != nil {
		return nil, err
	}
	if err := d.source.pin(chart, img, d.cfg.ImageFields); err != nil {
		return nil, err
	}
	cfg := s.actions(record, d.cfg.HistoryMax)
	if install {
		i := action.NewInstall(cfg)
		i.ReleaseName, i.Namespace = d.cfg.Release, d.cfg.Namespace
		i.Timeout = d.cfg.Timeout
		i.SkipSchemaValidation = true // It was validated before, see render.
		i.SkipCRDs = true             // They have been seen to, see define.
		i.TakeOwnership = d.cfg.TakeOwnership
		i.Description = record.note.description()
		i.Replace = true // Only ever of a release that was uninstalled with its history kept.
		return i.Run(chart, values)
	}
	u := action.NewUpgrade(cfg)
	u.Namespace = d.cfg.Namespace
	u.MaxHistory = d.cfg.HistoryMax
	u.Timeout = d.cfg.Timeout
	u.Description = record.note.description()
	u.ResetValues = true
	u.TakeOwnership = d.cfg.TakeOwnership
	u.SkipSchemaValidation = true // As above.
	return u.Run(d.cfg.Release, chart, values)
}

// pinned checks what Helm is about to apply, which may differ from what was
// rendered before if the chart is not deterministic.
// A deployment that is bound to a plan is held to what the gates have seen. The last
// thing before the revision is recorded are the definitions of the crds folder; before
// that, it is marked which of its objects are there already.
func (d *Deployer) pinned(s *session, img stages.Image, bound *binding, history []*release.Release) func(*release.Release) error {
	return func(rel *release.Release) error {
		about, err := d.newRendering(s, rel.Manifest, rel.Hooks, img)
		if err != nil {
			return err
		}
		if err := bound.holds(about); err != nil {
			return err
		}
		if err := d.checkOwners(s, about.objects); err != nil {
			return err
		}
		if err := s.find(d.cfg.Release, about.objects, deployed(history)); err != nil {
			return err
		}
		return d.define(s)
	}
}

// settleTime bounds the one thing that is done after a cancel.
const settleTime = 5 * time.Second

// settle marks the revision that an action left pending as failed, so that no
// release is ever left locked by a process that lives. It joins what goes wrong
// to cause and returns that.
func (d *Deployer) settle(ctx context.Context, revision int, run string, cause error) error {
	if errors.Is(context.Cause(ctx), stages.ErrLockLost) {
		return cause // Whoever has the lock finds it, and puts it right.
	}
	fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	s, err := d.session(fresh)
	if err == nil {
		var history []*release.Release
		history, err = s.history(d.cfg.Release)
		for _, rel := range history {
			if rel.Version == revision && rel.Info.Status.IsPending() && maker(rel) == runLabel(run) {
				err = s.markFailed(rel, fmt.Sprintf("fairlead run %q: interrupted: %s", run, d.line(s, cause)))
			}
		}
	}
	if err != nil {
		return errors.Join(cause, fmt.Errorf("revision %d stays locked until it is restored: %w", revision, err))
	}
	return cause
}

func (d *Deployer) name() string { return d.cfg.Namespace + "/" + d.cfg.Release }
