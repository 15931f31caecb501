package e2e_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// writeChart makes a chart of these templates.
func writeChart(t testing.TB, templates map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "parts")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "templates"), 0o750))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("Chart.yaml", "apiVersion: v2\nname: parts\nversion: 1.0.0\n")
	for name, text := range templates {
		write(filepath.Join("templates", name), text)
	}
	return dir
}

// parts returns a deployer for a chart that runs no image of ours.
func (w *world) parts(t testing.TB, namespace string, templates map[string]string, change ...func(*helmx.Config)) *helmx.Deployer {
	t.Helper()
	cfg := helmx.Config{
		Chart: writeChart(t, templates), Release: "parts", Namespace: namespace, Unscanned: "made by a test",
		Kubernetes: helmx.Kubernetes{REST: w.rest},
	}
	for _, f := range change {
		f(&cfg)
	}
	d, err := helmx.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	return d
}

func requireDeployed(t testing.TB, d *helmx.Deployer, run string) stages.Release {
	t.Helper()
	rel, err := d.DeployUnscanned(labtest.Context(t), helmx.UnscannedRequest{Run: run})
	require.NoError(t, err)
	return rel
}
