package metric

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/fairlead-dev/fairlead/stages"
)

// All returns a gate that asks several at the same time, because each may watch
// for minutes. The weakest verdict wins: one that fails ends the others, and it
// takes all of them to pass. A gate that doesn't work makes the decision an error
// as long as no other fails.
func All(name string, gates ...stages.Gate[stages.Release]) (stages.Gate[stages.Release], error) {
	switch {
	case name == "":
		return nil, fmt.Errorf("%w: a gate of several needs a name", stages.ErrInvalid)
	case len(gates) == 0 || slices.Contains(gates, nil):
		return nil, fmt.Errorf("%w: metric gate %s: at least one gate is required, and none may be nil", stages.ErrInvalid, name)
	}
	return &all{name: name, gates: slices.Clone(gates)}, nil
}

type all struct {
	name  string
	gates []stages.Gate[stages.Release]
}

var _ stages.SeriesGate[stages.Release] = (*all)(nil)

// Series has those of the gates go on where they ended that can.
func (a *all) Series(of int) stages.Gate[stages.Release] {
	series := &all{name: a.name}
	for _, gate := range a.gates {
		series.gates = append(series.gates, stages.GateSeries(gate, of))
	}
	return series
}

// errOtherFailed is why a gate is cancelled when another one fails.
var errOtherFailed = errors.New("another gate failed")

// Decide asks all gates and returns when each has. If ctx ends before, what they
// have said until then is beside the error.
func (a *all) Decide(ctx context.Context, rel stages.Release) (stages.Decision, error) {
	bounded, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	decisions := make([]stages.Decision, len(a.gates))
	errs := make([]error, len(a.gates))
	var wg sync.WaitGroup
	for i, gate := range a.gates {
		wg.Go(func() {
			decisions[i], errs[i] = protected(bounded, gate, rel)
			if errs[i] == nil && decisions[i].Verdict == stages.Fail {
				cancel(errOtherFailed)
			}
		})
	}
	wg.Wait()
	d, err := a.join(decisions, errs)
	if ctx.Err() != nil && d.Verdict != stages.Fail {
		d.Verdict = stages.Inconclusive
		return d, fmt.Errorf("metric gate %s: %w", a.name, context.Cause(ctx))
	}
	return d, err
}

// protected asks a gate, and makes an error of a panic.
func protected(ctx context.Context, gate stages.Gate[stages.Release], rel stages.Release) (d stages.Decision, err error) {
	defer func() {
		if p := recover(); p != nil {
			d, err = stages.Decision{}, fmt.Errorf("%w: %v", stages.ErrPanicked, p)
		}
	}()
	return gate.Decide(ctx, rel)
}

func (a *all) join(decisions []stages.Decision, errs []error) (stages.Decision, error) {
	out := stages.Decision{Gate: a.name, Verdict: stages.Pass}
	for i, d := range decisions {
		out.Warnings = append(out.Warnings, about(d.Gate, d.Warnings)...)
		switch {
		case errs[i] == nil && d.Verdict == stages.Pass:
			continue
		case errs[i] == nil && d.Verdict == stages.Fail:
			out.Verdict = stages.Fail
		case out.Verdict != stages.Fail:
			out.Verdict = stages.Inconclusive
		}
		out.Reasons = append(out.Reasons, about(d.Gate, d.Reasons)...)
	}
	if out.Verdict == stages.Fail {
		return out, nil
	}
	return out, errors.Join(errs...)
}

// about says which gate gave a reason.
func about(gate string, reasons []stages.Reason) []stages.Reason {
	out := slices.Clone(reasons)
	for i := range out {
		out[i].Message = gate + ": " + out[i].Message
	}
	return out
}
