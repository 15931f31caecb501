package helmx

import (
	"context"
	"fmt"
	"slices"

	"github.com/fairlead-dev/fairlead/stages"
)

// dangersGate names the gate in decisions.
const dangersGate = "dangers"

// RefuseDangers returns a gate that fails plans with a danger of the given classes,
// by default all, and warns of the others. It returns an error matching
// [stages.ErrInvalid] for a class that there isn't.
func RefuseDangers(classes ...stages.DangerClass) (stages.Gate[stages.Plan], error) {
	for _, c := range classes {
		if !slices.Contains(stages.DangerClasses(), c) {
			return nil, fmt.Errorf("%w: there is no danger of class %q, there are %q", stages.ErrInvalid, c, stages.DangerClasses())
		}
	}
	if len(classes) == 0 {
		classes = stages.DangerClasses()
	}
	classes = slices.Clone(classes)
	return stages.GateFunc[stages.Plan](func(_ context.Context, plan stages.Plan) (stages.Decision, error) {
		decision := stages.Decision{Gate: dangersGate, Verdict: stages.Pass}
		for _, d := range plan.AllDangers() {
			reason := stages.Reason{Rule: string(d.Class), Subject: d.Object.String(), Message: d.Why}
			if slices.Contains(classes, d.Class) {
				decision.Verdict = stages.Fail
				decision.Reasons = append(decision.Reasons, reason)
				continue
			}
			decision.Warnings = append(decision.Warnings, reason)
		}
		return decision, nil
	}), nil
}
