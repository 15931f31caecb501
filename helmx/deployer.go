package helmx

import (
	"context"
	"errors"
	"fmt"
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
)

// New returns a Deployer for cfg. It reads the chart and all values, and sends
// nothing to the cluster. Its errors match [stages.ErrInvalid].
func New(cfg Config) (*Deployer, error) {
	if err := cfg.prepare(); err != nil {
		return nil, err
	}
	src, err := loadSource(cfg.Chart, cfg.Values, cfg.SkipCRDs, cfg.Logger)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", stages.ErrInvalid, err)
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
	case d.cfg.Unscanned == "" && img.IsZero():
		return fmt.Errorf("%w: there is no image", stages.ErrInvalid)
	case d.cfg.Unscanned != "" && !img.IsZero():
		return fmt.Errorf("%w: the chart takes no image of ours, and there is %s", stages.ErrInvalid, img)
	}
	return nil
}

func (d *Deployer) deploy(ctx context.Context, img stages.Image, n note) (stages.Release, error) {
	s, err := d.session(ctx)
	if err != nil {
		return stages.Release{}, err
	}
	o, err := d.begin(s, img, !d.cfg.SkipPreflight)
	if err != nil {
		return stages.Release{}, err
	}
	history, rendered := o.history, o.rendered
	if err := d.unlock(s, history, n.run); err != nil {
		return stages.Release{}, err
	}
	s.secrets = append(secretStrings(rendered.objects), secretStrings(rendered.hooked)...)
	if d.cfg.CreateNamespace {
		if err := d.createNamespace(s, n.run); err != nil {
			return stages.Release{}, err
		}
	}
	record := &recorder{Driver: s.store(), note: n, check: d.pinned(s, img)}
	stages.ReportProgress(ctx, stages.Progress{Message: fmt.Sprintf("applying revision %d of release %s", revisionOf(newest(history))+1, d.name())})
	rel, err := d.apply(s, record, img, o.install)
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
	objects, err := parseObjects(rel.Manifest, d.cfg.Namespace, s.mapper)
	if err != nil {
		return stages.Release{}, err
	}
	return stages.Release{
		Image: img, Name: d.cfg.Release, Namespace: d.cfg.Namespace,
		Revision: rel.Version, Previous: revisionOf(deployed(history)),
		Objects: ids(objects), Deployed: time.Now().UTC(),
	}, nil
}

var errNotRecorded = errors.New("the objects were applied, but the outcome could not be stored in the release record")

// unlock refuses a release that another operation holds. A revision that run
// itself left pending, at an earlier attempt, is marked as failed.
func (d *Deployer) unlock(s *session, history []*release.Release, run string) error {
	last := newest(history)
	if last == nil || !last.Info.Status.IsPending() && last.Info.Status != release.StatusUninstalling {
		return nil
	}
	if run != "" && maker(last) == runLabel(run) && last.Info.Status.IsPending() {
		return s.markFailed(last, fmt.Sprintf("fairlead run %q: interrupted", run))
	}
	since := last.Info.LastDeployed.Time
	return &LockedError{
		Release: d.cfg.Release, Namespace: d.cfg.Namespace, Revision: last.Version,
		Status: last.Info.Status.String(), Since: since, Age: time.Since(since), Run: maker(last),
	}
}

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
	cfg := s.actions(record, d.cfg.HistoryMax)
	if install {
		i := action.NewInstall(cfg)
		i.ReleaseName, i.Namespace = d.cfg.Release, d.cfg.Namespace
		i.Timeout = d.cfg.Timeout
		i.SkipCRDs = true // New has seen to it that this leaves nothing out unasked.
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
	return u.Run(d.cfg.Release, chart, values)
}

// pinned checks what Helm is about to apply, which may differ from what was
// rendered before if the chart is not deterministic.
func (d *Deployer) pinned(s *session, img stages.Image) func(*release.Release) error {
	return func(rel *release.Release) error {
		_, err := newRendering(rel.Manifest, rel.Hooks, d.cfg.Namespace, s.mapper, img)
		return err
	}
}

// settleTime bounds the one thing that is done after a cancel.
const settleTime = 5 * time.Second

// settle marks the revision that an action left pending as failed, so that no
// release is ever left locked by a process that lives. It joins what goes wrong
// to cause and returns that.
func (d *Deployer) settle(ctx context.Context, revision int, run string, cause error) error {
	fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	s, err := d.session(fresh)
	if err == nil {
		var history []*release.Release
		history, err = s.history(d.cfg.Release)
		for _, rel := range history {
			if rel.Version == revision && rel.Info.Status.IsPending() && maker(rel) == runLabel(run) {
				err = s.markFailed(rel, fmt.Sprintf("fairlead run %q: interrupted: %s", run, cause))
			}
		}
	}
	if err != nil {
		return errors.Join(cause, fmt.Errorf("revision %d stays locked until it is restored: %w", revision, err))
	}
	return cause
}

func (d *Deployer) name() string { return d.cfg.Namespace + "/" + d.cfg.Release }
