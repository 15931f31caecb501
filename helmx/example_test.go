package helmx_test

import (
	"context"
	"fmt"

	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

func Example() {
	d, err := helmx.New(helmx.Config{
		Chart:     "testdata/seed",
		Release:   "shop",
		Namespace: "prod",
		Values: helmx.Values{
			Files:     []string{"testdata/seed/values-prod.yaml"},
			Overrides: []helmx.Override{helmx.Set("replicaCount=4")},
		},
		Image: helmx.ImageValues{Repository: "image.repository", Tag: "image.tag"},
		// Usually KubeconfigPath.
		Kubernetes: helmx.Kubernetes{REST: &rest.Config{Host: "https://cluster.example.com"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer d.Close()

	// A pipeline calls these in order, and hands over a clearance of its own.
	var deployer interface {
		stages.Planner
		stages.Compensator
		stages.Deployer
	} = d
	_ = deployer
	_, err = d.Deploy(context.Background(), stages.DeployRequest{Run: "run-1"})
	fmt.Println(err)
	// Output: deploy release prod/shop: image is not cleared for deployment: run it through a pipeline, or see stages.BypassGates
}

// Which file set a value, and what it overrode there.
func ExampleDeployer_Provenance() {
	d, err := helmx.New(helmx.Config{
		Chart:     "testdata/seed",
		Release:   "shop",
		Namespace: "prod",
		Values: helmx.Values{
			Files:     []string{"testdata/seed/values-prod.yaml"},
			Overrides: []helmx.Override{helmx.Set("replicaCount=4")},
		},
		Image:      helmx.ImageValues{Repository: "image.repository", Tag: "image.tag"},
		Kubernetes: helmx.Kubernetes{REST: &rest.Config{Host: "https://cluster.example.com"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer d.Close()
	found, err := d.Provenance("replicaCount")
	fmt.Println(found, err)
	// Output: [replicaCount: override 1 (set), over testdata/seed/values-prod.yaml:1, over helm-chart/values.yaml:6] <nil>
}
