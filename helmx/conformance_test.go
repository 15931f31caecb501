package helmx_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/storage/driver"

	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func TestConformance(t *testing.T) {
	harness := func(t *testing.T) stagestest.FailureRecorderHarness {
		a := newAPIServer(t, "shop")
		return stagestest.FailureRecorderHarness{
			DeployerHarness: stagestest.DeployerHarness{
				Deployer: open(t, digestConfig(a)),
				First:    image("a"), Second: image("b"),
				State: func(context.Context) (string, error) { return stateOf(a) },
			},
			Recorded: func(context.Context) (string, error) { return descriptions(t, a) },
		}
	}
	deployer := func(t *testing.T) stagestest.DeployerHarness { return harness(t).DeployerHarness }
	t.Run("Deployer", func(t *testing.T) { stagestest.TestDeployer(t, deployer) })
	t.Run("Uninstaller", func(t *testing.T) { stagestest.TestUninstaller(t, deployer) })
	t.Run("FailureRecorder", func(t *testing.T) { stagestest.TestFailureRecorder(t, harness) })
}

// stateOf is what is deployed, but for the records.
func stateOf(a *apiServer) (string, error) {
	specs := map[string]any{}
	for _, path := range a.paths("/namespaces/shop/") {
		if obj := a.get(path); obj["type"] != "helm.sh/release.v1" && !strings.Contains(path, "/leases/") {
			specs[path] = []any{obj["spec"], obj["data"]}
		}
	}
	if len(specs) == 0 {
		return "", nil
	}
	data, err := json.Marshal(specs)
	return string(data), err
}

// descriptions are what helm history says, a line for each revision.
func descriptions(t *testing.T, a *apiServer) (string, error) {
	t.Helper()
	found, err := recordStore(t, a).History("web")
	if err != nil && !errors.Is(err, driver.ErrReleaseNotFound) {
		return "", err
	}
	var lines []string
	for _, rel := range found {
		lines = append(lines, rel.Info.Status.String()+" "+rel.Info.Description)
	}
	return strings.Join(lines, "\n"), nil
}
