package stagestest_test

import (
	"context"
	"errors"

	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func scanAllBut(missing stages.Image) func(context.Context, stages.Image) (stages.Report, error) {
	fake := &stagestest.Scanner{Findings: []stages.Finding{
		{ID: "CVE-2", Severity: stages.SeverityCritical, Package: "b"},
		{ID: "CVE-1", Severity: stages.SeverityLow, Package: "a"},
	}}
	return func(ctx context.Context, img stages.Image) (stages.Report, error) {
		if img == missing {
			return stages.Report{}, errors.New("not in the registry")
		}
		return fake.Scan(ctx, img)
	}
}

// decideSign passes positive numbers and refuses negative ones.
func decideSign(ctx context.Context, n int) (stages.Decision, error) {
	if ctx.Err() != nil {
		return stages.Decision{}, context.Cause(ctx)
	}
	d := stages.Decision{Gate: "sign"}
	switch {
	case n > 0:
		d.Verdict = stages.Pass
	case n < 0:
		d.Verdict = stages.Fail
		d.Reasons = []stages.Reason{{Rule: "negative", Message: "must be positive"}}
	}
	return d, nil
}
