package smoke_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/smoke"
	"github.com/fairlead-dev/fairlead/stages"
)

func Example() {
	verify := func(ctx context.Context, config *rest.Config, release stages.Release) error {
		test, err := smoke.NewHTTP(smoke.HTTPConfig{
			REST: config, Path: "/healthz/ready",
			Expect: smoke.Expect{
				Status: 200, MaxLatency: 500 * time.Millisecond,
				JSON:     []smoke.JSON{{Path: "{.checks[*].status}", Want: "ok"}},
				Attempts: 10, Successes: 9,
			},
		})
		if err != nil {
			return err
		}
		defer test.Close()
		_, err = test.Verify(ctx, release)
		if failure, ok := errors.AsType[*rollout.Failure](err); ok {
			fmt.Println(failure.Cause, failure.Decisive.Logs)
		}
		return err
	}
	err := verify(context.Background(), &rest.Config{Host: "https://kubernetes.example"}, stages.Release{})
	fmt.Println(errors.Is(err, stages.ErrInvalid))
	// Output: true
}

func ExampleNewPod() {
	curl, err := stages.ParseImage("docker.io/curlimages/curl@sha256:aa45e9d93122a3cfdf8d7de272e2798ea63733eeee6d06bd2ee4f2f8c4027d7c")
	if err != nil {
		fmt.Println(err)
		return
	}
	test, err := smoke.NewPod(smoke.PodConfig{
		REST: &rest.Config{Host: "https://kubernetes.example"}, Image: curl,
		URL:    "http://{{.Release}}.{{.Namespace}}.svc.cluster.local/healthz/ready",
		Expect: smoke.Expect{Contains: "ok"},
	})
	fmt.Println(test != nil, err)
	// Output: true <nil>
}

func ExampleNewJob() {
	test, err := smoke.NewJob(smoke.JobConfig{
		REST:    &rest.Config{Host: "https://kubernetes.example"},
		Command: []string{"shop", "selftest", "--revision={{.Revision}}"}, // of the released image
		Expect:  smoke.Expect{Matches: `(?m)^all \d+ checks passed$`},
	})
	fmt.Println(test != nil, err)
	// Output: true <nil>
}

func ExampleNewFunc() {
	test, err := smoke.NewFunc(smoke.FuncConfig{
		Name: "order a book",
		Run: func(_ context.Context, rel stages.Release) (string, error) {
			return "", fmt.Errorf("revision %d sells no books", rel.Revision)
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	img, err := stages.ParseImage("ghcr.io/acme/shop@sha256:aa45e9d93122a3cfdf8d7de272e2798ea63733eeee6d06bd2ee4f2f8c4027d7c")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = test.Verify(context.Background(), stages.Release{Image: img, Name: "shop", Namespace: "shop", Revision: 3})
	fmt.Println(err)
	// Output: release shop/shop: Smoke shop/shop: smoke test order a book: SmokeFailed: revision 3 sells no books
}
