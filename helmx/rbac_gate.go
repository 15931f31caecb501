package helmx

import (
	"context"
	"errors"

	"github.com/fairlead-dev/fairlead/stages"
)

// PrivilegeGate returns a gate that fails where [Deployer.Preflight] does, so that
// a pipeline learns of missing rights along with what else is wrong with a plan.
func (d *Deployer) PrivilegeGate() stages.Gate[stages.Plan] {
	return stages.GateFunc[stages.Plan](func(ctx context.Context, plan stages.Plan) (stages.Decision, error) {
		decision := stages.Decision{Gate: "privileges", Verdict: stages.Pass}
		err := d.Preflight(ctx, stages.PlanRequest{Image: plan.Image})
		lacking, ok := errors.AsType[*PrivilegeError](err)
		if err != nil && !ok {
			return stages.Decision{}, err
		}
		if ok {
			decision.Verdict = stages.Fail
			for _, r := range lacking.Missing {
				decision.Reasons = append(decision.Reasons, stages.Reason{Rule: "missing right", Subject: lacking.Subject, Message: r.String()})
			}
		}
		return decision, nil
	})
}
