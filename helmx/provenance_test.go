package helmx_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// family writes a chart with a dependency that has values from, and for, its parent.
func family(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shop")
	write(t, dir, "Chart.yaml", `apiVersion: v2
name: shop
version: 1.0.0
dependencies:
- {name: redis, version: 1.x.x, repository: "", condition: redis.enabled, import-values: [{child: export, parent: imported}]}
- {name: redis, version: 1.x.x, repository: "", alias: off, condition: off.enabled}
`)
	write(t, dir, "values.yaml", `# the first line
replicas: 1
image: {repository: "", digest: ""}
list:
- a
- b
gone: default
nothing:
none: {}
redis:
  enabled: true
  port: 1
off: {enabled: false}
global:
  zone: chart
  "dotted.key": x
base: &base
  left: 1
  right: 2
derived:
  <<: *base
  right: 3
`)
	write(t, dir, "charts/redis/Chart.yaml", "apiVersion: v2\nname: redis\nversion: 1.0.0\n")
	write(t, dir, "charts/redis/values.yaml", `port: 0
host: localhost
global:
  zone: redis
  only: redis
export:
  colour: red
empty: []
`)
	return dir
}

func TestProvenance(t *testing.T) {
	chart, dir := family(t), t.TempDir()
	base := write(t, dir, "base.yaml", "replicas: 2\nlist: [x, y]\ngone: 1\n")
	prod := write(t, dir, "prod.yaml", "\nreplicas: 3\ngone: null\nredis: {port: 9}\nglobal:\n  zone: prod\n")
	cfg := digestConfig(newAPIServer(t), helmx.Set("list[1]=z,extra=1"), helmx.SetString("replicas=secret-canary"))
	cfg.Chart = chart
	cfg.Values.Files, cfg.Values.Map = []string{base, prod}, map[string]any{"fromMap": true, "replicas": 4}
	d := open(t, cfg)

	for path, want := range map[string]string{
		"replicas":            "override 2 (set-string), over Values.Map, over prod.yaml:2, over base.yaml:1, over shop/values.yaml:2",
		"image.repository":    "the image, over shop/values.yaml:3",
		"list[0]":             "base.yaml:2, over shop/values.yaml:5",
		"list[1]":             "override 1 (set), over base.yaml:2, over shop/values.yaml:6",
		"gone":                "removed by prod.yaml:3, over base.yaml:3, over shop/values.yaml:7",
		"nothing":             "shop/values.yaml:8",
		"none":                "shop/values.yaml:9",
		"redis.port":          "prod.yaml:4, over shop/values.yaml:12, over shop/charts/redis/values.yaml:1",
		"redis.host":          "shop/charts/redis/values.yaml:2",
		"redis.empty":         "shop/charts/redis/values.yaml:8",
		"redis.global.zone":   "prod.yaml:6, over shop/values.yaml:15, over shop/charts/redis/values.yaml:4",
		"redis.global.only":   "shop/charts/redis/values.yaml:5",
		"global.zone":         "prod.yaml:6, over shop/values.yaml:15",
		`global.dotted\.key`:  "shop/values.yaml:16",
		"imported.colour":     "shop/charts/redis/values.yaml:7",
		"redis.export.colour": "shop/charts/redis/values.yaml:7",
		"derived.left":        "shop/values.yaml:18",
		"derived.right":       "shop/values.yaml:22",
		"fromMap":             "Values.Map",
		"extra":               "override 1 (set)",
	} {
		got, err := d.Provenance(path)
		require.NoError(t, err, path)
		require.Len(t, got, 1, path)
		for i := range got {
			got[i] = shorten(got[i])
		}
		assert.Equal(t, path+": "+want, got[0].String())
	}
	all, err := d.Provenance("")
	require.NoError(t, err)
	assert.Greater(t, len(all), 20)
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v", all, all, all), "canary")
	for _, p := range all {
		if p.Path == "replicas" {
			assert.Equal(t, "secret-canary", p.Value())
		}
		single, err := d.Provenance(p.Path)
		require.NoError(t, err, p.Path)
		require.Len(t, single, 1, p.Path)
		assert.Equal(t, p.String(), single[0].String())
	}
	below, err := d.Provenance("list")
	require.NoError(t, err)
	assert.Len(t, below, 2)

	for _, bad := range []string{"nowhere", "replicas.x", "list[7]", "a..b", "a[", "a[-1]", ".", `a\`, "a.", "[0]x"} {
		_, err := d.Provenance(bad)
		assert.ErrorIs(t, err, stages.ErrInvalid, bad)
	}
}

func shorten(p helmx.Provenance) helmx.Provenance {
	if p.Origin.Kind == helmx.FromFile {
		p.Origin.Name = filepath.Base(p.Origin.Name)
	}
	for i := range p.Overrode {
		if p.Overrode[i].Kind == helmx.FromFile {
			p.Overrode[i].Name = filepath.Base(p.Overrode[i].Name)
		}
	}
	return p
}
