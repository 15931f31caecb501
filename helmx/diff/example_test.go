package diff_test

import (
	"fmt"
	"os"

	"github.com/fairlead-dev/fairlead/helmx/diff"
	"github.com/fairlead-dev/fairlead/stages"
)

func Example() {
	plan := stages.Plan{
		Release: "shop/web",
		Changes: []stages.Change{{
			Action: stages.Update,
			Object: stages.Object{APIVersion: "v1", Kind: "ConfigMap", Namespace: "shop", Name: "web"},
			Diff:   "@@ -2 +2 @@\n-  message: hello\n+  message: welcome\n",
		}},
	}
	if err := diff.Text(os.Stdout, plan, diff.TextOptions{}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// shop, web, ConfigMap (v1) has changed:
	// @@ -2 +2 @@
	// -  message: hello
	// +  message: welcome
	//
	// Plan of shop/web: 0 added, 1 changed, 0 removed
}
