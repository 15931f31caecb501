package releaseset

import (
	"context"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// Remover is the ability of a [Deployer] that [Member.Remove] asks for. A
// [helmx.Deployer] has it; it must keep the history, or a removal can't be undone.
type Remover interface {
	stages.Uninstaller
	// PlanRemoval tells what Uninstall would delete, and changes nothing. The digest
	// is different when it would delete something else.
	PlanRemoval(ctx context.Context, run string) (stages.Plan, error)
	// Forget gives up what is kept for undoing an Uninstall.
	Forget(ctx context.Context, run string) error
}

var _ Remover = (*helmx.Deployer)(nil)

// remover returns the ability of d that a member which is to go needs.
func (m member) remover(d Deployer) (Remover, error) {
	r, ok := d.(Remover)
	if !ok {
		return nil, fmt.Errorf("%w: the deployer %T can't remove a release", stages.ErrInvalid, d)
	}
	return r, nil
}

// remove takes one member from its checkpoint to its removal.
func (a *application) remove(ctx context.Context, i int) {
	m, result, start := a.set.members[i], &a.results[i], time.Now()
	result.Err = m.use(ctx, func(ctx context.Context, d Deployer) error {
		r, err := m.remover(d)
		if err != nil {
			return &MemberError{m.id, "remove", err}
		}
		if err := a.lock(ctx, d, i); err != nil {
			return err
		}
		if err := a.checkpoint(ctx, d, i); err != nil {
			return &MemberError{m.id, "checkpoint", err}
		}
		report(ctx, stages.Progress{Message: "removing " + m.id})
		err = protect(func() error {
			if err := a.unmoved(ctx, r, i); err != nil {
				return err
			}
			result.Removal, err = r.Uninstall(ctx, a.req.Run)
			return err
		})
		if err != nil {
			return &MemberError{m.id, "remove", err}
		}
		return nil
	})
	result.Elapsed = time.Since(start)
	if result.Err == nil {
		result.Outcome = Removed
		report(ctx, stages.Progress{ID: m.id, Message: "removed " + m.id})
	}
}

// unmoved checks that what would be removed is what the plan said.
func (a *application) unmoved(ctx context.Context, r Remover, i int) error {
	if a.req.Plan == nil {
		return nil
	}
	now, err := r.PlanRemoval(ctx, a.req.Run)
	if err == nil && now.Digest != a.req.Plan.digest(a.set.members[i].id) {
		err = fmt.Errorf("%w: something else would be removed by now; nothing of it was, plan again", stages.ErrPlanStale)
	}
	return err
}

// forget gives up what is kept of the removed members, once the set has succeeded.
// What can't be given up is told, and left.
func (a *application) forget(ctx context.Context) {
	for i, m := range a.set.members {
		if a.results[i].Outcome != Removed {
			continue
		}
		err := m.use(ctx, func(ctx context.Context, d Deployer) error {
			r, err := m.remover(d)
			if err != nil {
				return err
			}
			return a.held(ctx, d, i, func() error {
				return protect(func() error { return r.Forget(ctx, a.req.Run) })
			})
		})
		if err != nil {
			report(ctx, stages.Progress{ID: m.id, Message: fmt.Sprintf("warning: %s is removed, but its records are left: %v", m.id, err)})
		}
	}
}
