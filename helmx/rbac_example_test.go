package helmx_test

import (
	"context"
	"fmt"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// An administrator derives the rights of the account that is to deploy. With
// Config.Rules they cover the verifiers, smoke tests and routers as well.
func ExampleDeployer_RequiredRBAC() {
	admin, err := helmx.New(helmx.Config{
		Chart: "./chart", Release: "shop", Namespace: "prod",
		Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
		Kubernetes: helmx.Kubernetes{KubeconfigPath: "/etc/admin/kubeconfig"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer admin.Close()
	image, err := stages.ParseImage("registry.example/shop@sha256:4bf9a57ef1a03ab5f14b5d0e6e9b38c0b0f1d2b1a4a7d9ec5f5a6a0f3c8d7e21")
	if err != nil {
		fmt.Println(err)
		return
	}
	rules, err := admin.RequiredRBAC(context.Background(), stages.PlanRequest{Image: image}, helmx.RBACOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	manifests, err := rules.Manifests("ci/cd-bot")
	fmt.Println(string(manifests), err) // For kubectl apply.
}
