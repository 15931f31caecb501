package traffic_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/rollout/traffic/traffictest"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// removable is a deployer as a canary needs it; helmx.Deployer is one.
type removable struct{ stagestest.Deployer }

// Plan names a release of its own.
func (r *removable) Plan(ctx context.Context, req stages.PlanRequest) (stages.Plan, error) {
	plan, err := r.Deployer.Plan(ctx, req)
	plan.Release = "default/fake-canary"
	return plan, err
}

// lockable is what serves, as a canary needs it; helmx.Deployer is one, too.
type lockable struct{ stagestest.Deployer }

func (*lockable) Lock(context.Context, string) (stages.Unlock, error) {
	return func(context.Context) error { return nil }, nil
}

func Example() {
	ctx := context.Background()
	deploy := func(to stages.Deployer, version string) error {
		clearance, err := stages.BypassGates(stagestest.Image(version), "an example")
		if err != nil {
			return err
		}
		_, err = to.Deploy(ctx, stages.DeployRequest{Clearance: clearance, Run: version})
		return err
	}
	errorRate := stages.GateFunc[stages.Release](func(context.Context, stages.Release) (stages.Decision, error) {
		return stages.Decision{Gate: "error rate", Verdict: stages.Fail,
			Reasons: []stages.Reason{{Rule: "http_errors", Message: "4.1% of the canary's requests fail, 0.2% of the stable release's"}}}, nil
	})

	stable := &lockable{}
	canary, err := traffic.NewCanary(traffic.CanaryConfig{
		Stable:    stable,
		Canary:    &removable{},
		Verifiers: []stages.Verifier{&stagestest.Verifier{}},
		Router:    &traffictest.Router{},
		State:     &traffictest.State{},
		Steps:     []traffic.Step{{Weight: 10, For: time.Minute, Gates: []stages.Gate[stages.Release]{errorRate}}},
		Drain:     -1,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(deploy(canary, "1.0.0")) // The first install.
	err = deploy(canary, "1.1.0")
	if aborted, ok := errors.AsType[*traffic.AbortError](err); ok {
		fmt.Println(aborted)
	}
	// Output:
	// <nil>
	// canary aborted in step 1, at 10%: gate refused: error rate: fail: 4.1% of the canary's requests fail, 0.2% of the stable release's; all traffic is on the stable release, the canary is removed
}

func ExampleNewHTTPRoute() {
	router, err := traffic.NewHTTPRoute(traffic.HTTPRouteConfig{
		REST:      &rest.Config{Host: "https://kubernetes.example"},
		Namespace: "prod", Name: "shop", Stable: "shop", Canary: "shop-canary",
	})
	fmt.Println(router != nil, err)
	// Output: true <nil>
}
