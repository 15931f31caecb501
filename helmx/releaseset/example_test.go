package releaseset_test

import (
	"context"
	"fmt"

	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func Example() {
	// Usually from a pipeline, after its gates have passed.
	clearance, err := stages.BypassGates(stagestest.Image("v2"), "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	// Usually helmx.New with a chart of its own, and one cluster for all.
	open := func(context.Context) (releaseset.Deployer, error) { return &stagestest.Deployer{}, nil }
	set, err := releaseset.New(releaseset.Config{Members: []releaseset.Member{
		{Namespace: "prod", Name: "web", Needs: []string{"api"}, Clearance: clearance, Open: open},
		{Namespace: "prod", Name: "api", Clearance: clearance, Open: open},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	plan, err := set.Plan(ctx, releaseset.PlanRequest{Run: "run-1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(plan.Count())
	result, err := set.Apply(ctx, releaseset.ApplyRequest{Run: "run-1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range result.Members {
		fmt.Println(m.Member, m.Outcome)
	}
	// Output:
	// 2 to create, 0 to update, 0 to delete
	// prod/web deployed
	// prod/api deployed
}
