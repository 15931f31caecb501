package helmx_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func TestConformance(t *testing.T) {
	stagestest.TestDeployer(t, func(t *testing.T) stagestest.DeployerHarness {
		a := newAPIServer(t, "shop")
		return stagestest.DeployerHarness{
			Deployer: open(t, digestConfig(a)),
			First:    image("a"), Second: image("b"),
			State: func(context.Context) (string, error) {
				specs := map[string]any{}
				for _, path := range a.paths("/namespaces/shop/") {
					if obj := a.get(path); obj["type"] != "helm.sh/release.v1" {
						specs[path] = []any{obj["spec"], obj["data"]}
					}
				}
				if len(specs) == 0 {
					return "", nil
				}
				data, err := json.Marshal(specs)
				return string(data), err
			},
		}
	})
}
