package helmx

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/release"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/fairlead-dev/fairlead/stages"
)

// Restore brings the recorded revision back, or uninstalls a release that there
// was none of, and compares the live objects with it. Revisions that the run
// itself left pending when it was killed are recovered; a revision that somebody
// else made since is reported as [stages.Impossible] and left alone. An API server
// that can't be reached is waited for until ctx ends, for Config.Timeout at most:
// a release that it went away from in the middle of an upgrade needs Restore most.
// What was there before the run stays, and so does a definition of whose kind there are
// objects that don't go with it: the outcome is [stages.Diverged] then, and names them.
// Whether pods come up again is not for Restore to wait for: it names the release
// that it has brought back, for a [stages.RestoreVerifier].
func (d *Deployer) Restore(ctx context.Context, run string, cp stages.Checkpoint) (stages.Restoration, error) {
	if run == "" {
		return stages.Restoration{}, fmt.Errorf("%w: restore release %s: there is no run to undo", stages.ErrInvalid, d.name())
	}
	st, err := d.decode(cp)
	if err != nil {
		return stages.Restoration{}, err
	}
	restored, err := d.insist(ctx, run, st)
	if err != nil {
		return stages.Restoration{}, fmt.Errorf("restore release %s: %w", d.name(), err)
	}
	restored.Subject = cp.Subject
	return restored, nil
}

// insistence is how long after each other an API server that is away is tried.
var insistence = wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.1, Steps: math.MaxInt32, Cap: 15 * time.Second}

// insist restores once the API server answers.
func (d *Deployer) insist(ctx context.Context, run string, st state) (restored stages.Restoration, err error) {
	patient, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	var away error
	_ = insistence.DelayFunc().Until(patient, true, true, func(context.Context) (done bool, _ error) {
		restored, err = d.restore(ctx, run, st)
		if ctx.Err() != nil || !isAway(err) {
			return true, nil //nolint:nilerr // It is insist's.
		}
		away = err
		stages.ReportProgress(ctx, stages.Progress{ID: "restore", Message: fmt.Sprintf("restore release %s: trying again: %s", d.name(), err)})
		return false, nil
	})
	if err == nil || ctx.Err() == nil || errors.Is(err, stages.ErrLocked) {
		return restored, err
	}
	err = d.cluster.ended(ctx)
	if _, told := errors.AsType[*APIError](err); !told && away != nil {
		err = fmt.Errorf("%w: %w", err, away)
	}
	return restored, err
}

func (d *Deployer) restore(ctx context.Context, run string, st state) (stages.Restoration, error) {
	ctx, h, done, err := d.locked(ctx, run)
	if err != nil {
		return stages.Restoration{}, err
	}
	defer done()
	s, err := d.session(ctx)
	if err != nil {
		return stages.Restoration{}, err
	}
	s.hold = h
	history, err := s.history(d.cfg.Release)
	if err != nil {
		return stages.Restoration{}, err
	}
	defer d.outdate(history)
	for _, rel := range history {
		if objects, err := parseObjects(rel.Manifest, s.namespace, nil); err == nil {
			s.secrets = append(s.secrets, secretStrings(objects)...)
		}
		s.secrets = append(s.secrets, d.source.secretsOfRecord(rel)...)
	}
	todo, why, own := assess(st, history, run)
	lasting, err := s.lasting(own)
	if err != nil {
		return stages.Restoration{}, err
	}
	restored, err := d.take(s, run, st, todo, why, own, history)
	if err == nil {
		restored.Message += lasting
	}
	return restored, err
}

// take does what a restore has to do.
func (d *Deployer) take(s *session, run string, st state, todo course, why string, own, history []*release.Release) (stages.Restoration, error) {
	switch todo {
	case leaveAlone:
		return told(stages.Unchanged, why, nil)
	case giveUp:
		err := d.release(s, own, run)
		return told(stages.Impossible, why, err)
	case vacate:
		return told(d.vacate(s, run, st, stages.Unchanged, why))
	case uninstall:
		return told(d.uninstall(s, run, st, own))
	case inspect:
		differences, err := s.drift(target(st, history), own)
		if err != nil {
			return stages.Restoration{}, err
		}
		if len(differences) == 0 {
			rel, err := d.broughtBack(s, history)
			return stages.Restoration{Outcome: stages.Unchanged, Message: why, Release: rel}, err
		}
	case rollBack:
		if last := newest(history); last.Info.Status == release.StatusUninstalling {
			if err := s.markFailed(last, fmt.Sprintf("fairlead run %q: interrupted while uninstalling", run)); err != nil {
				return stages.Restoration{}, err
			}
		}
	}
	return d.rollBack(s, run, st, target(st, history), own, history)
}

// told is a restoration that has brought no release back.
func told(outcome stages.RestoreOutcome, message string, err error) (stages.Restoration, error) {
	return stages.Restoration{Outcome: outcome, Message: message}, err
}

// broughtBack returns the release of the newest revision, which has restored
// another. It has no image if its records don't tell it.
func (d *Deployer) broughtBack(s *session, history []*release.Release) (*stages.Release, error) {
	last := newest(history)
	objects, err := parseObjects(last.Manifest, d.cfg.Namespace, s.mapper)
	if err != nil {
		return nil, err
	}
	n, _ := d.noteOf(last, history, objects)
	rel := d.releaseOf(last, objects, n.image)
	return &rel, nil
}

// release takes a revision of the run out of its pending state where nothing more
// can be done, lest it lock the release for good.
func (d *Deployer) release(s *session, own []*release.Release, run string) error {
	if last := newest(own); last != nil && last.Info.Status.IsPending() {
		return s.markFailed(last, fmt.Sprintf("fairlead run %q: interrupted", run))
	}
	return nil
}

func (d *Deployer) rollBack(s *session, run string, st state, to *release.Release, own, history []*release.Release) (stages.Restoration, error) {
	if err := d.release(s, own, run); err != nil {
		return stages.Restoration{}, err
	}
	older, err := s.adopted(own, to)
	if err != nil {
		return stages.Restoration{}, err
	}
	spared := s.spare(older)
	stay, err := parseObjects(to.Manifest, s.namespace, s.mapper)
	if err != nil {
		return stages.Restoration{}, err
	}
	s.kube.base = index(stay)
	if err := d.removeHooks(s, own, to); err != nil {
		return stages.Restoration{}, err
	}
	used, err := s.spareDefinitions(own, to)
	if err != nil {
		return stages.Restoration{}, err
	}
	spared = append(spared, used...)
	if err := s.awaitDeletions(to, d.cfg.Timeout); err != nil {
		return told(d.stuck(s, err))
	}
	stages.ReportProgress(s.ctx, stages.Progress{Message: fmt.Sprintf("rolling release %s back to revision %d", d.name(), st.Revision)})
	record := &recorder{
		Driver: s.store(), check: func(*release.Release) error { return nil },
		note: note{run: run, restores: st.Revision, locked: !d.cfg.Lock.Off},
	}
	rollback := action.NewRollback(s.actions(record, 0))
	rollback.Version = to.Version
	rollback.Timeout = d.cfg.Timeout
	// Nothing may be pruned here, lest the revision to go back to be lost half way.
	rollback.MaxHistory = 0
	if err := rollback.Run(d.cfg.Release); err != nil {
		err = s.explain(err)
		if record.unsettled() {
			err = d.settle(s.ctx, record.created.Version, run, err)
		}
		return told(d.stuck(s, err))
	}
	stale, err := s.leftovers(own, to)
	if err == nil {
		err = s.remove(stale)
	}
	if err != nil {
		return told(d.stuck(s, err))
	}
	differences, err := d.settled(s, to, own)
	if err != nil {
		return stages.Restoration{}, err
	}
	revision := record.created.Version
	if differences = append(spared, differences...); len(differences) > 0 {
		hide := newVeil(slices.Concat(s.secrets, d.source.secrets()))
		return told(stages.Diverged, fmt.Sprintf("revision %d is applied again as revision %d, but the cluster differs:\n  %s",
			st.Revision, revision, hide.text(strings.Join(differences, "\n  "))), nil)
	}
	rel, err := d.broughtBack(s, append(history, record.created))
	return stages.Restoration{
		Outcome: stages.Restored, Release: rel,
		Message: fmt.Sprintf("revision %d is back as revision %d, compared with the live objects", st.Revision, revision),
	}, err
}

// settled waits for what was deleted to be gone, and returns what still differs.
func (d *Deployer) settled(s *session, to *release.Release, own []*release.Release) ([]string, error) {
	gone, err := s.leftovers(own, to)
	if err != nil {
		return nil, err
	}
	late, err := s.awaitGone(gone, d.cfg.Timeout)
	if err != nil {
		return nil, err
	}
	differences, err := s.drift(to, nil)
	return append(differences, late...), err
}

// stuck tells a restore that the cluster refused, whose outcome is known, from
// one that could not be carried through.
func (d *Deployer) stuck(s *session, err error) (stages.RestoreOutcome, string, error) {
	if s.ctx.Err() != nil {
		return "", "", d.cluster.ended(s.ctx)
	}
	if failure, ok := errors.AsType[*APIError](err); ok && failure.Reason == Unavailable {
		return "", "", err
	}
	message := "the rollback did not succeed: " + err.Error()
	if strings.Contains(message, "storedVersions") {
		message += "; " + storedRemedy
	}
	return stages.Diverged, message, nil
}

func (d *Deployer) uninstall(s *session, run string, st state, own []*release.Release) (stages.RestoreOutcome, string, error) {
	older, err := s.adopted(own, nil)
	if err != nil {
		return "", "", err
	}
	spared := s.spare(older)
	if err := d.removeHooks(s, own, nil); err != nil {
		return "", "", err
	}
	used, err := s.spareDefinitions(own, nil)
	if err != nil {
		return "", "", err
	}
	spared = append(spared, used...)
	stages.ReportProgress(s.ctx, stages.Progress{Message: fmt.Sprintf("uninstalling release %s", d.name())})
	// Objects of earlier attempts of the run go first: once Helm has uninstalled the
	// newest, nothing tells of them any more.
	stale, err := s.leftovers(own, nil)
	if err == nil {
		err = s.remove(stale)
	}
	if err != nil {
		return d.stuck(s, err)
	}
	late, err := s.awaitGone(stale, d.cfg.Timeout)
	if err != nil {
		return "", "", err
	}
	doomed, err := parseObjects(newest(own).Manifest, s.namespace, s.mapper)
	if err != nil {
		return "", "", err
	}
	doomed = slices.DeleteFunc(doomed, func(o object) bool { return o.kept() || s.kube.spares(o.identity()) })
	u := action.NewUninstall(s.actions(s.store(), 0))
	u.Timeout = d.cfg.Timeout
	u.KeepHistory = st.Newest > 0
	// The chart's delete hooks are for an application that has run. Here they would
	// run with the image that has just failed.
	u.DisableHooks = true
	u.Description = fmt.Sprintf("fairlead run %q: uninstalled after a failed install", run)
	if _, err := u.Run(d.cfg.Release); err != nil {
		return d.stuck(s, s.explain(err))
	}
	// Helm asks for the deletion and doesn't wait for it.
	still, err := s.awaitGone(doomed, d.cfg.Timeout)
	if err != nil {
		return "", "", err
	}
	if late = slices.Concat(spared, late, still); len(late) > 0 {
		return stages.Diverged, "uninstalled, but the cluster differs:\n  " + strings.Join(late, "\n  "), nil
	}
	message := "the release was uninstalled; there was none before"
	if kept := keptObjects(own, d.cfg.Namespace); len(kept) > 0 {
		message += "; kept by its resource policy: " + strings.Join(kept, ", ")
	}
	return d.vacate(s, run, st, stages.Restored, message)
}

// vacate removes the namespace if it was made for the release, and returns the
// outcome of the restore that it is the last step of.
func (d *Deployer) vacate(s *session, run string, st state, outcome stages.RestoreOutcome, message string) (stages.RestoreOutcome, string, error) {
	if st.NamespaceExisted {
		return outcome, message, nil
	}
	removed, obstacle, err := d.removeNamespace(s, run)
	switch {
	case err != nil:
		return "", "", err
	case obstacle != "":
		return stages.Diverged, message + "; " + obstacle, nil
	case !removed:
		return outcome, message, nil
	}
	late, err := s.awaitGone([]object{namespaceObject(s.namespace)}, d.cfg.Timeout)
	switch {
	case err != nil:
		return "", "", err
	case len(late) > 0:
		return stages.Diverged, message + "; namespace " + s.namespace + " is still being deleted", nil
	}
	return stages.Restored, message + "; namespace " + s.namespace + " was removed", nil
}

func namespaceObject(name string) object {
	return object{id: stages.Object{APIVersion: "v1", Kind: "Namespace", Name: name}}
}

func keptObjects(own []*release.Release, namespace string) []string {
	var out []string
	for _, rel := range own {
		objects, err := parseObjects(rel.Manifest, namespace, nil)
		if err != nil {
			continue // Helm has read it before; it is only about a message.
		}
		for _, o := range objects {
			if o.kept() && !slices.Contains(out, o.id.String()) {
				out = append(out, o.id.String())
			}
		}
	}
	return out
}
