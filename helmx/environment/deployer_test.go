package environment_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/repo"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/environment"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestOpenDeployer delivers a chart of a repository to an environment, whose gates
// hold for it.
func TestOpenDeployer(t *testing.T) {
	dir := t.TempDir()
	chart, err := loader.Load("../testdata/seed")
	require.NoError(t, err)
	_, err = chartutil.Save(chart, dir)
	require.NoError(t, err)
	index, err := repo.IndexDirectory(dir, "")
	require.NoError(t, err)
	require.NoError(t, index.WriteFile(filepath.Join(dir, "index.yaml"), 0o600))
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)

	e := production()
	e.Gates = []string{"scan"}
	cfg := helmx.Config{
		Chart: chart.Name(), ChartSource: helmx.ChartSource{Repository: server.URL, Version: chart.Metadata.Version, PlainHTTP: true},
		Release: "shop", Image: helmx.ImageValues{Repository: "image.repository", Tag: "image.tag"},
		Kubernetes: helmx.Kubernetes{REST: &rest.Config{Host: "https://127.0.0.1:1"}},
	}
	_, err = environment.NewDeployer(e, cfg)
	require.ErrorContains(t, err, "use Open")
	d, err := environment.OpenDeployer(t.Context(), e, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	assert.Equal(t, chart.Metadata.Version, d.Chart().Version)

	bypass, err := stages.BypassGates(image("a"), "a test")
	require.NoError(t, err)
	_, err = d.Deploy(t.Context(), stages.DeployRequest{Clearance: bypass, Run: "run-1"})
	require.ErrorIs(t, err, stages.ErrNotCleared)
}
