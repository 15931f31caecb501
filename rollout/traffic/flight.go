package traffic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/rollout/internal/wait"
	"github.com/fairlead-dev/fairlead/stages"
)

// flight is one canary under way: its record says what is to be done next, and
// each phase ends with the record of the one after.
type flight struct {
	*Canary
	hold      *hold // nil for what was taken from another run
	req       stages.DeployRequest
	planned   []byte // the canary's manifests, if they are known
	record    Record
	version   string
	canary    stages.Release
	stable    stages.Release
	decisions []stages.Decision
	report    func(message string)
}

// begin looks for a canary that is under way already, under the lock. It returns
// nothing if there is none left.
func (c *Canary) begin(ctx context.Context, req stages.DeployRequest, h *hold) (*flight, error) {
	record, version, err := c.cfg.State.Load(ctx)
	if err == nil {
		err = h.allows(record)
	}
	if err != nil || record == nil {
		return nil, err
	}
	f := &flight{Canary: c, hold: h, req: req, record: *record, version: version, report: reporter(ctx)}
	resumable := c.cfg.Resume && record.untouched() && record.AbortAsked == "" && record.Image == req.Clearance.Image() &&
		record.Step <= len(c.cfg.Steps)
	if err := f.claim(ctx); err != nil {
		return nil, err
	}
	if !resumable {
		return nil, f.clearUp(ctx)
	}
	f.progress("going on with the canary of run %s at step %d", record.Run, record.Step)
	// The stable release has not moved since, or its own lock would tell.
	cp, err := c.restorer.Checkpoint(ctx, stages.CheckpointRequest{Run: req.Run, Image: record.Image})
	if err != nil {
		return nil, fmt.Errorf("checkpoint of the stable release: %w", err)
	}
	return f, f.save(ctx, func(r *Record) { r.Run, r.Phase, r.Stable = req.Run, Deploying, cp })
}

// start records a new canary, if traffic can be divided.
func (c *Canary) start(ctx context.Context, req stages.DeployRequest, h *hold) (*flight, error) {
	for _, s := range c.cfg.Steps {
		if _, err := c.nearest(ctx, s.Weight); err != nil {
			return nil, err
		}
	}
	// Where it can't be seen that the canary has no traffic, it could not be removed.
	err := insist(ctx, c.cfg.SettleTimeout, func(ctx context.Context) error {
		split, err := c.cfg.Router.Observe(ctx)
		switch {
		case err != nil:
			return err
		case split.Canary != 0:
			return fmt.Errorf("no canary is under way: %w", &ChangedError{Want: []int{0}, Got: split.Canary, Detail: split.Detail})
		case !split.Settled:
			return fmt.Errorf("%w: before a canary the cluster says %s", errUnsettled, split)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	img := req.Clearance.Image()
	cp, err := c.restorer.Checkpoint(ctx, stages.CheckpointRequest{Run: req.Run, Image: img})
	if err != nil {
		return nil, fmt.Errorf("checkpoint of the stable release: %w", err)
	}
	f := &flight{Canary: c, hold: h, req: req, report: reporter(ctx)}
	return f, f.save(ctx, func(r *Record) {
		*r = Record{Format: recordFormat, Run: req.Run, Holder: h.newHolder(req.Run), Image: img, Phase: Deploying, Stable: cp}
	})
}

// claim makes a record that somebody has left this process's own.
func (f *flight) claim(ctx context.Context) error {
	next := f.record
	next.Holder = f.hold.newHolder(f.record.Run)
	version, err := f.cfg.State.Save(ctx, next, f.version)
	if err != nil {
		return err
	}
	f.record, f.version = next, version
	return nil
}

// fly goes through the phases.
func (f *flight) fly(ctx context.Context) (stages.Release, error) {
	for f.record.Phase != Removing {
		if err := protect(func() error { return f.next(ctx) }); err != nil {
			return stages.Release{}, f.abort(ctx, err)
		}
	}
	// The new release serves all traffic and is verified. That the canary can't be
	// removed is no reason to take it back: the record stays for the next run.
	clean, cancel := f.unhurried(ctx)
	defer cancel()
	if err := f.finish(clean); err != nil {
		f.progress("the canary, which has no traffic, could not be removed; the next run tries again: %v", err)
	}
	return f.stable, nil
}

// next does what the record says.
func (f *flight) next(ctx context.Context) error {
	switch f.record.Phase {
	case Deploying:
		return f.deploy(ctx)
	case Shifting:
		return f.shift(ctx)
	case Watching:
		return f.watch(ctx)
	case Promoting:
		return f.promote(ctx)
	case Returning:
		return f.giveBackTraffic(ctx)
	default:
		return fmt.Errorf("%w: phase %s can't be gone on with", stages.ErrInvalid, f.record.Phase)
	}
}

// deploy makes the canary, without traffic where the router can keep it from that.
func (f *flight) deploy(ctx context.Context) error {
	if isolator, ok := f.cfg.Router.(Isolator); ok {
		err := insist(ctx, f.cfg.SettleTimeout, func(ctx context.Context) error { return isolator.Isolate(ctx, f.planned) })
		if err != nil {
			return fmt.Errorf("keep requests from the canary: %w", err)
		}
	}
	split, err := f.apart(ctx, f.install)
	if err != nil {
		return err
	}
	return f.toStep(ctx, max(f.record.Step, 1), split.Canary)
}

// install makes the canary's release, and proves that it runs.
func (f *flight) install(ctx context.Context) error {
	req := f.req
	req.Plan = "" // That was about both releases, and was compared before.
	rel, err := f.cfg.Canary.Deploy(ctx, req)
	if err != nil {
		return fmt.Errorf("deploy the canary: %w", err)
	}
	f.canary = rel
	if err := f.verify(ctx, rel, f.cfg.Verifiers...); err != nil {
		return &canaryError{err}
	}
	return nil
}

// toStep records the next shift.
func (f *flight) toStep(ctx context.Context, step, from int) error {
	weight, err := f.nearest(ctx, f.cfg.Steps[step-1].Weight)
	if err != nil {
		return err
	}
	if f.record.Phase == Deploying && from > weight {
		return fmt.Errorf("before its first step: %w", &ChangedError{Want: []int{0, weight}, Got: from})
	}
	return f.save(ctx, func(r *Record) { r.Phase, r.Step, r.From, r.Weight = Shifting, step, from, weight })
}

func (c *Canary) nearest(ctx context.Context, weight int) (nearest int, err error) {
	err = insist(ctx, c.cfg.SettleTimeout, func(ctx context.Context) error {
		nearest, err = c.cfg.Router.Nearest(ctx, weight)
		return err
	})
	return nearest, err
}

// shift gives the canary the weight of its step.
func (f *flight) shift(ctx context.Context) error {
	nearest := ""
	if asked := f.cfg.Steps[f.record.Step-1].Weight; asked != f.record.Weight {
		nearest = fmt.Sprintf(", the nearest to %d%%", asked)
	}
	f.progress("step %d of %d: %d%% of the traffic to the canary%s", f.record.Step, len(f.cfg.Steps), f.record.Weight, nearest)
	err := f.guarded(ctx, func(ctx context.Context) error {
		_, err := f.settle(ctx, f.record.From, f.record.Weight)
		return err
	})
	if err != nil {
		return err
	}
	return f.save(ctx, func(r *Record) { r.Phase = Watching })
}

// promote upgrades the stable release and proves that it runs.
func (f *flight) promote(ctx context.Context) error {
	f.progress("promoting: upgrading the stable release to %s", f.record.Image.Digest().Short())
	req := f.req
	req.Plan = ""
	rel, err := f.cfg.Stable.Deploy(ctx, req)
	if err != nil {
		return fmt.Errorf("promote the canary: %w", err)
	}
	f.stable = rel
	if err := f.verify(ctx, rel, f.cfg.Verifiers...); err != nil {
		return fmt.Errorf("promote the canary: %w", err)
	}
	return f.save(ctx, func(r *Record) { r.Phase, r.From, r.Weight = Returning, r.Weight, 0 })
}

// giveBackTraffic sends all of it to the stable release. The upgrade of that may
// have done so already, where its chart has the weights.
func (f *flight) giveBackTraffic(ctx context.Context) error {
	f.progress("promoted: all traffic to the stable release")
	if _, err := f.settle(ctx, Any, 0); err != nil {
		return fmt.Errorf("send all traffic to the promoted release: %w", err)
	}
	return f.save(ctx, func(r *Record) { r.Phase = Removing })
}

// finish removes a canary that has no traffic, and the record.
func (f *flight) finish(ctx context.Context) error {
	if f.record.Phase == Returning {
		if err := f.giveBackTraffic(ctx); err != nil {
			return err
		}
	}
	// The record may be old, and somebody may have sent traffic to the canary since.
	if _, err := f.settle(ctx, Any, 0); err != nil {
		return fmt.Errorf("send all traffic to the promoted release: %w", err)
	}
	if err := f.remove(ctx); err != nil {
		return err
	}
	return f.forget(ctx)
}

// remove uninstalls the canary, once requests on their way to it are done with.
func (f *flight) remove(ctx context.Context) error {
	if !wait.For(ctx, f.cfg.Drain) {
		return context.Cause(ctx)
	}
	f.progress("removing the canary")
	err := insist(ctx, f.cfg.AbortTimeout, func(ctx context.Context) error {
		_, err := f.remover.Uninstall(ctx, f.record.Run)
		return err
	})
	if err != nil {
		return fmt.Errorf("remove the canary: %w", err)
	}
	return nil
}

// verify asks verifiers about a release, which must be of the canary's image.
func (f *flight) verify(ctx context.Context, rel stages.Release, verifiers ...stages.Verifier) error {
	if err := f.of(rel); err != nil {
		return err
	}
	return prove(ctx, rel, verifiers...)
}

// of refuses a release that is not of the canary's image.
func (f *flight) of(rel stages.Release) error {
	if rel.Image.Digest() != f.record.Image.Digest() {
		return fmt.Errorf("%w: release %s/%s is of %s", stages.ErrSubjectMismatch, rel.Namespace, rel.Name, rel.Image)
	}
	return nil
}

// prove asks verifiers about a release, and believes only what is about its image.
func prove(ctx context.Context, rel stages.Release, verifiers ...stages.Verifier) error {
	for _, v := range verifiers {
		proof, err := v.Verify(ctx, rel)
		if err := proven(proof, err, rel); err != nil {
			return err
		}
	}
	return nil
}

// proven believes of what a verifier has found only what is about the release.
func proven(proof stages.Verification, err error, rel stages.Release) error {
	switch {
	case err != nil:
		return err
	case proof.Image.Digest() != rel.Image.Digest():
		return fmt.Errorf("%w: the verification is about %s", stages.ErrSubjectMismatch, proof.Image)
	case len(proof.Checks) == 0:
		return fmt.Errorf("%w: the verifier checked nothing", stages.ErrInconclusive)
	}
	return nil
}

// settle asks for a weight and waits until it has taken effect.
func (f *flight) settle(ctx context.Context, from, to int) (Split, error) {
	var last Split
	err := insist(ctx, f.cfg.SettleTimeout, func(ctx context.Context) error {
		if err := f.cfg.Router.Shift(ctx, from, to); err != nil {
			return err
		}
		split, err := f.cfg.Router.Observe(ctx)
		if err != nil {
			return err
		}
		last = split
		if split.Canary != to || !split.Settled {
			return fmt.Errorf("%w: asked for %d%%, and the cluster says %s", errUnsettled, to, split)
		}
		return nil
	})
	return last, err
}

// errUnsettled is a weight that has not taken effect.
var errUnsettled = errors.New("the weight has not taken effect")

func (f *flight) observe(ctx context.Context) (split Split, err error) {
	err = insist(ctx, f.cfg.SettleTimeout, func(ctx context.Context) error {
		split, err = f.cfg.Router.Observe(ctx)
		return err
	})
	return split, err
}

// save writes the record, ahead of what it announces. It fails with
// [stages.ErrLockLost] if the canary is somebody else's by now.
func (f *flight) save(ctx context.Context, change func(*Record)) error {
	next := f.record
	change(&next)
	next.Since = time.Now().UTC().Truncate(time.Second)
	return insist(ctx, f.cfg.SettleTimeout, func(ctx context.Context) error {
		version, err := f.cfg.State.Save(ctx, next, f.version)
		if err == nil {
			f.record, f.version = next, version
			return nil
		}
		if !errors.Is(err, ErrStateChanged) {
			return err
		}
		// It may be our own write, whose answer was lost, or a word from outside.
		stored, version, err := f.load(ctx, next.Holder)
		switch {
		case err != nil:
			return err
		case stored != nil && stored.AbortAsked != "" && next.Phase != Aborting:
			f.version = version
			return askedToAbort(stored)
		case stored != nil:
			next.AbortAsked = stored.AbortAsked
		case next.Phase != Aborting && next.Phase != Deploying:
			return fmt.Errorf("%w: it is gone", ErrStateChanged)
		}
		f.version = version
		return errStale
	})
}

// askedToAbort is why a canary ends that somebody wants to end.
func askedToAbort(r *Record) error { return fmt.Errorf("%w: %s", ErrAbortAsked, r.AbortAsked) }

// errStale has a write repeated with the version that was just read.
var errStale = errors.New("the record's version was old")

// load reads the record, which must be of this holder if there is one.
func (f *flight) load(ctx context.Context, holder string) (*Record, string, error) {
	stored, version, err := f.cfg.State.Load(ctx)
	if err == nil && stored != nil && stored.Holder != holder {
		return nil, "", takenOver(stored)
	}
	return stored, version, err
}

// forget deletes the record, with which the canary is over.
func (f *flight) forget(ctx context.Context) error {
	if f.unrecorded() {
		return nil
	}
	return insist(ctx, f.cfg.SettleTimeout, func(ctx context.Context) error {
		err := f.cfg.State.Delete(ctx, f.version)
		if !errors.Is(err, ErrStateChanged) {
			return err
		}
		if _, f.version, err = f.load(ctx, f.record.Holder); err != nil || f.version == "" {
			return err
		}
		return errStale
	})
}

// unrecorded reports that there is no record, nor anything to write into one.
func (f *flight) unrecorded() bool { return f.record.Image.IsZero() }

func (f *flight) progress(format string, args ...any) {
	f.report(fmt.Sprintf(format, args...))
}
