package e2e_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/sign"
)

// build makes a program of the examples.
func build(ctx context.Context, t *testing.T, example string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), example)
	out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "../examples/"+example).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

// tool builds a command line, of the version that the module in the folder dir pins,
// and returns its path. The go command notices when there is nothing to do; the first
// time takes up to four minutes.
func tool(t testing.TB, dir, name, pkg string) string {
	t.Helper()
	program, err := filepath.Abs(filepath.Join("..", "bin", name))
	require.NoError(t, err)
	t.Log("building", name)
	cmd := exec.CommandContext(labtest.Context(t), "go", "build", "-o", program, pkg)
	cmd.Dir = dir
	if dir != "." {
		cmd.Env = append(os.Environ(), "GOWORK=off")
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

// TestQuickstartOnACluster runs the demonstration against a cluster and a
// registry that exist, and in which its Prometheus runs already.
func TestQuickstartOnACluster(t *testing.T) {
	w := newWorld(t)
	address := w.prometheus(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	cmd := exec.CommandContext(ctx, build(ctx, t, "quickstart"),
		"-kubeconfig", w.box.Kubeconfig, "-registry", w.box.Registry, "-namespace", ns, "-app", appDir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Equal(t, 6, strings.Count(string(out), "as it should"), "%s", out)
	assert.Contains(t, string(out), "DATABASE_URL is not set", "the crash is explained")
	assert.Contains(t, string(out), "CVE-2019-10744", "the vulnerability is named")
	w.requirePage(t, ns, "1.4.0")
	assert.Len(t, series(t, address, "vector(1)"), 1, "Prometheus is not the demonstration's to remove")
}

// TestMinimalProgram runs the program that the README shows.
func TestMinimalProgram(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	_, err := w.builder(t, ns).Build(ctx, source("1.0.0"))
	require.NoError(t, err)

	const password = "canary-password"
	pair, err := sign.GenerateKeyPair([]byte(password))
	require.NoError(t, err)
	cmd := exec.CommandContext(ctx, build(ctx, t, "minimal"), w.box.Registry+"/"+ns+":1.0.0", chartDir, ns)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.box.Kubeconfig, "TRIVY_DB_REPOSITORY="+w.box.Database, "XDG_CACHE_HOME="+t.TempDir(),
		"COSIGN_PRIVATE_KEY="+string(pair.Private), "COSIGN_PASSWORD="+password)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	w.requirePage(t, ns, "1.0.0")
	assert.Contains(t, string(out), "released")
	assert.NotContains(t, string(out), password)
	assert.False(t, bytes.Contains(out, pair.Private))
}
