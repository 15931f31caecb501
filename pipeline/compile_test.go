package pipeline_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDeployingUnclearedDoesNotCompile builds packages in a module of their own,
// as a user's are: what isn't cleared by a pipeline can't be deployed.
func TestDeployingUnclearedDoesNotCompile(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	require.NoError(t, err)
	const preamble = `package outside

import (
	"context"

	"github.com/fairlead-dev/fairlead/stages"
)

`
	for name, tc := range map[string]struct{ code, want string }{
		"a pipeline": {`package outside

import (
	"context"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

func deliver() {
	p, err := pipeline.New(pipeline.Config{Name: "shop"})
	if err != nil {
		return
	}
	_, _ = p.Run(context.Background(), stages.Source{Dir: "."})
}
`, ""},
		"a bypass with a reason": {preamble + `func deploy(ctx context.Context, d stages.Deployer, img stages.Image) (stages.Release, error) {
	c, err := stages.BypassGates(img, "restoring production, incident 7")
	if err != nil {
		return stages.Release{}, err
	}
	return d.Deploy(ctx, stages.DeployRequest{Clearance: c})
}
`, ""},
		"an image instead of a clearance": {preamble + `func deploy(ctx context.Context, d stages.Deployer, img stages.Image) (stages.Release, error) {
	return d.Deploy(ctx, stages.DeployRequest{Clearance: img})
}
`, "cannot use img"},
		"a clearance made by hand": {preamble + `func forge(img stages.Image) stages.Clearance { return stages.Clearance{image: img} }

var _ = context.Background
`, "unexported field image"},
		"a clearance filled in": {preamble + `func forge(c *stages.Clearance, img stages.Image) { c.image = img }

var _ = context.Background
`, "c.image undefined"},
		"an image made by hand": {preamble + `var img = stages.Image{repository: "localhost/app"}

var _ = context.Background
`, "unexported field repository"},
		"clearing without a seal": {preamble + `func forge(g stages.Grounds) { _, _ = stages.Clear(struct{ valid bool }{true}, g) }

var _ = context.Background
`, "cannot use struct"},
		"importing the seal": {`package outside

import (
	"github.com/fairlead-dev/fairlead/internal/seal"
	"github.com/fairlead-dev/fairlead/stages"
)

func forge() { _, _ = stages.Clear(seal.New(), stages.Grounds{}) }
`, "use of internal package github.com/fairlead-dev/fairlead/internal/seal not allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write := func(name, content string) {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
			}
			write("go.mod", "module example.com/outside\n\ngo 1.26.0\n\nrequire github.com/fairlead-dev/fairlead v0.0.0\n\nreplace github.com/fairlead-dev/fairlead => "+root+"\n")
			write("go.sum", string(sums))
			write("outside.go", tc.code)
			out, err := goBuild(t.Context(), dir)
			if tc.want == "" {
				require.NoError(t, err, out)
				return
			}
			require.Error(t, err)
			assert.Contains(t, out, tc.want)
			assert.NotContains(t, out, "go: ", "it has to be the compiler that refuses")
		})
	}
}

func goBuild(ctx context.Context, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "build", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod -buildvcs=false", "GOPROXY=off")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
