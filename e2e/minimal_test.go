package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/sign"
)

// TestMinimalProgram builds and runs the program that the README shows.
func TestMinimalProgram(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	_, err := w.builder(t, ns).Build(ctx, source("1.0.0"))
	require.NoError(t, err)
	program := filepath.Join(t.TempDir(), "minimal")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "../examples/minimal").CombinedOutput()
	require.NoError(t, err, "%s", out)

	const password = "canary-password"
	pair, err := sign.GenerateKeyPair([]byte(password))
	require.NoError(t, err)
	deliver := func() ([]byte, error) {
		cmd := exec.CommandContext(ctx, program, w.box.Registry+"/"+ns+":1.0.0", chartDir, ns)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+w.box.Kubeconfig, "TRIVY_DB_REPOSITORY="+w.box.Database, "XDG_CACHE_HOME="+t.TempDir(),
			"COSIGN_PRIVATE_KEY="+string(pair.Private), "COSIGN_PASSWORD="+password)
		return cmd.CombinedOutput()
	}
	out, err = deliver()
	t.Logf("%s", out)
	require.NoError(t, err)
	w.requirePage(t, ns, "1.0.0")
	assert.Contains(t, string(out), "released")
	assert.NotContains(t, string(out), password)
	assert.False(t, bytes.Contains(out, pair.Private))
}
