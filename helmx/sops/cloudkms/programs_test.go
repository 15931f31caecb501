package cloudkms_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/sops"
	"github.com/fairlead-dev/fairlead/helmx/sops/cloudkms"
	"github.com/fairlead-dev/fairlead/stages"
)

// sopsCommand is the real one.
const sopsCommand = "github.com/getsops/sops/v3/cmd/sops"

// program builds a program of the module servers, which pins them.
func program(t *testing.T, name string) string {
	t.Helper()
	out, err := filepath.Abs(filepath.Join("..", "..", "..", "bin", path.Base(name)))
	require.NoError(t, err)
	build := exec.CommandContext(t.Context(), "go", "build", "-C", filepath.Join("internal", "servers"), "-o", out, name)
	build.Env = append(environment, "GOWORK=off")
	text, err := build.CombinedOutput()
	require.NoError(t, err, "%s", text)
	return out
}

// server is a program that serves until its standard input ends.
type server struct {
	Address, Authority string
	stop               func()
}

func start(t *testing.T, name string, args ...string) server {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program(t, name), args...)
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	s := server{stop: func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}}
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("%s: %s", name, &stderr)
		}
	})
	require.NoError(t, json.NewDecoder(stdout).Decode(&s), "%s did not start", name)
	return s
}

// sealed is a file as the sops command wrote it, and what it decrypts it to.
type sealed struct{ file, plain []byte }

// seal has the sops command encrypt a file with the keys that flags name, and the
// credentials of an environment, and decrypt it again.
func seal(t *testing.T, env []string, flags ...string) sealed {
	t.Helper()
	command := func(args ...string) []byte {
		var stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), program(t, sopsCommand), append([]string{"--disable-version-check", "--config", os.DevNull}, args...)...)
		cmd.Env, cmd.Stderr = append(internet.env, env...), &stderr
		out, err := cmd.Output()
		require.NoError(t, err, "sops %v: %s", args, &stderr)
		return out
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	s := sealed{file: command(append(append([]string{"encrypt"}, flags...), filepath.Join("..", "testdata", "plain", "types.yaml"))...)}
	require.NoError(t, os.WriteFile(file, s.file, 0o600))
	s.plain = command("decrypt", file)
	return s
}

// open decrypts a file with the keys that a configuration opens.
func open(t *testing.T, cfg cloudkms.Config, file []byte) ([]byte, error) {
	t.Helper()
	source, err := cloudkms.New(cfg)
	require.NoError(t, err)
	d, err := sops.New(sops.Config{KeySource: source})
	require.NoError(t, err)
	return d.Decrypt(t.Context(), "values.yaml", file)
}

func requireOpens(t *testing.T, cfg cloudkms.Config, s sealed) {
	t.Helper()
	plain, err := open(t, cfg, s.file)
	require.NoError(t, err)
	assert.Equal(t, string(s.plain), string(plain))
}

// requireRefused checks that a file is not opened, and why.
func requireRefused(t *testing.T, cfg cloudkms.Config, file []byte, permanent bool, code string, says ...string) {
	t.Helper()
	plain, err := open(t, cfg, file)
	require.ErrorIs(t, err, sops.ErrNoKey)
	assert.Nil(t, plain)
	assert.Equal(t, permanent, stages.IsPermanent(err), "%v", err)
	var failure *cloudkms.Error
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, code, failure.Code)
	for _, part := range says {
		assert.ErrorContains(t, err, part)
	}
	assert.NotContains(t, err.Error(), "canary")
	assert.NotContains(t, err.Error(), "\n")
}
