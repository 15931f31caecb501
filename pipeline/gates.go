package pipeline

import (
	"context"

	"github.com/fairlead-dev/fairlead/stages"
)

// decideAll asks gates in order until one doesn't pass. s describes the first.
func decideAll[T any](ctx context.Context, r *run, s step, gates []stages.Gate[T], subject T) error {
	base := s.name
	for i, gate := range gates {
		s.name = base.nth(i)
		if err := decide(ctx, r, s, gate, subject); err != nil {
			return err
		}
	}
	return nil
}

// decide asks one gate. Anything but a pass is an error, so that the step's
// policy can have an inconclusive gate asked again.
func decide[T any](ctx context.Context, r *run, s step, gate stages.Gate[T], subject T) error {
	var last *stages.Decision
	asked := 0
	_, err := perform(ctx, r, s, func(bounded context.Context) (decision stages.Decision, err error) {
		asked++
		err = protect(func() (err error) { decision, err = gate.Decide(bounded, subject); return err })
		if err != nil && ctx.Err() != nil {
			return decision, err
		}
		decision, err = judge(s.name, decision, err)
		last = &decision
		r.emit(Event{Stage: s.name, Kind: KindDecided, Subject: s.subject, Attempt: asked, Decision: last, Message: decision.Verdict.String()})
		return decision, err
	})
	if last != nil {
		r.record(func(res *Result) { res.Decisions = append(res.Decisions, *last) })
	}
	return err
}

// judge makes sure that only a decision to pass, by a gate that worked, passes.
func judge(name Stage, d stages.Decision, err error) (stages.Decision, error) {
	if d.Gate == "" {
		d.Gate = string(name)
	}
	if err != nil {
		d.Verdict = stages.Inconclusive
		d.Reasons = append(d.Reasons[:len(d.Reasons):len(d.Reasons)], stages.Reason{Rule: "gate-error", Message: err.Error()})
		return d, &GateError{Decision: d, Err: err}
	}
	switch d.Verdict {
	case stages.Pass:
		return d, nil
	case stages.Fail:
	default:
		d.Verdict = stages.Inconclusive
	}
	return d, &GateError{Decision: d}
}
