package helmfile_test

import (
	"context"
	"fmt"

	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/helmfile"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func Example() {
	// Usually with KubeconfigPath.
	cluster, err := helmx.Connect(helmx.Kubernetes{REST: &rest.Config{Host: "https://cluster.example.com"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cluster.Close()
	// Usually from a pipeline, after its gates have passed.
	clearance, err := stages.BypassGates(stagestest.Image("v2"), "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	set, err := helmfile.Load(context.Background(), helmfile.Config{
		Path:    "testdata/seed/helmfile.yaml",
		Env:     func(name string) (string, bool) { return "42", name == "IMAGE_TAG" },
		Cluster: cluster,
		Images: map[string]helmfile.Image{
			"myapp": {Clearance: clearance, Values: helmx.ImageValues{Repository: "image.repository", Tag: "image.tag"}},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(set.Members())
	// Then set.Plan and set.Apply.
	// Output: [prod/myapp]
}
