package traffic

import (
	"context"
	"errors"
	"fmt"

	"github.com/fairlead-dev/fairlead/stages"
)

// Status is what there is to know of a canary from outside.
type Status struct {
	// Record is the canary that is under way; nil if none is.
	Record *Record `json:"record,omitempty"`
	// Traffic is how it is divided now.
	Traffic Split `json:"traffic"`
}

// Status reads what is under way, and how traffic is divided. It changes nothing
// and takes no lock.
func (c *Canary) Status(ctx context.Context) (Status, error) {
	record, _, err := c.cfg.State.Load(ctx)
	if err != nil {
		return Status{}, fmt.Errorf("status of the canary: %w", err)
	}
	split, err := c.cfg.Router.Observe(ctx)
	if err != nil {
		return Status{Record: record, Traffic: split}, fmt.Errorf("status of the canary: %w", err)
	}
	return Status{Record: record, Traffic: split}, nil
}

// Abort ends the canary that is under way, for the reason given, which is kept
// in the cluster and so must hold no secret. Where the process of the canary
// died, Abort does what it would have done, and returns nil if all traffic is on
// the stable release and the canary is gone. Where that process lives, it is asked
// to abort at its next look, or when it has promoted the canary, which it takes
// back then; the error matches [stages.ErrLocked], and [ErrPromoted] too if it is too
// late, because the canary was promoted and verified. A canary whose record is lost is
// aborted, too, if it has traffic or is kept from it. Without a canary Abort returns an
// error matching [ErrNoCanary].
func (c *Canary) Abort(ctx context.Context, reason string) error {
	record, _, err := c.cfg.State.Load(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("abort the canary: %w", err)
	case record == nil:
		if err := c.abortUnknown(ctx); err != nil {
			return fmt.Errorf("abort the canary: %w", err)
		}
		return nil
	}
	done, err := c.take(ctx, record.Run)
	if errors.Is(err, stages.ErrLocked) {
		if record.promoted() {
			return fmt.Errorf("abort the canary: %w", errors.Join(err, ErrPromoted))
		}
		if asked := c.askToAbort(ctx, record.Run, reason); asked != nil {
			return fmt.Errorf("abort the canary: %w", errors.Join(err, asked))
		}
		return fmt.Errorf("abort the canary: run %s, which is at it, was asked to: %w", record.Run, err)
	}
	if err != nil {
		return fmt.Errorf("abort the canary: %w", err)
	}
	defer done()
	f, err := c.adopt(ctx, nil)
	if err != nil || f == nil {
		return err
	}
	return f.clearUp(ctx)
}

// take locks the stable release for a run that is to have nothing else under way.
func (c *Canary) take(ctx context.Context, run string) (done func(), _ error) {
	leave, err := c.enter(run)
	if err != nil {
		return nil, err
	}
	unlock, err := c.locker.Lock(ctx, run)
	if err != nil {
		leave()
		return nil, err
	}
	return func() { giveBack(ctx, unlock); leave() }, nil
}

// askToAbort leaves word in the record, if the canary still is of run.
func (c *Canary) askToAbort(ctx context.Context, run, reason string) error {
	return insist(ctx, c.cfg.SettleTimeout, func(ctx context.Context) error {
		record, version, err := c.cfg.State.Load(ctx)
		if err != nil || record == nil || record.Run != run {
			return err
		}
		record.AbortAsked = reason
		if record.AbortAsked == "" {
			record.AbortAsked = "no reason was given"
		}
		_, err = c.cfg.State.Save(ctx, *record, version)
		if errors.Is(err, ErrStateChanged) {
			return errStale
		}
		return err
	})
}

// Promote goes on with the canary of a process that died, from its promotion: the
// gates of the steps that are left are not asked. The request must be for the
// canary's image, so whoever asks for it has had that cleared, and the canary must
// have been verified before. It returns as [Canary.Deploy] does.
func (c *Canary) Promote(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	if err := req.Clearance.Check(); err != nil {
		return stages.Release{}, fmt.Errorf("promote the canary: %w", err)
	}
	if req.Run == "" {
		return stages.Release{}, fmt.Errorf("promote the canary: %w: there is no run", stages.ErrInvalid)
	}
	done, err := c.take(ctx, req.Run)
	if err != nil {
		return stages.Release{}, fmt.Errorf("promote the canary: %w", err)
	}
	defer done()
	f, err := c.adopt(ctx, nil)
	switch {
	case err != nil:
		return stages.Release{}, fmt.Errorf("promote the canary: %w", err)
	case f == nil:
		return stages.Release{}, fmt.Errorf("promote the canary: %w", ErrNoCanary)
	case f.record.Phase != Shifting && f.record.Phase != Watching:
		return stages.Release{}, fmt.Errorf("promote the canary: %w: it is %s; abort it, or deliver again", stages.ErrInvalid, f.record.Phase)
	case f.record.Image != req.Clearance.Image():
		return stages.Release{}, fmt.Errorf("promote the canary: %w: it is of %s", stages.ErrSubjectMismatch, f.record.Image)
	}
	f.req = req
	cp, err := c.restorer.Checkpoint(ctx, stages.CheckpointRequest{Run: req.Run, Image: f.record.Image})
	if err != nil {
		return stages.Release{}, fmt.Errorf("promote the canary: checkpoint of the stable release: %w", err)
	}
	if err := f.save(ctx, func(r *Record) { r.Run, r.Stable, r.Phase, r.Promotion = req.Run, cp, Promoting, true }); err != nil {
		return stages.Release{}, fmt.Errorf("promote the canary: %w", err)
	}
	return f.fly(ctx)
}
