package traffic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/rollout/internal/wait"
	"github.com/fairlead-dev/fairlead/stages"
)

// watch looks at the gates and at the canary's pods until the step is over.
func (f *flight) watch(ctx context.Context) error {
	err := f.guarded(ctx, func(ctx context.Context) error {
		return f.looks(ctx, f.cfg.Steps[f.record.Step-1])
	})
	if err != nil {
		return err
	}
	f.progress("step %d of %d passed", f.record.Step, len(f.cfg.Steps))
	if f.record.Step < len(f.cfg.Steps) {
		return f.toStep(ctx, f.record.Step+1, f.record.Weight)
	}
	return f.save(ctx, func(r *Record) { r.Phase, r.Promotion = Promoting, true })
}

// guarded calls work, and ends it as soon as the canary is seen not to run.
func (f *flight) guarded(ctx context.Context, work func(context.Context) error) error {
	watching, cancel := context.WithCancelCause(ctx)
	var pods sync.WaitGroup
	pods.Go(func() { cancel(f.watchPods(watching)) })
	err := protect(func() error { return work(watching) })
	cancel(nil)
	pods.Wait()
	if broken, ok := errors.AsType[*canaryError](context.Cause(watching)); ok {
		return broken
	}
	return err
}

// watchPods returns when the canary doesn't run any more, or ctx is done.
func (f *flight) watchPods(ctx context.Context) error {
	for {
		err := f.runs(ctx)
		if err != nil && ctx.Err() == nil && !errors.Is(err, stages.ErrIndeterminate) {
			return &canaryError{err}
		}
		if !wait.For(ctx, f.cfg.Interval) {
			return nil
		}
	}
}

// looks looks at the gates until the step has passed.
func (f *flight) looks(ctx context.Context, step Step) error {
	began := time.Now()
	var gates []*asked
	for _, gate := range step.Gates {
		gates = append(gates, &asked{gate: stages.GateSeries(gate, f.cfg.gated())})
	}
	for {
		decisions, err := f.look(ctx, gates)
		f.decisions = decisions
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		elapsed, left := time.Since(began), step.For
		switch worst(decisions) {
		case stages.Fail:
			return &BreachError{Decisions: decisions, class: stages.ErrGateRefused}
		case stages.Pass:
			if elapsed >= step.For {
				return f.confirm(ctx)
			}
		default:
			if elapsed >= step.For {
				left += step.Extend
			}
			if elapsed >= step.For+step.Extend {
				return &BreachError{Decisions: decisions, class: stages.ErrInconclusive}
			}
		}
		if !wait.For(ctx, min(f.cfg.Interval, left-elapsed)) {
			return context.Cause(ctx)
		}
	}
}

// confirm proves once more, at the end of a step, that the canary runs.
func (f *flight) confirm(ctx context.Context) error {
	if err := f.runs(ctx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &canaryError{err}
	}
	return nil
}

// look asks every gate, and those that have answered again until all have: one
// that watches for minutes must not keep others from seeing harm. Its error ends
// the step whatever they say.
func (f *flight) look(ctx context.Context, gates []*asked) ([]stages.Decision, error) {
	standing, err := f.standing(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	meanwhile, allAnswered := context.WithCancel(ctx)
	defer allAnswered()
	decisions := make([]stages.Decision, len(gates))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err = f.stand(meanwhile); err != nil {
			cancel()
		}
	})
	var asked sync.WaitGroup
	for i, gate := range gates {
		asked.Add(1)
		wg.Go(func() {
			decisions[i] = f.ask(ctx, i, gate)
			asked.Done()
			for decisions[i].Verdict != stages.Fail && wait.For(meanwhile, f.cfg.Interval) {
				if again := f.ask(meanwhile, i, gate); again.Verdict == stages.Fail || meanwhile.Err() == nil {
					decisions[i] = again
				}
			}
			if decisions[i].Verdict == stages.Fail {
				cancel() // Nothing that the others could say changes that.
			}
		})
	}
	asked.Wait()
	allAnswered()
	wg.Wait()
	if err != nil {
		return nil, err
	}
	decisions = slices.Concat(decisions, []stages.Decision{standing})
	slices.SortStableFunc(decisions, func(a, b stages.Decision) int { return severity(b) - severity(a) })
	return decisions, nil
}

// stand returns an error if traffic isn't divided as this canary has it any more,
// or nil when ctx is done.
func (f *flight) stand(ctx context.Context) error {
	for wait.For(ctx, f.cfg.Interval) {
		err := protect(func() error { _, err := f.standing(ctx); return err })
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// runs proves that the canary does.
func (f *flight) runs(ctx context.Context) error {
	rel := f.canary
	if err := f.of(rel); err != nil {
		return err
	}
	c := begin(func() (struct{}, error) { return struct{}{}, prove(ctx, rel, f.cfg.Watch) })
	if !c.returned(ctx) {
		return fmt.Errorf("%w: the verifier has not returned: %w", stages.ErrIndeterminate, context.Cause(ctx))
	}
	return c.err
}

// asked is a gate of a step, whose looks are a series if it knows of such.
type asked struct {
	gate stages.Gate[stages.Release]
	// late is a look of it that has not returned in time. No other begins before it has.
	late *call[stages.Decision]
}

// decide looks once. Of a look that comes late, only a failure counts.
func (a *asked) decide(ctx context.Context, rel stages.Release) (stages.Decision, error) {
	if late := a.late; late != nil {
		if !late.returned(ctx) {
			return stages.Decision{}, fmt.Errorf("an earlier look has not returned: %w", context.Cause(ctx))
		}
		a.late = nil
		if late.err == nil && late.value.Verdict == stages.Fail {
			return late.value, nil
		}
	}
	c := begin(func() (stages.Decision, error) { return a.gate.Decide(ctx, rel) })
	if !c.returned(ctx) {
		a.late = c
		return stages.Decision{}, context.Cause(ctx)
	}
	return c.value, c.err
}

// ask asks one gate. Only one that works can pass or fail anything.
func (f *flight) ask(ctx context.Context, i int, gate *asked) stages.Decision {
	ctx, cancel := context.WithTimeoutCause(ctx, f.cfg.GateTimeout, fmt.Errorf("no answer within GateTimeout, %s", f.cfg.GateTimeout))
	defer cancel()
	d, err := gate.decide(ctx, f.canary)
	if d.Gate == "" {
		d.Gate = fmt.Sprintf("step %d gate %d", f.record.Step, i+1)
	}
	switch {
	case err != nil:
		d.Verdict = stages.Inconclusive
		d.Reasons = append(slices.Clone(d.Reasons), stages.Reason{Rule: "gate-error", Message: err.Error()})
	case d.Verdict != stages.Pass && d.Verdict != stages.Fail:
		d.Verdict = stages.Inconclusive
	}
	return d
}

// standing decides whether traffic is still divided as this canary has it. It
// passes, or is inconclusive while nobody can tell.
func (f *flight) standing(ctx context.Context) (stages.Decision, error) {
	d := stages.Decision{Gate: "traffic", Verdict: stages.Pass}
	doubt := func(rule, message string) stages.Decision {
		d.Verdict, d.Reasons = stages.Inconclusive, []stages.Reason{{Rule: rule, Message: message}}
		return d
	}
	stored, version, err := f.load(ctx, f.record.Holder)
	switch {
	case errors.Is(err, stages.ErrLockLost):
		return d, err
	case err != nil:
		return doubt("state", err.Error()), nil
	case stored == nil:
		return d, fmt.Errorf("%w: it is gone", ErrStateChanged)
	case stored.AbortAsked != "":
		return d, askedToAbort(stored)
	}
	f.version = version
	split, err := f.cfg.Router.Observe(ctx)
	if route, ok := errors.AsType[*RouteError](err); ok {
		return d, route
	}
	switch {
	case err != nil:
		return doubt("split", err.Error()), nil
	case split.Canary != f.record.Weight || split.Uneven:
		return d, &ChangedError{Want: []int{f.record.Weight}, Got: split.Canary, Detail: split.Detail}
	case !split.Settled:
		return doubt("split", split.String()), nil
	}
	return d, nil
}

func severity(d stages.Decision) int {
	switch d.Verdict {
	case stages.Fail:
		return 2
	case stages.Pass:
		return 0
	default:
		return 1
	}
}

// worst returns the verdict on decisions, which are ordered.
func worst(decisions []stages.Decision) stages.Verdict { return decisions[0].Verdict }
