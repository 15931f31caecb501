package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Recovery is what [Pipeline.Recover] did about one unfinished run.
type Recovery struct {
	// Run is the run that was left unfinished, Started when it began.
	Run     string    `json:"run"`
	Started time.Time `json:"started"`
	// Outcome is the state left behind.
	Outcome Outcome `json:"outcome"`
	// Restorations are what was undone now, in that order. What an earlier,
	// interrupted recovery had undone is not repeated.
	Restorations []Restoration `json:"restorations,omitempty"`
	// Elapsed is how long it took, in nanoseconds.
	Elapsed time.Duration `json:"elapsed"`
}

// Recover finishes what killed processes left: it restores, in reverse order,
// every checkpoint of each unfinished run that isn't known to be restored, and
// closes the run in the journal. A run that was committed is left alone. With
// nothing to do it returns nothing. Before a restore, a [stages.FailureRecorder] is
// told that the run ended without a word, and where; observers hear if that can't be
// recorded, which is no error.
//
// It can be repeated, also after it was killed or cancelled itself. It refuses to
// touch a run whose journal names a stage that this pipeline doesn't have or
// that can't restore, with an error that names it. Its error joins those of all
// runs that aren't back where they were: they match [stages.ErrRollbackFailed],
// if a restore left differences, and [stages.ErrIndeterminate], if a side effect
// or a restore has an unknown outcome. Runs with a restore whose outcome is
// unknown stay unfinished. What was restored is verified as after a failed run, in
// place of an earlier process that didn't come to it; if it doesn't run, the error
// matches [stages.ErrNotReady].
func (p *Pipeline) Recover(ctx context.Context) ([]Recovery, error) {
	leave, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	log, entries, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	var (
		recoveries []Recovery
		errs       []error
	)
	for _, h := range replay(entries) {
		if h.finished {
			continue
		}
		undo, err := p.match(h)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		recovery, err := p.recoverRun(ctx, log, h, undo)
		recoveries = append(recoveries, recovery)
		if err != nil {
			errs = append(errs, fmt.Errorf("pipeline %s: recover run %s: %w", p.config.Name, h.run, err))
		}
	}
	return recoveries, errors.Join(errs...)
}

func (p *Pipeline) recoverRun(ctx context.Context, log Log, h *history, undo []undoable) (Recovery, error) {
	r := newRun(p.config, h.run, log)
	r.undo, r.deploy = undo, h.deploy
	r.emit(Event{Kind: KindRecoveryStarted, Message: fmt.Sprintf("%d checkpoints to restore", len(undo))})
	if !h.restoring { // Otherwise its cause was known, and recorded.
		// The lock of the dead is only free once they are seen to be.
		_ = r.recordFailure(ctx, h.image.String(), h.cause(), p.config.RollbackTimeout)
	}
	// What an earlier recovery has restored may still wait for its verification.
	all := append(h.restorations, r.restore(ctx)...)
	r.verifyRestored(ctx, all)
	outcome, restorations := outcomeOf(r.deploy, all), all[len(h.restorations):]
	r.close(ctx, outcome, all, h.cause())
	recovery := Recovery{
		Run: h.run, Started: h.started, Outcome: outcome, Restorations: restorations, Elapsed: time.Since(r.result.Started),
	}
	err := recoveryError(outcome, all, r.later)
	end := Event{Kind: KindRecoveryFinished, Elapsed: recovery.Elapsed, Outcome: outcome, Message: string(outcome)}
	if err != nil {
		end.Error = err.Error()
	}
	r.emit(end)
	r.bus.close(p.config.DrainTimeout)
	return recovery, err
}

// errSilent is why an unfinished run failed, as far as anybody knows.
var errSilent = errors.New("the process ended without a word; it may have been killed")

// recoveryError is nil if the state before is back.
func recoveryError(outcome Outcome, restorations []Restoration, later []error) error {
	e := &Error{Outcome: outcome, Restorations: restorations}
	errs := later
	switch outcome {
	case OutcomeRolledBack, OutcomeUntouched:
	case OutcomeLeft:
		errs = append(errs, fmt.Errorf("%s; nobody has verified it", e.state()))
	default:
		for _, r := range restorations {
			errs = append(errs, r.errs()...)
		}
		errs = append([]error{fmt.Errorf("%s; %s", e.state(), e.advice())}, append(e.classes(), errs...)...)
	}
	return errors.Join(errs...)
}

// match finds the stage for each checkpoint that is left to restore.
func (p *Pipeline) match(h *history) ([]undoable, error) {
	if h.pipeline != p.config.Name {
		return nil, fmt.Errorf("%w: the journal's run %s is of pipeline %q and can't be recovered by %q", stages.ErrInvalid, h.run, h.pipeline, p.config.Name)
	}
	compensators := p.config.compensators()
	var undo []undoable
	var errs []error
	for _, c := range h.checkpoints {
		compensator, ok := compensators[c.Stage]
		if !ok {
			errs = append(errs, fmt.Errorf("%w: run %s has a checkpoint of stage %q (%s), and pipeline %s has no such stage that can restore it: recover with the pipeline that made it",
				stages.ErrInvalid, h.run, c.Stage, c.Checkpoint.Subject, p.config.Name))
			continue
		}
		undo = append(undo, undoable{c.Stage, compensator, *c.Checkpoint})
	}
	return undo, errors.Join(errs...)
}

func (c Config) compensators() map[Stage]stages.Compensator {
	all := map[Stage]stages.Compensator{}
	add := func(name Stage, v any) {
		if compensator, ok := v.(stages.Compensator); ok {
			all[name] = compensator
		}
	}
	add(StageBuild, c.Builder)
	add(StageSign, c.Signer)
	add(StageDeploy, c.Deployer)
	for i, v := range c.Verifiers {
		add(StageVerify.nth(i), v)
	}
	return all
}

// history is what a journal holds about one run.
type history struct {
	run, pipeline string
	started       time.Time
	finished      bool
	checkpoints   []Entry // those not restored, in the order of their side effects
	restorations  []Restoration
	deploy        uncompensated
	image         stages.Image // of the last side effect
	last          Stage        // whose side effect that was
	done          bool         // whether that had succeeded
	restoring     bool         // whether a restore had begun
}

// cause is why the run failed if nothing else is known, with where the journal ends.
func (h *history) cause() error {
	switch {
	case h.last == "":
		return errSilent
	case h.done:
		return fmt.Errorf("after %s: %w", h.last, errSilent)
	}
	return fmt.Errorf("%s: %w", h.last, errSilent)
}

// replay reads a journal's entries into runs, in the order in which they began.
func replay(entries []Entry) []*history {
	var runs []*history
	byID := map[string]*history{}
	for _, e := range entries {
		h := byID[e.Run]
		if h == nil {
			h = &history{run: e.Run, pipeline: e.Pipeline, started: e.Time}
			byID[e.Run] = h
			runs = append(runs, h)
		}
		h.apply(e)
	}
	return runs
}

func (h *history) apply(e Entry) {
	if e.Kind == EntryStarting || e.Kind == EntryCheckpointed || e.Kind == EntryDone {
		h.image, h.last, h.done = e.Image, e.Stage, e.Kind == EntryDone
	}
	switch e.Kind {
	case EntryStarting:
		if e.Stage == StageDeploy {
			h.deploy = deployFailed
		}
	case EntryDone:
		if e.Stage == StageDeploy && h.deploy == deployFailed {
			h.deploy = deployDone
		}
	case EntryCheckpointed:
		h.checkpoints = append(h.checkpoints, e)
	case EntryRestoring:
		// Also after a commit whose append failed, and was there all the same.
		h.finished, h.restoring = false, true
	case EntryRestored:
		for i, c := range h.checkpoints {
			if c.Stage == e.Stage {
				h.checkpoints = append(h.checkpoints[:i:i], h.checkpoints[i+1:]...)
				break
			}
		}
		h.restorations = append(h.restorations, Restoration{Stage: e.Stage, Restoration: *e.Restoration})
	case EntryFinished:
		h.finished = true
	}
}
