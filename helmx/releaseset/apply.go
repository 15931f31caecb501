package releaseset

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// ApplyRequest asks for the set to be deployed.
type ApplyRequest struct {
	// Run identifies the run, required: a restore tells by it its own work from
	// somebody else's.
	Run string
	// Source is recorded with every release.
	Source stages.Source
	// Clearances are those that members were not configured with, by their IDs.
	Clearances map[string]stages.Clearance
	// Plan, if set, is what was decided on, by [Set.Plan] with the same Run and Source.
	// It must have a digest of every member. A member that would do something else
	// when it is its turn fails with an error matching [stages.ErrPlanStale], and the
	// set is undone.
	Plan *Plan
	// Checkpointed, if set, is told of every checkpoint before the member is touched,
	// so that another process can [Set.Restore] what this one leaves if it is
	// killed. An error fails the member. It is called concurrently.
	Checkpointed func(ctx context.Context, cp MemberCheckpoint) error
}

// MemberCheckpoint is the state of a member before it was touched.
type MemberCheckpoint struct {
	Member     string            `json:"member"`
	Checkpoint stages.Checkpoint `json:"checkpoint"`
}

// errAborted ends the verification of a member that will be undone anyway.
var errAborted = errors.New("given up because another member failed")

// Apply deploys the set, all of it or, as far as that can be, nothing: see the
// package's documentation. A failure after it has begun is an [*Error]; the result
// is complete with it. A cancelled context counts as a failure.
func (s *Set) Apply(ctx context.Context, req ApplyRequest) (Result, error) {
	clearances, err := s.admit(req)
	if err == nil {
		err = s.check(ctx)
	}
	if err != nil {
		return Result{}, fmt.Errorf("release set, nothing was begun: %w", err)
	}
	a := &application{
		set: s, req: req, clearances: clearances,
		results: make([]MemberResult, len(s.members)), checkpoints: make([]*stages.Checkpoint, len(s.members)),
		unlocks: make([]func(context.Context), len(s.members)),
	}
	defer a.unlockAll(context.WithoutCancel(ctx))
	for i, m := range s.members {
		a.results[i] = MemberResult{Member: m.id, Outcome: NotStarted}
	}
	a.work(ctx)
	if len(a.causes) > 0 {
		a.restoreAll(context.WithoutCancel(ctx))
	} else {
		a.forget(context.WithoutCancel(ctx))
	}
	result := Result{Run: req.Run, Members: a.results}
	if len(a.causes) > 0 {
		return result, &Error{Causes: a.causes, Result: result}
	}
	return result, nil
}

// admit returns every member's clearance, and refuses what may not be deployed.
func (s *Set) admit(req ApplyRequest) ([]stages.Clearance, error) {
	var problems []error
	if req.Run == "" {
		problems = append(problems, fmt.Errorf("%w: it needs a Run", stages.ErrInvalid))
	}
	for id := range req.Clearances {
		if s.find(id) < 0 {
			problems = append(problems, fmt.Errorf("%w: there is a clearance for %q, which is no member", stages.ErrInvalid, id))
		}
	}
	for _, m := range s.members {
		if req.Plan != nil && req.Plan.digest(m.id) == "" {
			problems = append(problems, fmt.Errorf("%w: the plan has no digest of %s; plan this set", stages.ErrInvalid, m.id))
		}
	}
	clearances := make([]stages.Clearance, len(s.members))
	for i, m := range s.members {
		c, later := req.Clearances[m.id]
		if !later {
			c = m.Clearance
		}
		switch {
		case (m.Unscanned || m.Remove) && later:
			problems = append(problems, fmt.Errorf("%w: there is a clearance for %s, which has no image of ours", stages.ErrInvalid, m.id))
		case m.Unscanned, m.Remove:
		case c.Check() != nil:
			problems = append(problems, &MemberError{m.id, "deploy", c.Check()})
		case c.Image() != m.Image:
			problems = append(problems, &MemberError{m.id, "deploy", fmt.Errorf("%w: the clearance is for %s, to be deployed is %s", stages.ErrSubjectMismatch, c.Image(), m.Image)})
		}
		clearances[i] = c
	}
	return clearances, errors.Join(problems...)
}

// application is one Apply. While members are worked on, each touches only what is
// its own in the slices.
type application struct {
	set         *Set
	req         ApplyRequest
	clearances  []stages.Clearance
	results     []MemberResult
	checkpoints []*stages.Checkpoint
	// unlocks give the members' locks back, which are held to the end of the set or
	// of their restore.
	unlocks []func(context.Context)
	// finished are the members that were begun, in the order in which they ended.
	finished []int
	causes   []error
}

// deploy takes one member from its checkpoint to its verification.
func (a *application) deploy(ctx, verifying context.Context, i int) {
	m, result, start := a.set.members[i], &a.results[i], time.Now()
	result.Err = m.use(ctx, func(ctx context.Context, d Deployer) error {
		if err := a.lock(ctx, d, i); err != nil {
			return err
		}
		if err := a.checkpoint(ctx, d, i); err != nil {
			return &MemberError{m.id, "checkpoint", err}
		}
		report(ctx, stages.Progress{Message: "deploying " + m.id})
		if err := protect(func() (err error) { result.Release, err = a.release(ctx, d, i); return err }); err != nil {
			return &MemberError{m.id, "deploy", err}
		}
		return a.verify(verifying, i)
	})
	result.Elapsed = time.Since(start)
	if result.Err == nil {
		result.Outcome = Deployed
		report(ctx, stages.Progress{ID: m.id, Message: "deployed " + m.id})
	}
}

// lock takes the member's lock and keeps it.
func (a *application) lock(ctx context.Context, d Deployer, i int) (err error) {
	a.unlocks[i], err = a.set.members[i].lock(ctx, d, a.req.Run)
	return err
}

// held calls f under the lock that the member has, or else under a new one. A
// deployer that doesn't know of a lock which another one of the same member took
// is given it anew.
func (a *application) held(ctx context.Context, d Deployer, i int, f func() error) error {
	m := a.set.members[i]
	if a.unlocks[i] != nil {
		err := f()
		if !errors.Is(err, stages.ErrLocked) {
			return err
		}
		a.unlock(ctx, i)
	}
	return m.locked(ctx, d, a.req.Run, f)
}

func (a *application) unlock(ctx context.Context, i int) {
	if a.unlocks[i] != nil {
		a.unlocks[i](ctx)
		a.unlocks[i] = nil
	}
}

// unlockAll gives back what is still locked, a few at a time.
func (a *application) unlockAll(ctx context.Context) {
	_ = a.set.each(ctx, func(ctx context.Context, i int) error { a.unlock(ctx, i); return nil })
}

// verify asks the member's verifier, if it has one, until ctx ends.
func (a *application) verify(ctx context.Context, i int) error {
	m, result := a.set.members[i], &a.results[i]
	if m.Verify == nil {
		return nil
	}
	ctx = stages.WithProgress(ctx, m.progress(ctx))
	err := protect(func() (err error) { result.Verification, err = m.Verify.Verify(ctx, result.Release); return err })
	if err == nil {
		return nil
	}
	// Given up is what the context says, however the verifier puts it.
	if cause := context.Cause(ctx); errors.Is(cause, errAborted) && errors.Is(err, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return &MemberError{m.id, "verify", err}
}

// checkpoint records the member's state. From then on it may have been changed.
func (a *application) checkpoint(ctx context.Context, d Deployer, i int) error {
	m := a.set.members[i]
	var cp stages.Checkpoint
	err := protect(func() (err error) {
		cp, err = d.Checkpoint(ctx, stages.CheckpointRequest{Run: a.req.Run, Image: m.Image})
		return err
	})
	if err == nil && a.req.Checkpointed != nil {
		err = protect(func() error { return a.req.Checkpointed(ctx, MemberCheckpoint{Member: m.id, Checkpoint: cp}) })
	}
	if err != nil {
		return err
	}
	a.checkpoints[i] = &cp
	return nil
}

func (a *application) release(ctx context.Context, d Deployer, i int) (stages.Release, error) {
	m := a.set.members[i]
	var plan string
	if a.req.Plan != nil {
		plan = a.req.Plan.digest(m.id)
	}
	if !m.Unscanned {
		return d.Deploy(ctx, stages.DeployRequest{Clearance: a.clearances[i], Run: a.req.Run, Source: a.req.Source, Plan: plan})
	}
	u, err := m.unscanned(d)
	if err != nil {
		return stages.Release{}, err
	}
	return u.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: a.req.Run, Source: a.req.Source, Plan: plan})
}
