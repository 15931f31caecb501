package helmx_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), got, "see go test ./helmx -update")
}

func plan(t *testing.T, d *helmx.Deployer, digit string) stages.Plan {
	t.Helper()
	p, err := d.Plan(t.Context(), stages.PlanRequest{Image: image(digit), Run: "plan"})
	require.NoError(t, err)
	return p
}

func printChanges(p stages.Plan) string {
	var out strings.Builder
	for _, c := range p.Changes {
		fmt.Fprintf(&out, "%s %s\n%s", c.Action, c.Object, c.Diff)
	}
	return out.String()
}

func TestPlanSeedChart(t *testing.T) {
	for env, file := range map[string]string{"stg": "values-stg.yaml", "prod": "values-prod.yaml"} {
		cfg := digestConfig(newAPIServer(t))
		cfg.Chart = "testdata/seed"
		cfg.Image = helmx.ImageValues{Repository: "image.repository", Tag: "image.tag"}
		cfg.Values = helmx.Values{Files: []string{"testdata/seed/" + file}}
		p := plan(t, open(t, cfg), "a")
		golden(t, "seed-"+env+".yaml", string(p.Manifests))
		assert.Equal(t, "shop/web", p.Release)
		assert.Len(t, p.Changes, 2)
	}
}

func TestPlanFirstInstall(t *testing.T) {
	a := newAPIServer(t) // The namespace doesn't exist.
	p := plan(t, open(t, digestConfig(a, helmx.Set("hook=migrate,password=hunter2-canary"))), "a")
	golden(t, "install.yaml", string(p.Manifests))
	golden(t, "install.diff", printChanges(p))
	assert.NotContains(t, string(p.Manifests)+printChanges(p), "hunter2-canary")
	assert.NotContains(t, string(p.Manifests)+printChanges(p), "aHVudGVyMi1jYW5hcnk", "base64 of the secret")
	assert.Empty(t, a.requests(mutating))
}

func TestPlanUpgrade(t *testing.T) {
	a := newAPIServer(t, "shop")
	deploy(t, open(t, digestConfig(a, helmx.Set("extra=true,keep=true,password=hunter2-canary"))), "run-1", "a")
	before := a.requests(mutating)
	p := plan(t, open(t, digestConfig(a, helmx.Set("password=hunter3-canary,message=new"))), "b")
	golden(t, "upgrade.diff", printChanges(p))
	assert.NotContains(t, printChanges(p), "canary")
	assert.Contains(t, printChanges(p), "**REDACTED** (before)")
	assert.Contains(t, printChanges(p), "delete ConfigMap shop/web-extra")
	assert.NotContains(t, printChanges(p), "web-keep", "an object with policy keep is not deleted")
	assert.Equal(t, before, a.requests(mutating))
}
