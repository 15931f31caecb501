package rollout_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

func Example() {
	verify := func(ctx context.Context, config *rest.Config, release stages.Release) error {
		verifier, err := rollout.New(rollout.Config{
			REST:    config,
			Timeout: 4 * time.Minute,
			Rules:   map[rollout.Cause]rollout.Rule{rollout.Unschedulable: {Class: rollout.TerminalAfter, After: 2 * time.Minute}},
		})
		if err != nil {
			return err
		}
		defer verifier.Close()
		_, err = verifier.Verify(ctx, release)
		if failure, ok := errors.AsType[*rollout.Failure](err); ok {
			fmt.Println(failure.Cause, failure.Decisive.Logs)
		}
		return err
	}
	err := verify(context.Background(), &rest.Config{Host: "https://kubernetes.example"}, stages.Release{})
	fmt.Println(errors.Is(err, stages.ErrInvalid))
	// Output: true
}

func ExampleDefaultRule() {
	rule := rollout.DefaultRule(rollout.Crash)
	fmt.Println(rule.Class == rollout.TerminalAfter, rule.Count)
	// Output: true 2
}

func ExampleRedact() {
	fmt.Println(rollout.Redact("connecting to postgres://shop:hunter2@db/shop with token=abc"))
	// Output: connecting to postgres://***@db/shop with token=***
}
