package helmfile

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/strvals"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
)

// connect makes a cluster that nothing is sent to.
func connect(t testing.TB) *helmx.Cluster {
	t.Helper()
	c, err := helmx.Connect(helmx.Kubernetes{REST: &rest.Config{Host: "https://cluster.example.com"}})
	require.NoError(t, err)
	return c
}

func variables(pairs map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := pairs[name]; return v, ok }
}

// layered lays the layers over each other as helmx does.
func layered(v helmx.Values) map[string]any {
	out := map[string]any{}
	for _, l := range v.Layers {
		out = tree.Overlay(out, tree.Clone(l.Values))
	}
	return out
}

// effective applies the overrides as helmx does.
func effective(t *testing.T, v helmx.Values) map[string]any {
	t.Helper()
	out := layered(v)
	for _, o := range v.Overrides {
		var err error
		switch o.Mode {
		case helmx.ModeSet:
			err = strvals.ParseInto(o.Expression, out)
		case helmx.ModeSetString:
			err = strvals.ParseIntoString(o.Expression, out)
		case helmx.ModeSetFile:
			err = strvals.ParseIntoFile(o.Expression, out, func(name []rune) (any, error) {
				data, err := os.ReadFile(string(name))
				return string(data), err
			})
		case helmx.ModeSetJSON, helmx.ModeSetLiteral:
			t.Fatalf("unexpected mode %s", o.Mode)
		}
		require.NoError(t, err)
	}
	return out
}

// TestParity compares with what the helmfile command makes of the same file; see
// testdata/parity/README.md.
func TestParity(t *testing.T) {
	data, err := os.ReadFile("testdata/parity/expected.json")
	require.NoError(t, err)
	var expected map[string]map[string]any
	require.NoError(t, json.Unmarshal(data, &expected))
	require.NotEmpty(t, expected)
	for environment, releases := range expected {
		t.Run(environment, func(t *testing.T) {
			_, configs, err := load(t.Context(), Config{
				Path: "testdata/parity/helmfile.yaml.gotmpl", Environment: environment, AllowUnscanned: "test",
				Env: variables(map[string]string{"IMAGE_TAG": "1.2.3"}), Cluster: connect(t),
			})
			require.NoError(t, err)
			require.Len(t, configs, len(releases))
			for id, want := range releases {
				require.Contains(t, configs, id)
				got, err := json.Marshal(effective(t, configs[id].Values))
				require.NoError(t, err)
				wanted, err := json.Marshal(want)
				require.NoError(t, err)
				assert.JSONEq(t, string(wanted), string(got), id)
				assert.False(t, configs[id].CreateNamespace)
			}
		})
	}
}
