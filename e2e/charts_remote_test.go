package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/helmfile"
	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
)

// packaged makes an archive of a chart of these templates, with the helm command.
func (h helmCommand) packaged(t *testing.T, templates map[string]string) (archive string) {
	t.Helper()
	dir := t.TempDir()
	h.run(t, "package", writeChart(t, templates), "--destination", dir)
	return filepath.Join(dir, "parts-1.0.0.tgz")
}

// TestChartFromARegistry deploys a chart that the helm command pushed, by digest and
// only if it is signed.
func TestChartFromARegistry(t *testing.T) {
	w := newWorld(t)
	ctx := labtest.Context(t)
	ns := w.namespace(t)
	helm := w.helm(t, ns)
	helm.run(t, "push", helm.packaged(t, map[string]string{"a.yaml": colours}), "oci://"+w.box.Registry+"/charts", "--plain-http")
	signer := w.signer(t, w.key)
	cfg := helmx.Config{
		Chart: "oci://" + w.box.Registry + "/charts/parts", Release: "parts", Namespace: ns, Unscanned: "made by a test",
		Kubernetes: helmx.Kubernetes{REST: w.rest},
		ChartSource: helmx.ChartSource{Version: "~1.0", PlainHTTP: true, Verify: func(ctx context.Context, reference string) error {
			chart, err := stages.ParseImage(reference)
			if err == nil {
				_, err = signer.VerifySignature(ctx, chart)
			}
			return err
		}},
	}
	_, err := helmx.Open(ctx, cfg)
	require.ErrorIs(t, err, stages.ErrSignature, "nobody has signed it yet")

	unverified := cfg
	unverified.ChartSource.Verify = nil
	d, err := helmx.Open(ctx, unverified)
	require.NoError(t, err)
	chart, err := stages.ParseImage(d.Chart().Reference)
	require.NoError(t, err)
	require.NoError(t, d.Close())
	_, err = signer.Sign(ctx, chart)
	require.NoError(t, err)

	d, err = helmx.Open(ctx, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	requireDeployed(t, d, "run-1")
	assert.Equal(t, "blue", w.configMap(t, ns, "colours").Data["sky"])

	// The tag is moved to another chart, which is not the one that was pinned.
	cfg.ChartSource.Digest = d.Chart().Digest
	helm.run(t, "push", helm.packaged(t, map[string]string{"a.yaml": coloursAtNight}), "oci://"+w.box.Registry+"/charts", "--plain-http")
	moved, err := helmx.Open(ctx, cfg)
	if err == nil { // By version and digest the one that was pinned is still there.
		assert.Equal(t, d.Chart().Digest, moved.Chart().Digest)
		require.NoError(t, moved.Close())
	}
	cfg.ChartSource.Digest = ""
	_, err = helmx.Open(ctx, cfg)
	require.ErrorIs(t, err, stages.ErrSignature, "the other one is not signed")
}

// TestHelmfileOfRepositories deploys charts of an HTTP repository and of a registry,
// as a helmfile names them, and removes one of them.
func TestHelmfileOfRepositories(t *testing.T) {
	w := newWorld(t)
	ctx := labtest.Context(t)
	ns := w.namespace(t)
	helm := w.helm(t, ns)
	archive := helm.packaged(t, map[string]string{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\ndata: {from: {{ .Values.from }}}\n"})
	helm.run(t, "push", archive, "oci://"+w.box.Registry+"/helmfile", "--plain-http")
	helm.run(t, "repo", "index", filepath.Dir(archive))
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(archive))))
	t.Cleanup(server.Close)

	load := func(installed bool) *releaseset.Set {
		path := filepath.Join(t.TempDir(), "helmfile.yaml")
		require.NoError(t, os.WriteFile(path, []byte(fmt.Sprintf(`
repositories:
- {name: web, url: %s, plainHttp: true}
- {name: oci, url: %s/helmfile, oci: true, plainHttp: true}
releases:
- {name: near, namespace: %[3]s, chart: web/parts, version: ~1.0, set: [{name: from, value: repository}], needs: [far]}
- {name: far, namespace: %[3]s, chart: oci/parts, version: 1.0.0, set: [{name: from, value: registry}]}
`, server.URL, w.box.Registry, ns)), 0o600))
		if !installed {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(text), "needs: [far]", "needs: [far], installed: false", 1)), 0o600))
		}
		set, err := helmfile.Load(ctx, helmfile.Config{Path: path, Cluster: w.connect(t), AllowUnscanned: "made by a test"})
		require.NoError(t, err)
		return set
	}
	requireDeployedIn(t, load(true), "helmfile-1")
	assert.Equal(t, "repository", w.configMap(t, ns, "near").Data["from"])
	assert.Equal(t, "registry", w.configMap(t, ns, "far").Data["from"])
	requireDeployedIn(t, load(false), "helmfile-2")
	assert.Nil(t, w.configMap(t, ns, "near"))
	assert.NotNil(t, w.configMap(t, ns, "far"))
}
