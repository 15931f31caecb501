package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/internal/seal"
	"github.com/fairlead-dev/fairlead/stages"
)

// Run delivers src. It returns when no stage runs any more and every observer
// has been told or given up on.
//
// It is refused, with a nil result and before anything is touched, if src is
// invalid ([stages.ErrInvalid]), the pipeline is closed ([ErrClosed]), the
// journal is in use ([ErrBusy]), or the journal holds an unfinished run
// ([ErrUnfinished]). Otherwise the result is not nil, and the error is nil or an
// [*Error].
//
// Cancelling ctx stops the stage that runs, waits for it, and restores what was
// checkpointed under a context of its own.
func (p *Pipeline) Run(ctx context.Context, src stages.Source) (*Result, error) {
	leave, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := src.Validate(); err != nil {
		return nil, fmt.Errorf("pipeline %s: %w", p.config.Name, err)
	}
	log, entries, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	id := p.config.RunID()
	if err := admit(id, entries); err != nil {
		return nil, fmt.Errorf("pipeline %s: %w", p.config.Name, err)
	}
	r := newRun(p.config, id, log)
	r.result.Source = src.Clone()
	err = r.execute(ctx)
	r.result.DroppedEvents, r.result.ObserverPanics = r.bus.close(p.config.DrainTimeout)
	return r.result, err
}

// open takes the journal.
func (p *Pipeline) open(ctx context.Context) (log Log, entries []Entry, err error) {
	err = protect(func() error {
		log, entries, err = p.config.Journal.Open(ctx)
		return err
	})
	if err != nil && !errors.Is(err, ErrBusy) {
		err = errors.Join(ErrJournal, err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("pipeline %s: open the journal: %w", p.config.Name, err)
	}
	return log, entries, nil
}

// admit reports why a run must not start.
func admit(id string, entries []Entry) error {
	if id == "" {
		return fmt.Errorf("%w: RunID returned no ID", stages.ErrInvalid)
	}
	var unfinished []string
	for _, h := range replay(entries) {
		if !h.finished {
			unfinished = append(unfinished, h.run)
		}
		if h.run == id {
			return fmt.Errorf("%w: RunID returned %q, which the journal holds already", stages.ErrInvalid, id)
		}
	}
	if len(unfinished) > 0 {
		return &UnfinishedError{Runs: unfinished}
	}
	return nil
}

// run is one run or recovery.
type run struct {
	config Config
	id     string
	log    Log
	bus    *bus

	undo   []undoable // in the order of their side effects
	unlock stages.Unlock
	deploy uncompensated
	later  []error

	mu     sync.Mutex // guards result while stages overlap
	result *Result
}

func newRun(config Config, id string, log Log) *run {
	return &run{
		config: config, id: id, log: log, bus: newBus(id, config.Name, config.Observers),
		result: &Result{Run: id, Pipeline: config.Name, Started: time.Now()},
	}
}

func (r *run) emit(e Event) { r.bus.emit(e) }

// execute delivers, and takes back what it did if it can't.
func (r *run) execute(ctx context.Context) error {
	r.emit(Event{Kind: KindRunStarted, Subject: r.result.Source.Dir, Message: r.result.Source.Revision})
	var failed error
	if err := protect(func() error { failed = r.deliver(ctx); return nil }); err != nil {
		failed = &Error{Cause: err}
	}
	if failed == nil {
		r.giveBack(context.WithoutCancel(ctx))
		r.result.Outcome, r.result.Elapsed = OutcomeReleased, time.Since(r.result.Started)
		r.emit(Event{Kind: KindRunSucceeded, Subject: r.result.Image.String(), Elapsed: r.result.Elapsed, Outcome: OutcomeReleased})
		return nil
	}
	e, ok := errors.AsType[*Error](failed)
	if !ok {
		e = &Error{Cause: failed}
	}
	e.Pipeline, e.Run = r.config.Name, r.id
	ctx = context.WithoutCancel(ctx)
	if err := r.recordFailure(ctx, e.Subject, fmt.Errorf("%s: %w", e.Stage, e.Cause), recordTime); err != nil {
		r.later = append(r.later, err)
	}
	e.Restorations = r.restore(ctx)
	r.verifyRestored(ctx, e.Restorations)
	e.Outcome = outcomeOf(r.deploy, e.Restorations)
	r.close(ctx, e.Outcome, e.Restorations, e.Cause)
	r.giveBack(ctx)
	e.Later = r.later
	r.result.Restorations, r.result.Outcome, r.result.Elapsed = e.Restorations, e.Outcome, time.Since(r.result.Started)
	r.emit(Event{Stage: e.Stage, Kind: KindRunFailed, Subject: e.Subject, Elapsed: r.result.Elapsed,
		Message: e.state(), Error: e.Error(), Evidence: e.Evidence, Outcome: e.Outcome})
	return e
}

// deliver is the flow. Its error is an [*Error] that knows its stage and cause.
func (r *run) deliver(ctx context.Context) error {
	if err := r.write(ctx, Entry{Kind: EntryStarted}); err != nil {
		return &Error{Stage: StageBuild, Subject: r.result.Source.Dir, Cause: err}
	}
	img, err := r.build(ctx)
	if err != nil {
		return err
	}
	if err := r.inspect(ctx, img); err != nil {
		return err
	}
	clearance, err := r.clear(ctx, img)
	if err != nil {
		return err
	}
	if err := r.lock(ctx, img); err != nil {
		return err
	}
	rel, err := r.release(ctx, clearance)
	if err != nil {
		return err
	}
	if err := r.verify(ctx, rel); err != nil {
		return err
	}
	return r.commit(ctx, rel)
}

func (r *run) build(ctx context.Context) (stages.Image, error) {
	s := step{name: StageBuild, subject: r.result.Source.Dir, policy: r.config.Retries.Build}
	return mutate(ctx, r, s, r.config.Builder, stages.Image{}, func(ctx context.Context) (stages.Image, error) {
		img, err := r.config.Builder.Build(ctx, r.result.Source.Clone())
		if err == nil && img.IsZero() {
			err = stages.Permanent(errors.New("the builder returned no image"))
		}
		if err == nil {
			r.record(func(res *Result) { res.Image = img })
		}
		return img, err
	})
}

// inspect scans and plans side by side. Either failing stops the other.
func (r *run) inspect(ctx context.Context, img stages.Image) error {
	planner, plans := r.config.Deployer.(stages.Planner)
	if !plans {
		return r.scan(ctx, img)
	}
	return overlap(ctx,
		func(ctx context.Context) error { return r.scan(ctx, img) },
		func(ctx context.Context) error { return r.plan(ctx, planner, img) },
	)
}

func (r *run) scan(ctx context.Context, img stages.Image) error {
	s := step{name: StageScan, subject: img.String(), policy: r.config.Retries.Scan}
	report, err := perform(ctx, r, s, func(ctx context.Context) (stages.Report, error) {
		report, err := r.config.Scanner.Scan(ctx, img)
		return report, about(err, "scan report", report.Image, img)
	})
	if err != nil {
		return err
	}
	r.record(func(res *Result) { res.Report = &report })
	return decideAll(ctx, r, step{name: StageScanGate, subject: img.String(), policy: r.config.Retries.ScanGate}, r.config.ScanGates, report)
}

func (r *run) plan(ctx context.Context, planner stages.Planner, img stages.Image) error {
	s := step{name: StagePlan, subject: img.String(), policy: r.config.Retries.Plan}
	plan, err := perform(ctx, r, s, func(ctx context.Context) (stages.Plan, error) {
		plan, err := planner.Plan(ctx, stages.PlanRequest{Image: img, Run: r.id, Source: r.result.Source.Clone()})
		return plan, about(err, "plan", plan.Image, img)
	})
	if err != nil {
		return err
	}
	r.record(func(res *Result) { res.Plan = &plan })
	r.emit(Event{Stage: StagePlan, Kind: KindPlanned, Subject: plan.Release, Message: summary(plan), Changes: plan.Changes})
	return decideAll(ctx, r, step{name: StagePlanGate, subject: plan.Release, policy: r.config.Retries.PlanGate}, r.config.PlanGates, plan)
}

// summary counts a plan's changes.
func summary(plan stages.Plan) string {
	counts := map[stages.Action]int{}
	for _, c := range plan.Changes {
		counts[c.Action]++
	}
	text := fmt.Sprintf("%d to create, %d to update, %d to delete", counts[stages.Create], counts[stages.Update], counts[stages.Delete])
	for _, rare := range []stages.Action{stages.Recreate, stages.Adopt} {
		if counts[rare] > 0 {
			text += fmt.Sprintf(", %d to %s", counts[rare], rare)
		}
	}
	if n := len(plan.AllDangers()); n > 0 {
		text += fmt.Sprintf(", %d dangers", n)
	}
	return text
}

// clear signs, proves the signature, and clears the image on what was decided.
func (r *run) clear(ctx context.Context, img stages.Image) (stages.Clearance, error) {
	s := step{name: StageSign, subject: img.String(), policy: r.config.Retries.Sign}
	_, err := mutate(ctx, r, s, r.config.Signer, img, func(ctx context.Context) (stages.Signature, error) {
		sig, err := r.config.Signer.Sign(ctx, img)
		return sig, about(err, "signature", sig.Image, img)
	})
	if err != nil {
		return stages.Clearance{}, err
	}
	s = step{name: StageVerifySignature, subject: img.String(), policy: r.config.Retries.VerifySignature}
	signature, err := perform(ctx, r, s, func(ctx context.Context) (stages.Signature, error) {
		sig, err := r.config.SignatureVerifier.VerifySignature(ctx, img)
		return sig, about(err, "verified signature", sig.Image, img)
	})
	if err != nil {
		return stages.Clearance{}, err
	}
	r.record(func(res *Result) { res.Signature = &signature })
	clearance, err := stages.Clear(seal.New(), stages.Grounds{
		Image: img, Report: *r.result.Report, Decisions: r.result.Decisions, Signature: signature,
	})
	if err != nil {
		return stages.Clearance{}, &Error{Stage: StageClear, Subject: img.String(), Attempts: 1, Cause: err}
	}
	return clearance, nil
}

// lock keeps other runs off the release until this one has ended.
func (r *run) lock(ctx context.Context, img stages.Image) error {
	locker, ok := r.config.Deployer.(stages.Locker)
	if !ok {
		return nil
	}
	s := step{name: StageLock, subject: img.String()}
	unlock, err := perform(ctx, r, s, func(ctx context.Context) (stages.Unlock, error) { return locker.Lock(ctx, r.id) })
	r.unlock = unlock
	return err
}

// unlockTime bounds giving the lock back, which expires otherwise.
const unlockTime = 10 * time.Second

// giveBack gives the lock back. That it can't be given back changes no outcome.
func (r *run) giveBack(ctx context.Context) {
	if r.unlock == nil {
		return
	}
	s := step{name: StageLock, policy: Retry{Timeout: unlockTime}}
	_, err := once(ctx, r, s, 1, func(ctx context.Context) (struct{}, error) { return struct{}{}, r.unlock(ctx) })
	if err != nil {
		r.later = append(r.later, fmt.Errorf("give back the lock, which expires by itself: %w", err))
	}
}

func (r *run) release(ctx context.Context, clearance stages.Clearance) (stages.Release, error) {
	img := clearance.Image()
	s := step{name: StageDeploy, subject: img.String(), policy: r.config.Retries.Deploy}
	_, compensates := r.config.Deployer.(stages.Compensator)
	return mutate(ctx, r, s, r.config.Deployer, img, func(ctx context.Context) (stages.Release, error) {
		if !compensates {
			r.deploy = deployFailed
		}
		rel, err := r.config.Deployer.Deploy(ctx, stages.DeployRequest{
			Clearance: clearance, Run: r.id, Source: r.result.Source.Clone(), Plan: r.planned(),
		})
		if err = about(err, "release", rel.Image, img); err != nil {
			return rel, err
		}
		if !compensates {
			r.deploy = deployDone
		}
		r.record(func(res *Result) { res.Release = &rel })
		return rel, nil
	})
}

// planned returns the digest of the plan that the gates decided on, if there is one.
func (r *run) planned() string {
	if r.result.Plan == nil {
		return ""
	}
	return r.result.Plan.Digest
}

// verify asks the verifiers and then the release gates.
func (r *run) verify(ctx context.Context, rel stages.Release) error {
	subject := rel.Namespace + "/" + rel.Name
	for i, v := range r.config.Verifiers {
		s := step{name: StageVerify.nth(i), subject: subject, policy: r.config.Retries.Verify, examine: examiner(r.config.Verifiers[:i], rel)}
		call := func(ctx context.Context) (stages.Verification, error) {
			proof, err := v.Verify(ctx, rel)
			return proof, proven(proof, err, rel)
		}
		var proof stages.Verification
		var err error
		if _, mutates := v.(stages.Compensator); mutates {
			proof, err = mutate(ctx, r, s, v, rel.Image, call)
		} else {
			proof, err = perform(ctx, r, s, call)
		}
		if err != nil {
			return err
		}
		r.record(func(res *Result) { res.Verifications = append(res.Verifications, proof) })
	}
	s := step{name: StageReleaseGate, subject: subject, policy: r.config.Retries.ReleaseGate, examine: examiner(r.config.Verifiers, rel)}
	if r.config.OnInconclusive == InconclusiveKeeps {
		s.tolerate = func(err error) bool { return errors.Is(err, stages.ErrInconclusive) }
	}
	return decideAll(ctx, r, s, r.config.ReleaseGates, rel)
}

// proven adds to the error of a verifier that proved nothing about rel.
func proven(proof stages.Verification, err error, rel stages.Release) error {
	err = about(err, "verification", proof.Image, rel.Image)
	if err == nil && len(proof.Checks) == 0 {
		err = stages.Permanent(fmt.Errorf("%w: the verifier checked nothing", stages.ErrInconclusive))
	}
	return err
}

// commit makes the release final: no recovery takes it back afterwards.
func (r *run) commit(ctx context.Context, rel stages.Release) error {
	e := &Error{Stage: StageCommit, Subject: rel.Namespace + "/" + rel.Name}
	if ctx.Err() != nil {
		e.Cause = interrupted(ctx, nil)
		return e
	}
	e.Attempts = 1
	if e.Cause = r.write(context.WithoutCancel(ctx), Entry{Kind: EntryFinished, Image: rel.Image, Outcome: OutcomeReleased}); e.Cause != nil {
		return e
	}
	return nil
}

// record changes the result.
func (r *run) record(change func(*Result)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r.result)
}

// about adds to the error of a stage that answered about another image.
func about(err error, what string, got, want stages.Image) error {
	if err != nil || got.Digest() == want.Digest() {
		return err
	}
	name := got.String()
	if got.IsZero() {
		name = "no image"
	}
	return stages.Permanent(fmt.Errorf("%w: the %s is about %s", stages.ErrSubjectMismatch, what, name))
}
