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

func ExampleNewSmoke() {
	curl, err := stages.ParseImage("docker.io/curlimages/curl@sha256:aa45e9d93122a3cfdf8d7de272e2798ea63733eeee6d06bd2ee4f2f8c4027d7c")
	if err != nil {
		fmt.Println(err)
		return
	}
	smoke, err := rollout.NewSmoke(rollout.SmokeConfig{
		REST: &rest.Config{Host: "https://kubernetes.example"}, Image: curl,
		URL: "http://{{.Release}}.{{.Namespace}}.svc.cluster.local/healthz/ready", Body: "ok",
	})
	fmt.Println(smoke != nil, err)
	// Output: true <nil>
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
