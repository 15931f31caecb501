package helmx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage"
	helmtime "helm.sh/helm/v3/pkg/time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Uninstall removes the release with the chart's delete hooks, and returns when its
// objects are gone; the pods of its workloads may still take their grace period.
// What earlier revisions have left goes too, and so do the Jobs and Pods that hooks
// have run. Left in place, and reported as kept, are objects that the chart or
// somebody else has marked to be kept, that were there before the release took them
// over, as far as its history goes back, that belong to another release by now, and what hooks made beside Jobs and
// Pods: charts use hooks for what is to outlive a release.
//
// It refuses with a [LockedError] while another operation holds the release. What
// it leaves half done, by a failure, a cancel or a kill, the next Uninstall
// finishes, the next Deploy makes whole again, and a Restore to before brings back.
// The records go last, unless [Config.KeepHistory] is set.
func (d *Deployer) Uninstall(ctx context.Context, run string) (stages.Removal, error) {
	if run == "" {
		return stages.Removal{}, fmt.Errorf("%w: uninstall release %s: there is no run to do it under", stages.ErrInvalid, d.name())
	}
	removal, err := d.remove(ctx, run)
	if err != nil {
		return stages.Removal{}, fmt.Errorf("uninstall release %s: %w", d.name(), err)
	}
	return removal, nil
}

func (d *Deployer) remove(ctx context.Context, run string) (stages.Removal, error) {
	removal := stages.Removal{Release: d.name()}
	ctx, _, done, err := d.locked(ctx, run)
	if err != nil {
		return removal, err
	}
	defer done()
	s, err := d.session(ctx)
	if err != nil {
		return removal, err
	}
	history, err := s.history(d.cfg.Release)
	if err != nil || len(history) == 0 {
		return removal, err
	}
	if newest(history).Info.Status == release.StatusUninstalled {
		return removal, d.forget(s, history, d.cfg.KeepHistory)
	}
	if err := d.unlock(s, history, run); err != nil {
		return removal, err
	}
	e, err := d.appraise(s, history)
	if err != nil {
		return removal, err
	}
	if !d.cfg.SkipPreflight {
		if err := d.mayRemove(s, e); err != nil {
			return removal, err
		}
	}
	defer d.outdate(history)
	if err := d.dissolve(s, e, run); err != nil {
		return removal, d.settleRemoval(ctx, run, err)
	}
	removal.Removed, removal.Kept = ids(e.doomed), ids(e.left())
	return removal, nil
}

// dissolve deletes what is doomed and then the records. Helm's own order is kept:
// hooks, objects, hooks. It keeps the records whatever happens, so that a failure
// can be made good.
func (d *Deployer) dissolve(s *session, e *estate, run string) error {
	stages.ReportProgress(s.ctx, stages.Progress{Message: fmt.Sprintf("uninstalling release %s: %d objects", d.name(), len(e.doomed))})
	if err := d.announce(s, e.last(), run); err != nil {
		return err
	}
	s.kube.spared = map[identity]bool{}
	for _, o := range e.kept {
		s.kube.spared[o.identity()] = true
	}
	s.kube.removal = &removalWait{timeout: d.cfg.Timeout}
	if err := s.removeAndWait(e.stale, d.cfg.Timeout); err != nil {
		return err
	}
	u := action.NewUninstall(s.actions(s.store(), 0))
	u.Timeout, u.KeepHistory = d.cfg.Timeout, true
	u.Description = fmt.Sprintf("fairlead run %q: uninstalled", run)
	done, err := u.Run(d.cfg.Release)
	if err != nil {
		return s.explain(errors.Join(s.kube.removal.err, err))
	}
	e.history[len(e.history)-1] = done.Release // With the delete hooks that have run.
	if err := e.findHooked(s); err != nil {
		return err
	}
	return d.forget(s, e.history, d.cfg.KeepHistory)
}

// announce writes into the record who removes the release, before anything is
// deleted. Helm itself does so later, and doesn't say who.
func (d *Deployer) announce(s *session, last *release.Release, run string) error {
	last.Info.Status, last.Info.Deleted = release.StatusUninstalling, helmtime.Now()
	last.Info.Description = fmt.Sprintf("fairlead run %q: uninstalling", run)
	if last.Labels == nil {
		last.Labels = map[string]string{}
	}
	last.Labels[LabelUninstall] = runLabel(run)
	delete(last.Labels, LabelLocked)
	if !d.cfg.Lock.Off {
		last.Labels[LabelLocked] = "true"
	}
	if err := storage.Init(s.store()).Update(last); err != nil {
		return s.explain(fmt.Errorf("mark revision %d as being uninstalled: %w", last.Version, err))
	}
	return nil
}

// forget ends an uninstallation: it deletes the Jobs and Pods of hooks, and the
// records unless they are to be kept, the newest last.
func (d *Deployer) forget(s *session, history []*release.Release, keep bool) error {
	ran, err := s.ran(history)
	if err != nil {
		return err
	}
	ran = slices.DeleteFunc(ran, func(o object) bool { return !o.runs() || o.kept() })
	if err := s.removeAndWait(ran, d.cfg.Timeout); err != nil {
		return err
	}
	if keep {
		return nil
	}
	records := storage.Init(s.store())
	for _, rel := range history {
		if _, err := records.Delete(rel.Name, rel.Version); err != nil {
			return s.explain(fmt.Errorf("delete the record of revision %d: %w", rel.Version, err))
		}
	}
	return nil
}

// Forget deletes the records of a release that was uninstalled with its history
// kept. One that isn't there, or isn't uninstalled, is left alone.
func (d *Deployer) Forget(ctx context.Context, run string) error {
	if err := d.forgetUninstalled(ctx, run); err != nil {
		return fmt.Errorf("delete the records of release %s: %w", d.name(), err)
	}
	return nil
}

func (d *Deployer) forgetUninstalled(ctx context.Context, run string) error {
	ctx, _, done, err := d.locked(ctx, run)
	if err != nil {
		return err
	}
	defer done()
	s, err := d.session(ctx)
	if err != nil {
		return err
	}
	history, err := s.history(d.cfg.Release)
	if err != nil || len(history) == 0 || newest(history).Info.Status != release.StatusUninstalled {
		return err
	}
	return d.forget(s, history, false)
}

// settleRemoval marks the revision whose uninstallation has failed as such. It
// joins what goes wrong to cause and returns that.
func (d *Deployer) settleRemoval(ctx context.Context, run string, cause error) error {
	if errors.Is(context.Cause(ctx), stages.ErrLockLost) {
		return cause // Whoever has the lock finds it, and puts it right.
	}
	fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	s, err := d.session(fresh)
	var history []*release.Release
	if err == nil {
		history, err = s.history(d.cfg.Release)
	}
	if last := newest(history); err == nil && removing(last) == runLabel(run) {
		err = s.markFailed(last, fmt.Sprintf("fairlead run %q: uninstalled in part: %s", run, d.line(s, cause)))
	}
	if err != nil {
		return errors.Join(cause, fmt.Errorf("the release stays marked as being uninstalled: %w", err))
	}
	return cause
}

// removing returns the label of the run that has begun to uninstall a revision, or
// "" for none of this package's.
func removing(rel *release.Release) string {
	if rel == nil {
		return ""
	}
	switch rel.Info.Status {
	case release.StatusUninstalling, release.StatusUninstalled, release.StatusFailed:
		return rel.Labels[LabelUninstall]
	}
	return ""
}

// removalWait makes a deletion by Helm wait until the objects are gone: Helm's own
// wait goes on to delete the records when its time is over.
type removalWait struct {
	timeout time.Duration
	// err is what the deletion failed of, which Helm only logs.
	err error
}

func (w *removalWait) failed(errs ...error) []error {
	w.err = errors.Join(append([]error{w.err}, errs...)...)
	return errs
}
