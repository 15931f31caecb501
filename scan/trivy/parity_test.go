package trivy_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/scan/trivy"
)

// The command line of the same version must report the same, image by image.
func TestParityWithTheCommandLine(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "tool", "-n", "trivy").Output()
	require.NoError(t, err, "the go command builds Trivy, see the tool line of go.mod")

	reg := newRegistry(t)
	made := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	database := reg.pushDatabase(t, "db", goodDatabase(t, made))
	java := reg.pushJavaIndex(t, "java", made)
	command, err := scan.NewCommand(t.Context(), scan.CommandConfig{
		Path: strings.TrimSpace(string(out)), CacheDir: filepath.Join(t.TempDir(), "command"), Database: database, JavaDatabase: java, Insecure: true,
	})
	require.NoError(t, err)
	inProcess := newScanner(t, trivy.Config{Database: database, JavaDatabase: java})

	for name, contents := range map[string][]files{
		"operating system":    {debian},
		"with a node package": {debian, node},
		"mended above":        {debian, node, {"var/lib/dpkg/status": dpkg("libc6", "glibc", "2.36-9+deb12u3")}},
		"removed above":       {node, {"app/node_modules/.wh.lodash": ""}},
		"twice in two places": {node, {"srv/node_modules/lodash/package.json": node["app/node_modules/lodash/package.json"]}},
		"a Java archive":      {debian, emptyJar},
		"lock file only":      {{"app/package-lock.json": `{"lockfileVersion":3,"packages":{"node_modules/lodash":{"version":"4.17.4"}}}`}},
		"nothing recognised":  {{"hello": "world"}},
	} {
		t.Run(name, func(t *testing.T) {
			image := reg.push(t, strings.ToLower(strings.ReplaceAll(name, " ", "-")), imageOf(t, contents...))
			want, err := command.Scan(t.Context(), image)
			require.NoError(t, err)
			got, err := inProcess.Scan(t.Context(), image)
			require.NoError(t, err)
			// Built by the go command alone, the binary doesn't know its version.
			want.Scanner = got.Scanner
			assert.Equal(t, want, got)
		})
	}
}
