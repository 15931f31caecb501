package environment_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/helmx/environment"
	"github.com/fairlead-dev/fairlead/stages"
)

func Example() {
	set, err := environment.Load("testdata/seed/environments.yaml", environment.LoadOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, branch := range []string{"develop", "main", "feature/login"} {
		env, err := set.Resolve(environment.Branch(branch))
		if errors.Is(err, environment.ErrNoEnvironment) {
			fmt.Println(branch, "is not delivered")
			continue
		}
		fmt.Println(branch, "goes to", env, "with", env.ValuesFiles)
	}
	// Output:
	// develop goes to staging (stg) with [testdata/seed/values-stg.yaml]
	// main goes to production (prod) with [testdata/seed/values-prod.yaml]
	// feature/login is not delivered
}

func ExampleApprovalGate() {
	env := environment.Environment{Name: "production", Approvals: environment.Approvals{Required: 1, From: []string{"ada"}}}
	gate, err := environment.NewApprovalGate(environment.ApprovalGateConfig{
		Environment: env,
		Approver: environment.Approved{
			{By: "ada", At: time.Now(), Environment: "production", Digest: image("a").Digest()},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, digit := range []string{"a", "b"} {
		decision, err := gate.Decide(context.Background(), stages.Plan{Image: image(digit)})
		fmt.Println(image(digit).Digest().Short(), decision.Verdict, err)
	}
	// Output:
	// aaaaaaaaaaaa pass <nil>
	// bbbbbbbbbbbb inconclusive <nil>
}

func ExamplePromotion() {
	promotion, err := environment.NewPromotion(environment.PromotionConfig{
		From:   environment.Environment{Name: "staging", Namespace: "stg"},
		To:     environment.Environment{Name: "production", Namespace: "prod", PromotesFrom: "staging"},
		Source: stagingRuns("a"), // a helmx.Deployer for the release in stg
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// As the Builder of a pipeline to production.
	img, err := promotion.Build(context.Background(), stages.Source{Revision: "abc123"})
	fmt.Println(img.Digest().Short(), err)
	_, err = promotion.Build(context.Background(), stages.Source{Revision: "def456"})
	fmt.Println(err)
	// Output:
	// aaaaaaaaaaaa <nil>
	// promote from staging to production: it runs commit "abc123" as registry.example.com/shop@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, asked for was commit "def456"
}
