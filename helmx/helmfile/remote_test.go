package helmfile

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/provenance"
	"helm.sh/helm/v3/pkg/repo"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// repository serves a chart in versions to those who say who they are. It returns
// its URL and the digests of the archives.
func repository(t *testing.T, name string, versions ...string) (url string, digests map[string]string) {
	t.Helper()
	dir := t.TempDir()
	index, digests := repo.NewIndexFile(), map[string]string{}
	for _, version := range versions {
		c := &chart.Chart{Metadata: &chart.Metadata{APIVersion: "v2", Name: name, Version: version}}
		file, err := chartutil.Save(c, dir)
		require.NoError(t, err)
		sum, err := provenance.DigestFile(file)
		require.NoError(t, err)
		digests[version] = "sha256:" + sum
		require.NoError(t, index.MustAdd(c.Metadata, filepath.Base(file), "", sum))
	}
	require.NoError(t, index.WriteFile(filepath.Join(dir, "index.yaml"), 0o600))
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "reader" || password != "letmein" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, digests
}

func TestChartsOfRepositoriesArePinned(t *testing.T) {
	url, digests := repository(t, "redis", "1.2.0", "1.2.7", "1.3.0")
	const text = `
repositories:
- {name: ours, url: %s, username: reader, password: letmein, plainHttp: true}
releases:
- {name: a, namespace: ns, chart: ours/redis, version: %s}
`
	cfg := write(t, fmt.Sprintf(text, url, "~1.2.0"), nil)
	set, configs, err := load(t.Context(), cfg)
	require.NoError(t, err)
	assert.Equal(t, "1.2.7", configs["ns/a"].ChartSource.Version, "the newest that the constraint allows")
	assert.Equal(t, digests["1.2.7"], configs["ns/a"].ChartSource.Digest)
	assert.Equal(t, []string{"ns/a"}, set.Members())

	cfg = write(t, fmt.Sprintf(text, url, "1.3.0"), nil)
	cfg.Charts = func(c Chart) helmx.ChartSource {
		assert.Equal(t, "redis", c.Reference)
		return helmx.ChartSource{Digest: digests["1.2.0"]}
	}
	_, err = Load(t.Context(), cfg)
	require.ErrorIs(t, err, stages.ErrInvalid, "another digest than was asked for")
	assert.NotContains(t, err.Error(), "letmein")

	cfg = write(t, fmt.Sprintf(text, url, `""`), nil)
	_, err = Load(t.Context(), cfg)
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.ErrorContains(t, err, "helmfile.yaml:5: releases[0].version: is missing")
}

func TestReleasesThatAreNotInstalledAreRemoved(t *testing.T) {
	cfg := write(t, `
helmDefaults: {deleteWait: true, deleteTimeout: 9, cascade: background}
releases:
- {name: web, namespace: ns, chart: ./web}
- {name: old, namespace: ns, chart: ./gone, installed: false, needs: [older]}
- {name: older, namespace: ns, chart: far/gone, installed: false}
`, nil)
	require.NoError(t, os.Mkdir(filepath.Join(filepath.Dir(cfg.Path), "web"), 0o750))
	set, configs, err := load(t.Context(), cfg)
	require.NoError(t, err)
	assert.Equal(t, []string{"ns/web", "ns/old", "ns/older"}, set.Members(), "removed last, and in reverse")
	assert.True(t, configs["ns/old"].RemoveOnly)
	assert.True(t, configs["ns/old"].KeepHistory)
	assert.Equal(t, "9s", configs["ns/old"].Timeout.String())

	cfg.Images = map[string]Image{"old": {}}
	_, err = Load(t.Context(), cfg)
	require.ErrorContains(t, err, "helmfile.yaml:5: releases[1].installed: is false, but an image is bound to ns/old")

	cfg = write(t, `
releases:
- {name: web, namespace: ns, chart: ./web, needs: [old]}
- {name: old, namespace: ns, chart: ./old, installed: false}
`, nil)
	_, err = Load(t.Context(), cfg)
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.ErrorContains(t, err, "member ns/web needs ns/old, which is to be removed")
}
