package releaseset

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-dev/fairlead/stages"
)

// use opens the member's deployer, hands it to f, and closes it again. Progress
// that is reported meanwhile carries the member's ID.
func (m member) use(ctx context.Context, f func(context.Context, Deployer) error) error {
	ctx = stages.WithProgress(ctx, m.progress(ctx))
	d := m.Deployer
	if d == nil {
		if err := protect(func() (err error) { d, err = m.Open(ctx); return err }); err != nil {
			return &MemberError{m.id, "open", err}
		}
		if closer, ok := d.(stages.Closer); ok {
			defer func() {
				if closeErr := protect(closer.Close); closeErr != nil {
					// What was done is done; this is no reason to undo it.
					report(ctx, stages.Progress{Message: fmt.Sprintf("warning: close the deployer of %s: %v", m.id, closeErr)})
				}
			}()
		}
	}
	return f(ctx, d)
}

// unlockTimeout bounds the giving back of a lock; what remains expires by itself.
const unlockTimeout = 10 * time.Second

// lock locks the member for run, if its deployer can do that. It returns what gives
// the lock back, or nil.
func (m member) lock(ctx context.Context, d Deployer, run string) (unlock func(context.Context), _ error) {
	locker, ok := d.(stages.Locker)
	if !ok {
		return nil, nil // There is nothing to give back.
	}
	var give stages.Unlock
	if err := protect(func() (err error) { give, err = locker.Lock(ctx, run); return err }); err != nil {
		return nil, &MemberError{m.id, "lock", err}
	}
	return func(ctx context.Context) {
		free, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
		defer cancel()
		if err := protect(func() error { return give(free) }); err != nil {
			report(ctx, stages.Progress{ID: m.id, Message: fmt.Sprintf("warning: unlock %s: %v; the lock expires by itself", m.id, err)})
		}
	}, nil
}

// locked calls f while the member is locked for run, if its deployer can do that.
func (m member) locked(ctx context.Context, d Deployer, run string, f func() error) error {
	unlock, err := m.lock(ctx, d, run)
	if err != nil {
		return err
	}
	if unlock != nil {
		defer unlock(ctx)
	}
	return f()
}

// progress passes a member's progress on to the sink of ctx.
func (m member) progress(ctx context.Context) func(stages.Progress) {
	return func(p stages.Progress) {
		if p.ID != "" {
			p.ID = m.id + "/" + p.ID
		} else {
			p.ID = m.id
		}
		report(ctx, p)
	}
}

// unscanned returns the ability of d that a chart without an image of ours needs.
func (m member) unscanned(d Deployer) (UnscannedDeployer, error) {
	u, ok := d.(UnscannedDeployer)
	if !ok {
		return nil, fmt.Errorf("%w: the deployer %T can't release a chart without an image of ours", stages.ErrInvalid, d)
	}
	return u, nil
}

// check opens and closes every member, so that a chart that can't be read stops
// the set before anything is changed.
func (s *Set) check(ctx context.Context) error {
	return s.each(ctx, func(ctx context.Context, i int) error {
		m := s.members[i]
		return m.use(ctx, func(_ context.Context, d Deployer) error {
			var err error
			switch {
			case m.Remove:
				_, err = m.remover(d)
			case m.Unscanned:
				_, err = m.unscanned(d)
			}
			return err
		})
	})
}

// each calls f for every member, a few at a time, and joins all errors. It returns
// when all calls have.
func (s *Set) each(ctx context.Context, f func(context.Context, int) error) error {
	errs := make([]error, len(s.members))
	var g errgroup.Group
	g.SetLimit(s.concurrency)
	for i := range s.members {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if ctx.Err() == nil {
				errs[i] = f(ctx, i)
			}
			return nil
		})
	}
	_ = g.Wait() // The errors are in errs, in the members' order.
	if err := errors.Join(errs...); err != nil || ctx.Err() == nil {
		return err
	}
	return context.Cause(ctx)
}

// protect calls f, turning a panic into an error matching [stages.ErrPanicked]. It
// has a goroutine of its own, so that one that f ends with [runtime.Goexit], as a
// failed test does, is not the caller's.
func protect(f func() error) error {
	err := fmt.Errorf("%w: it has ended its goroutine", stages.ErrPanicked)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			switch p := recover().(type) {
			case nil:
			case error:
				err = fmt.Errorf("%w: %w", stages.ErrPanicked, p)
			default:
				err = fmt.Errorf("%w: %v", stages.ErrPanicked, p)
			}
		}()
		err = f()
	}()
	<-done
	return err
}

// report hands p to the sink of ctx. What the sink does wrong must neither fail a
// member nor keep one from being restored.
func report(ctx context.Context, p stages.Progress) {
	_ = protect(func() error { stages.ReportProgress(ctx, p); return nil })
}
