package helmx_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// umbrella writes a chart that requires deps, each "name version repository", and
// a Chart.lock for it as helm dependency update writes it. It returns its folder.
func umbrella(t *testing.T, deps []*chart.Dependency, locked ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shop")
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/digest")))
	metadata, err := yaml.Marshal(chart.Metadata{APIVersion: "v2", Name: "shop", Version: "1.2.3", Dependencies: deps})
	require.NoError(t, err)
	write(t, dir, "Chart.yaml", string(metadata))
	if locked == nil {
		return dir
	}
	lock := chart.Lock{}
	for i, version := range locked {
		lock.Dependencies = append(lock.Dependencies, &chart.Dependency{Name: deps[i].Name, Repository: deps[i].Repository, Version: version})
	}
	data, err := json.Marshal([2][]*chart.Dependency{deps, lock.Dependencies})
	require.NoError(t, err)
	lock.Digest = digest.FromBytes(data).String()
	text, err := yaml.Marshal(lock)
	require.NoError(t, err)
	write(t, dir, "Chart.lock", string(text))
	return dir
}

func dependencyChart(t *testing.T, name, version string) []byte {
	t.Helper()
	return tgz(t,
		entry{name: name + "/Chart.yaml", text: "apiVersion: v2\nname: " + name + "\nversion: " + version + "\n"},
		entry{name: name + "/values.yaml", text: "color: red\n"},
		entry{name: name + "/templates/c.yaml", text: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "-{{ .Chart.Name }}}\ndata: {v: {{ .Chart.Version }}, color: {{ .Values.color }}}\n"})
}

func TestDependenciesAreFetchedAsLocked(t *testing.T) {
	oci, web := newOCIServer(t), newChartServer(t)
	cacheDigest := oci.push(t, "deps/cache", dependencyChart(t, "cache", "1.0.0"), nil)
	oci.push(t, "deps/cache", dependencyChart(t, "cache", "1.1.0"), nil)
	queueDigest := web.add(t, dependencyChart(t, "queue", "2.0.0"), "queue-2.0.0.tgz")
	web.add(t, dependencyChart(t, "queue", "2.5.0"), "queue-2.5.0.tgz")
	deps := []*chart.Dependency{
		{Name: "cache", Version: "^1", Repository: "oci://" + oci.host + "/deps"},
		{Name: "cache", Version: "^1", Repository: "oci://" + oci.host + "/deps", Alias: "second"},
		{Name: "queue", Version: "2.x", Repository: web.url},
		{Name: "common", Version: "0.x", Repository: "file://../common"},
	}
	dir := umbrella(t, deps, "1.0.0", "1.0.0", "2.0.0", "0.1.0")
	write(t, filepath.Dir(dir), "common/Chart.yaml", "apiVersion: v2\nname: common\nversion: 0.1.0\n")
	cfg := ociConfig(t, dir)
	d, err := openRemote(t, cfg)
	require.NoError(t, err)
	got := d.Chart().Dependencies
	require.Len(t, got, 3)
	assert.Equal(t, helmx.ChartDependency{Name: "cache", Version: "1.0.0", Repository: deps[0].Repository, Digest: cacheDigest}, got[0])
	assert.Equal(t, helmx.ChartDependency{Name: "queue", Version: "2.0.0", Repository: web.url, Digest: queueDigest}, got[1])
	assert.Equal(t, "common", got[2].Name)

	manifests := string(plan(t, d, "a").Manifests)
	assert.Contains(t, manifests, "name: cache-cache")
	assert.Contains(t, manifests, "name: cache-second")
	assert.Contains(t, manifests, "name: queue-queue")
	assert.NotContains(t, manifests, "1.1.0")
	assert.NotContains(t, manifests, "2.5.0")
	deploy(t, d, "run-1", "a")
}

func TestDependencyFromRepositoryThatRefersToOCI(t *testing.T) {
	oci, web := newOCIServer(t), newChartServer(t)
	queue := dependencyChart(t, "queue", "2.0.0")
	pinned := oci.push(t, "vendor/queue", queue, nil)
	web.add(t, queue, "queue-2.0.0.tgz")
	web.editIndex(t, "    - queue-2.0.0.tgz", "    - oci://"+oci.host+"/vendor/queue:2.0.0")
	deps := []*chart.Dependency{{Name: "queue", Version: "2.x", Repository: web.url}}
	d, err := openRemote(t, ociConfig(t, umbrella(t, deps, "2.0.0")))
	require.NoError(t, err)
	assert.Equal(t, []helmx.ChartDependency{{Name: "queue", Version: "2.0.0", Repository: web.url, Digest: pinned}}, d.Chart().Dependencies)
	assert.Contains(t, string(plan(t, d, "a").Manifests), "name: queue-queue")
}

func TestDependenciesAreRefused(t *testing.T) {
	oci, web := newOCIServer(t), newChartServer(t)
	oci.pushAs(t, "deps/queue:2.0.0", dependencyChart(t, "cache", "2.0.0"), nil)
	web.add(t, dependencyChart(t, "queue", "2.0.0"), "queue-2.0.0.tgz")
	deps := []*chart.Dependency{{Name: "queue", Version: "2.x", Repository: web.url}}
	at := func(repository string) []*chart.Dependency {
		return []*chart.Dependency{{Name: "queue", Version: "2.x", Repository: repository}}
	}
	stale := umbrella(t, deps, "2.0.0")
	metadata, err := os.ReadFile(filepath.Join(stale, "Chart.yaml"))
	require.NoError(t, err)
	write(t, stale, "Chart.yaml", strings.Replace(string(metadata), "2.x", "2.1.x", 1))
	local := umbrella(t, at("file://../queue"), "2.0.0")
	write(t, filepath.Dir(local), "queue/Chart.yaml", "apiVersion: v2\nname: queue\nversion: 3.0.0\n")
	for name, c := range map[string]struct {
		dir    string
		reason helmx.ChartReason
		want   string
	}{
		"no lock":       {umbrella(t, deps), helmx.ChartUnlocked, "dependency queue is not in the charts folder, and there is no Chart.lock; run helm dependency update"},
		"stale lock":    {stale, helmx.ChartUnlocked, "not of this Chart.yaml"},
		"gone":          {umbrella(t, deps, "2.0.1"), helmx.ChartNotFound, "chart queue, dependency of shop: repository"},
		"alias":         {umbrella(t, at("@bitnami"), "2.0.0"), helmx.ChartNotFound, "alias in somebody's"},
		"no repository": {umbrella(t, at(""), "2.0.0"), helmx.ChartNotFound, "has to be in the charts folder"},
		"no folder":     {umbrella(t, at("file://../nowhere"), "2.0.0"), helmx.ChartNotFound, "is not a folder"},
		"other folder":  {local, helmx.ChartMoved, "holds queue 3.0.0, wanted is 2.0.0"},
		"other chart":   {umbrella(t, at("oci://"+oci.host+"/deps"), "2.0.0"), helmx.ChartMoved, "holds chart cache 2.0.0"},
		"bad OCI":       {umbrella(t, at("oci://"), "2.0.0"), helmx.ChartNotFound, "write oci://"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openRemote(t, ociConfig(t, c.dir))
			require.ErrorIs(t, err, stages.ErrInvalid)
			failure, ok := errors.AsType[*helmx.ChartError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, c.reason, failure.Reason)
			assert.ErrorContains(t, err, c.want)
		})
	}
	t.Run("New", func(t *testing.T) {
		_, err := helmx.New(ociConfig(t, umbrella(t, deps, "2.0.0")))
		failure, ok := errors.AsType[*helmx.ChartError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, helmx.ChartOffline, failure.Reason)
	})
	t.Run("unlocked", func(t *testing.T) {
		cfg := ociConfig(t, umbrella(t, deps))
		cfg.ChartSource.Unlocked = true
		d, err := openRemote(t, cfg)
		require.NoError(t, err)
		assert.Equal(t, "2.0.0", d.Chart().Dependencies[0].Version)
	})
}
