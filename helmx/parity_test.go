package helmx_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart/loader"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// plainHelm is what the helm command works with.
func plainHelm(t *testing.T, a *apiServer) *action.Configuration {
	t.Helper()
	flags := genericclioptions.NewConfigFlags(false)
	namespace := "shop"
	flags.APIServer, flags.Namespace = &a.server.URL, &namespace
	flags.WithWrapConfigFn(func(c *rest.Config) *rest.Config {
		c.ContentType, c.AcceptContentTypes = "application/json", "application/json"
		return c
	})
	cfg := &action.Configuration{}
	require.NoError(t, cfg.Init(flags, namespace, "secret", func(string, ...any) {}))
	return cfg
}

func helmUpgrade(t *testing.T, a *apiServer) {
	t.Helper()
	up := action.NewUpgrade(plainHelm(t, a))
	up.Namespace, up.DisableOpenAPIValidation = "shop", true
	c, err := loader.Load("testdata/digest")
	require.NoError(t, err)
	rel, err := up.Run("web", c, content{"image": content{"repository": "elsewhere.example.com/x", "digest": "sha256:0"}})
	require.NoError(t, err)
	require.Equal(t, "deployed", rel.Info.Status.String())
}

// The helm command copies labels from revision to revision, and with them the
// name of the run.
func TestRestoreIsNotFooledByCopiedLabels(t *testing.T) {
	for name, meddle := range map[string]func(*testing.T, *apiServer){
		"upgrade": helmUpgrade,
		"rollback": func(t *testing.T, a *apiServer) {
			back := action.NewRollback(plainHelm(t, a))
			back.Version = 2
			require.NoError(t, back.Run("web"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			d := open(t, digestConfig(a))
			deploy(t, d, "run-1", "a")
			cp := checkpoint(t, d, "run-2")
			deploy(t, d, "run-2", "b")
			meddle(t, a)
			labels := recordLabels(a, "3")
			require.Equal(t, "run-2", labels[helmx.LabelRun], "Helm no longer copies labels")
			r := restore(t, d, "run-2", cp)
			assert.Equal(t, stages.Impossible, r.Outcome)
			assert.Contains(t, r.Message, "somebody else")
		})
	}
}

func TestPlainHelmGoesOnAfterRestore(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	cp := checkpoint(t, d, "run-2")
	deploy(t, d, "run-2", "b")
	restore(t, d, "run-2", cp)
	status, err := action.NewStatus(plainHelm(t, a)).Run("web")
	require.NoError(t, err)
	assert.Equal(t, "deployed", status.Info.Status.String())
	assert.Equal(t, 3, status.Version)
	helmUpgrade(t, a)
	assert.Equal(t, "elsewhere.example.com/x@sha256:0", runningImage(t, a))
	assert.Equal(t, 4, deploy(t, d, "run-3", "c").Previous)
}

// What is rendered for a plan is what Helm itself renders.
func TestPlanRendersAsHelmDoes(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a, helmx.Set("message=parity")))
	deploy(t, d, "run-1", "a")
	get := action.NewGet(plainHelm(t, a))
	rel, err := get.Run("web")
	require.NoError(t, err)
	plan, err := d.Plan(t.Context(), stages.PlanRequest{Image: image("a")})
	require.NoError(t, err)
	assert.Empty(t, plan.Changes)
	assert.Contains(t, rel.Manifest, "value: \"parity\"")
}
