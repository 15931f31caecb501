package traffic

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// abort sends all traffic to the stable release, collects evidence, removes the
// canary, and goes on past whatever of it fails, save that a stable release that
// isn't known to run gets no more traffic. It returns an [*AbortError], or, with
// nothing changed, the cause if the canary is somebody else's by now.
func (f *flight) abort(ctx context.Context, cause error) error {
	e := &AbortError{
		Run: f.record.Run, Image: f.record.Image, Phase: f.record.Phase, Step: f.record.Step, Weight: f.record.Weight,
		Decisions: f.decisions, Cause: cause,
	}
	if f.record.Phase == Deploying {
		e.Step, e.Weight = 0, 0
	}
	f.progress("aborting the canary: %v", cause)
	ctx = context.WithoutCancel(ctx)
	// A lock that is lost before there is any traffic may be that of the canary's
	// own release. Then the record still is this process's own.
	lost := errors.Is(cause, stages.ErrLockLost)
	if lost && f.record.Phase != Deploying {
		return cause
	}
	if err := f.announce(ctx, cause); errors.Is(err, stages.ErrLockLost) || lost && err != nil {
		return errors.Join(cause, err)
	}
	// A canary that was being promoted is sound, and what it replaces may not be.
	sound := !f.record.Promotion || f.restoreStable(ctx, e)
	ctx, cancel := f.unhurried(ctx) // after the restore, which may have taken all of its own
	defer cancel()
	// Some routers take the canary's pods with its traffic.
	seen := begin(func() ([]stages.Evidence, error) { return f.examined(ctx, cause), nil })
	err := f.takeTraffic(ctx, e, sound)
	e.Facts = f.evidence(ctx, cause, seen)
	// The canary must not go while it may be asked for anything.
	if err == nil {
		err = f.remove(ctx)
		if err != nil {
			e.Left = append(e.Left, err)
		}
	} else {
		e.Left = append(e.Left, err, errors.New("the canary was kept, as it may still get traffic"))
	}
	if len(e.Left) == 0 {
		if err := f.forget(ctx); err != nil {
			e.Left = append(e.Left, err)
		}
	}
	return e
}

// errUnsound is why a canary keeps its traffic in an abort.
var errUnsound = errors.New("the stable release is not known to run, so that no traffic was sent to it")

// takeTraffic sends all traffic to the stable release, if that is sound.
func (f *flight) takeTraffic(ctx context.Context, e *AbortError, sound bool) (err error) {
	if !sound {
		e.Traffic, err = f.divided(ctx)
		return errors.Join(errUnsound, err)
	}
	if e.Traffic, err = f.settle(ctx, Any, 0); err != nil {
		e.Traffic, _ = f.divided(ctx)
		return fmt.Errorf("send all traffic to the stable release: %w", err)
	}
	return nil
}

// divided is how traffic is divided, or was when that was last known: an abort that
// could not take it back must not say that the canary has none.
func (f *flight) divided(ctx context.Context) (split Split, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), announceTime)
	defer cancel()
	err = protect(func() (err error) { split, err = f.cfg.Router.Observe(ctx); return err })
	if err != nil && split == (Split{}) {
		split = Split{Canary: max(f.record.From, f.record.Weight), Detail: "as last recorded, because it can't be read"}
	}
	return split, err
}

// announce records the abort. It can fail without stopping it, but for a canary
// that is somebody else's.
func (f *flight) announce(ctx context.Context, cause error) error {
	if f.unrecorded() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	return f.save(ctx, func(r *Record) { r.Phase, r.Reason = Aborting, reasonOf(cause) })
}

// restoreStable takes back an upgrade of the stable release, and reports whether
// that may get the traffic.
func (f *flight) restoreStable(ctx context.Context, e *AbortError) bool {
	ctx, cancel := f.unhurried(ctx)
	defer cancel()
	if recorder, ok := f.cfg.Stable.(stages.FailureRecorder); ok {
		if err := protect(func() error { return recorder.RecordFailure(ctx, f.record.Run, e.Cause) }); err != nil {
			f.progress("the cause could not be recorded with the stable release: %v", err)
		}
	}
	var restored stages.Restoration
	err := insist(ctx, f.cfg.AbortTimeout, func(ctx context.Context) (err error) {
		restored, err = f.restorer.Restore(ctx, f.record.Run, f.record.Stable)
		return err
	})
	if err != nil {
		e.Left = append(e.Left, fmt.Errorf("restore the stable release: %w", err))
		return false
	}
	e.Stable = &restored
	if restored.Outcome != stages.Restored && restored.Outcome != stages.Unchanged {
		e.Left = append(e.Left, fmt.Errorf("restore the stable release: %s: %s", restored.Outcome, restored.Message))
	}
	if err := f.verifyRestored(ctx, restored.Release); err != nil {
		e.Left = append(e.Left, fmt.Errorf("verify the restored stable release: %w", err))
		return false
	}
	return restored.Outcome != stages.Impossible
}

// verifyRestored waits until the stable release runs again, where its deployer tells
// what it has brought back: with a strategy like Recreate it has no pod at first.
func (f *flight) verifyRestored(ctx context.Context, rel *stages.Release) error {
	if rel == nil {
		return nil
	}
	for _, v := range f.cfg.Verifiers {
		verifier, ok := v.(stages.RestoreVerifier)
		if !ok {
			continue
		}
		f.progress("waiting until the restored stable release runs")
		c := begin(func() (stages.Verification, error) { return verifier.VerifyRestored(ctx, *rel) })
		if !c.returned(ctx) {
			return fmt.Errorf("a verifier has not returned: %w", context.Cause(ctx))
		}
		if err := proven(c.value, c.err, *rel); err != nil {
			return err
		}
	}
	return nil
}

// evidence is what the cause brings along, or else what is seen of the canary now, or was
// when its traffic was about to be taken, and what the gates found.
func (f *flight) evidence(ctx context.Context, cause error, seen *call[[]stages.Evidence]) []stages.Evidence {
	facts := evidenceOf(cause)
	if len(facts) == 0 && !f.canary.Image.IsZero() {
		ctx, cancel := context.WithTimeout(ctx, f.cfg.EvidenceTimeout)
		defer cancel()
		facts = evidenceOf(f.runs(ctx))
		if seen.returned(ctx) && len(facts) == 0 {
			facts = seen.value
		}
	}
	for _, d := range f.decisions {
		if d.Verdict == stages.Pass {
			continue
		}
		for _, r := range d.Reasons {
			facts = append(facts, stages.Evidence{Subject: "gate " + d.Gate, Reason: r.Rule, Message: r.Message})
		}
	}
	return facts
}

// examined is what the verifiers see of a canary that something else has found wanting.
func (f *flight) examined(ctx context.Context, cause error) (all []stages.Evidence) {
	if len(evidenceOf(cause)) > 0 || f.canary.Image.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.EvidenceTimeout)
	defer cancel()
	for _, v := range f.cfg.Verifiers {
		e, ok := v.(stages.Examiner)
		if !ok {
			continue
		}
		c := begin(func() ([]stages.Evidence, error) { return e.Examine(ctx, f.canary) })
		if !c.returned(ctx) {
			return all
		}
		all = append(all, c.value...)
		if c.err != nil {
			all = append(all, stages.Evidence{Subject: "evidence", Reason: "Unavailable", Message: c.err.Error()})
		}
	}
	return all
}

// evidenceOf collects what an error carries, whatever that error's code does.
func evidenceOf(err error) (facts []stages.Evidence) {
	if failed := protect(func() error { facts = stages.EvidenceOf(err); return nil }); failed != nil {
		return []stages.Evidence{{Subject: "evidence", Reason: "Unavailable", Message: failed.Error()}}
	}
	return facts
}

// clearUp finishes or aborts what another process has left.
func (f *flight) clearUp(ctx context.Context) error {
	if f.record.promoted() {
		return f.finish(ctx)
	}
	err := f.abort(ctx, ErrAbandoned)
	if e, ok := errors.AsType[*AbortError](err); ok && len(e.Left) == 0 {
		return nil
	}
	return err
}

// clear puts the canary of a dead run out of the way, under the lock of that run,
// so that its deployers know it for their own. It reports whether there was one.
func (c *Canary) clear(ctx context.Context, run string) (bool, error) {
	record, _, err := c.cfg.State.Load(ctx)
	if err != nil || record == nil || record.Run == run || c.cfg.Resume && record.untouched() {
		return false, err
	}
	done, err := c.take(ctx, record.Run)
	if err != nil {
		return false, err
	}
	defer done()
	f, err := c.adopt(ctx, nil)
	if err != nil || f == nil {
		return false, err
	}
	f.progress("putting the canary of run %s, which died, out of the way", record.Run)
	return true, f.clearUp(ctx)
}

// adopt makes the recorded canary this process's own, under the lock of its run or,
// if there is a hold, under that.
func (c *Canary) adopt(ctx context.Context, h *hold) (*flight, error) {
	var f *flight
	err := insist(ctx, c.cfg.SettleTimeout, func(ctx context.Context) error {
		record, version, err := c.cfg.State.Load(ctx)
		if err == nil {
			err = h.allows(record)
		}
		if err != nil || record == nil {
			f = nil
			return err
		}
		f = &flight{Canary: c, hold: h, record: *record, version: version, report: reporter(ctx)}
		if err = f.claim(ctx); errors.Is(err, ErrStateChanged) {
			return errStale // By our own write, whose answer was lost, or by a word from outside.
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Restore brings the stable release back that the checkpoint was taken of, with
// all traffic on it, and removes the canary.
func (c *Canary) Restore(ctx context.Context, run string, cp stages.Checkpoint) (stages.Restoration, error) {
	stable, err := decodeCheckpoint(cp)
	if err != nil {
		return stages.Restoration{}, err
	}
	if ctx.Err() != nil {
		return stages.Restoration{}, context.Cause(ctx)
	}
	h, done, err := c.locked(ctx, run)
	if err != nil {
		return stages.Restoration{}, fmt.Errorf("restore %s: %w", cp.Subject, err)
	}
	defer done()
	aborted, err := c.ground(ctx, run, h)
	if err != nil {
		return stages.Restoration{}, fmt.Errorf("restore %s: %w", cp.Subject, err)
	}
	restored, err := c.restorer.Restore(ctx, run, stable)
	if err != nil {
		return restored, err
	}
	if aborted == nil {
		return restored, nil
	}
	restored.Message += "; the canary was aborted"
	switch {
	case len(aborted.Left) > 0 && restored.Outcome != stages.Impossible:
		restored.Outcome, restored.Message = stages.Diverged, restored.Message+", but not everything could be done: "+errors.Join(aborted.Left...).Error()
	case restored.Outcome == stages.Unchanged:
		restored.Outcome = stages.Restored
	}
	return restored, nil
}

// ground aborts the run's canary if one is under way, recorded or not.
func (c *Canary) ground(ctx context.Context, run string, h *hold) (*AbortError, error) {
	f, err := c.adopt(ctx, h)
	if err != nil {
		return nil, err
	}
	if f == nil {
		f = c.unknown(ctx, run, h)
		if split, err := f.traces(ctx); err != nil || split == (Split{}) {
			return nil, err
		}
	}
	err = f.abort(ctx, ErrAbandoned)
	if e, ok := errors.AsType[*AbortError](err); ok {
		return e, nil
	}
	return nil, err
}

// unknown is a canary without a record, which may have been deleted by hand.
func (c *Canary) unknown(ctx context.Context, run string, h *hold) *flight {
	return &flight{Canary: c, hold: h, record: Record{Run: run, Holder: h.newHolder(run), Phase: Watching}, report: reporter(ctx)}
}

// traces returns the split if a canary without a record has traffic, or is kept from it.
func (f *flight) traces(ctx context.Context) (Split, error) {
	split, err := f.observe(ctx)
	if _, odd := errors.AsType[*RouteError](err); odd {
		err = nil // What could not be divided is nobody's canary, unless something gets to it.
	}
	if err != nil || split.Canary == 0 && !split.Isolated {
		return Split{}, err
	}
	return split, nil
}

// abortUnknown aborts a canary without a record, under the lock of a run of its own.
func (c *Canary) abortUnknown(ctx context.Context) error {
	run := "abort-" + strings.ToLower(rand.Text()[:10])
	if split, err := c.unknown(ctx, run, nil).traces(ctx); err != nil || split == (Split{}) {
		return cmp.Or(err, ErrNoCanary)
	}
	done, err := c.take(ctx, run)
	if err != nil {
		return err
	}
	defer done()
	switch aborted, err := c.ground(ctx, run, nil); {
	case err != nil:
		return err
	case aborted == nil:
		return ErrNoCanary
	case len(aborted.Left) > 0:
		return aborted
	}
	return nil
}

// reopen ends an isolation without a record, where no canary follows that would. That
// it can't be ended holds up nothing, as the stable release has all the traffic.
func (c *Canary) reopen(ctx context.Context, run string, h *hold) {
	f := c.unknown(ctx, run, h)
	var split Split
	err := protect(func() (err error) { split, err = c.cfg.Router.Observe(ctx); return err })
	if err != nil || !split.Isolated {
		return
	}
	if e, ok := errors.AsType[*AbortError](f.abort(ctx, ErrAbandoned)); ok && len(e.Left) > 0 {
		f.progress("a canary without a record is not out of the way yet: %v", errors.Join(e.Left...))
	}
}

// unhurried returns a context that outlives the cancellation of ctx, and has time to
// wait for the requests that are under way.
func (f *flight) unhurried(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := f.cfg.AbortTimeout + max(0, f.cfg.Drain)
	return context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("not done within %s", limit))
}

const (
	announceTime = 10 * time.Second
	unlockTime   = 10 * time.Second
)
