package stages_test

import (
	"context"
	"fmt"

	"github.com/fairlead-dev/fairlead/stages"
)

// A tag never enters a pipeline.
func ExampleParseImage() {
	_, err := stages.ParseImage("ghcr.io/acme/shop:latest")
	fmt.Println(err)

	img, _ := stages.ParseImage("ghcr.io/acme/shop@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	fmt.Println(img.Repository(), img.Digest().Short())
	// Output:
	// image is not pinned by digest: image reference "ghcr.io/acme/shop:latest": resolve its tag once and use name@sha256:…
	// ghcr.io/acme/shop 0123456789ab
}

// A function is enough for a gate.
func ExampleGateFunc() {
	var small stages.Gate[stages.Plan] = stages.GateFunc[stages.Plan](
		func(_ context.Context, plan stages.Plan) (stages.Decision, error) {
			d := stages.Decision{Gate: "small changes only", Verdict: stages.Pass}
			if n := len(plan.Changes); n > 10 {
				d.Verdict = stages.Fail
				d.Reasons = []stages.Reason{{Rule: "size", Message: fmt.Sprintf("%d objects change; split the release", n)}}
			}
			return d, nil
		})
	d, _ := small.Decide(context.Background(), stages.Plan{Changes: make([]stages.Change, 11)})
	fmt.Println(d.Verdict, d.Reasons[0].Message)
	// Output: fail 11 objects change; split the release
}
