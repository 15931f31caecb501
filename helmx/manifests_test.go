package helmx_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	plainDeployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {note: "{{ not a template }}"}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: registry.example.com/acme/web:latest}
      - {name: side, image: "registry.example.com/acme/side:1"}
`
	plainConfig = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web-config}\ndata: {colour: blue}\n"
)

func manifests(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o750))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	return dir
}

func manifestConfig(a *apiServer, paths ...string) helmx.Config {
	cfg := digestConfig(a)
	cfg.Chart, cfg.Image, cfg.Manifests = "", helmx.ImageValues{}, paths
	cfg.Apply.Mode = helmx.ClientSide // The fake API server knows no other.
	return cfg
}

func TestManifestsAreReleased(t *testing.T) {
	a := newAPIServer(t, "shop")
	deploy(t, open(t, manifestConfig(a, manifests(t, map[string]string{"a.yaml": plainDeployment, "more/a.yml": plainConfig, "notes.txt": "no"}))), "run-1", "a")
	assert.Equal(t, image("a").String(), runningImage(t, a), "the image is pinned")
	live := a.get(deploymentPath)
	assert.Equal(t, "registry.example.com/acme/side:1", dig(live, "spec", "template", "spec", "containers", 1, "image"))
	assert.Equal(t, "{{ not a template }}", dig(live, "metadata", "annotations", "note"))
	assert.NotNil(t, a.get("/api/v1/namespaces/shop/configmaps/web-config"))

	fewer := open(t, manifestConfig(a, filepath.Join(manifests(t, map[string]string{"a.yaml": plainDeployment}), "a.yaml")))
	plan, err := fewer.Plan(t.Context(), stages.PlanRequest{Image: image("b")})
	require.NoError(t, err)
	var actions []string
	for _, c := range plan.Changes {
		actions = append(actions, string(c.Action)+" "+c.Object.Name)
	}
	assert.Equal(t, []string{"update web", "delete web-config"}, actions)
	cp := checkpoint(t, fewer, "run-2")
	deploy(t, fewer, "run-2", "b")
	assert.Nil(t, a.get("/api/v1/namespaces/shop/configmaps/web-config"), "what the manifests no longer have is deleted")
	assert.Equal(t, stages.Restored, restore(t, fewer, "run-2", cp).Outcome)
	assert.Equal(t, image("a").String(), runningImage(t, a))
	assert.NotNil(t, a.get("/api/v1/namespaces/shop/configmaps/web-config"))
}

func TestEncryptedManifestsStayHidden(t *testing.T) {
	const canary = "correct-horse-battery"
	a := newAPIServer(t, "shop")
	dir := manifests(t, map[string]string{
		"a.yaml":      plainDeployment,
		"secret.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web-extra}\ndata: {password: ENC}\nsops: {mac: x}\n",
	})
	cfg := manifestConfig(a, dir)
	_, err := helmx.New(cfg)
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.ErrorContains(t, err, "encrypted with SOPS")

	cfg.Values.Decrypt = func(_ context.Context, _ string, data []byte) ([]byte, error) {
		plain, _, _ := strings.Cut(string(data), "sops:")
		return []byte(strings.Replace(plain, "ENC", canary, 1)), nil
	}
	d := open(t, cfg)
	plan, err := d.Plan(t.Context(), stages.PlanRequest{Image: image("a")})
	require.NoError(t, err)
	assert.NotContains(t, string(plan.Manifests), canary)
	for _, c := range plan.Changes {
		assert.NotContains(t, c.Diff, canary)
	}
	deploy(t, d, "run-1", "a")
	assert.Equal(t, canary, dig(a.get(extraPath), "data", "password"))
}

func TestManifestsAreRefused(t *testing.T) {
	a := newAPIServer(t, "shop")
	good := manifests(t, map[string]string{"a.yaml": plainDeployment})
	for name, c := range map[string]struct {
		change func(*helmx.Config)
		want   string
	}{
		"missing":      {func(c *helmx.Config) { c.Manifests = []string{"nowhere"} }, "do not exist"},
		"empty folder": {func(c *helmx.Config) { c.Manifests = []string{t.TempDir()} }, "has no manifests"},
		"broken": {func(c *helmx.Config) {
			c.Manifests = []string{manifests(t, map[string]string{"a.yaml": "a: [\nb: 1"})}
		}, "a.yaml"},
		"with a chart":     {func(c *helmx.Config) { c.Chart = "testdata/digest" }, "not both"},
		"with values":      {func(c *helmx.Config) { c.Values.Overrides = []helmx.Override{helmx.Set("a=b")} }, "take no values"},
		"with image paths": {func(c *helmx.Config) { c.Image.Reference = "image" }, "leave Image empty"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := manifestConfig(a, good)
			c.change(&cfg)
			_, err := helmx.New(cfg)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, c.want)
		})
	}
	other := open(t, manifestConfig(a, manifests(t, map[string]string{"a.yaml": plainConfig})))
	_, err := other.Deploy(t.Context(), request(t, "run-1", "a"))
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.Empty(t, a.paths("/configmaps/"), "manifests that don't run the image are refused")
}
