package policy_test

import (
	"context"
	"fmt"
	"io/fs"
	"testing/fstest"

	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/policy"
)

func Example() {
	rules := fstest.MapFS{"service.rego": {Data: []byte(`package main

deny_node_port contains msg if {
	input.kind == "Service"
	input.spec.type == "NodePort"
	msg := "node ports are not for applications: use an ingress"
}
`)}}
	gate, err := policy.New(policy.Config{Modules: []fs.FS{policy.Baseline(), rules}})
	if err != nil {
		fmt.Println(err)
		return
	}
	image, err := stages.ParseImage("registry.example/shop@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")
	if err != nil {
		fmt.Println(err)
		return
	}
	decision, err := gate.Decide(context.Background(), stages.Plan{
		Image:   image,
		Release: "prod/shop",
		Manifests: []byte(`
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: prod}
spec: {type: NodePort}
`),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(decision.Verdict)
	for _, reason := range decision.Reasons {
		fmt.Printf("%s: %s: %s\n", reason.Subject, reason.Rule, reason.Message)
	}
	// Output:
	// fail
	// Service prod/shop: main.deny_node_port: node ports are not for applications: use an ingress
}
