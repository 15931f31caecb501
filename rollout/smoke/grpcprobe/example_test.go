package grpcprobe_test

import (
	"fmt"

	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout/smoke"
	"github.com/fairlead-dev/fairlead/rollout/smoke/grpcprobe"
)

func ExampleNew() {
	test, err := grpcprobe.New(grpcprobe.Config{
		REST:    &rest.Config{Host: "https://kubernetes.example"},
		Target:  smoke.Target{Name: "service/{{.Release}}", Port: "grpc"},
		Service: "shop.v1.Orders",
		Expect:  smoke.Expect{Attempts: 5, Successes: 5},
	})
	fmt.Println(test != nil, err)
	// Output: true <nil>
}
