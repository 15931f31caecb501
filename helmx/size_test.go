package helmx_test

import (
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// noise returns n characters that hardly compress.
func noise(n int) string {
	raw := make([]byte, n*3/4)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range raw {
		raw[i] = byte(r.Uint32())
	}
	return base64.StdEncoding.EncodeToString(raw)
}

func TestRecordTooLarge(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shop")
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/digest")))
	write(t, dir, "docs/video.txt", noise(900_000))
	write(t, dir, "templates/NOTES.txt", noise(60_000))
	a := newAPIServer(t, "shop")
	cfg := digestConfig(a, helmx.Set("extra=true"), helmx.SetLiteral("unused="+noise(90_000)))
	cfg.Chart, cfg.CreateNamespace = dir, true
	d := open(t, cfg)
	before := a.requests(mutating)
	_, planErr := d.Plan(t.Context(), stages.PlanRequest{Image: image("a")})
	_, deployErr := d.Deploy(t.Context(), request(t, "run-1", "a"))
	for _, err := range []error{planErr, deployErr} {
		require.ErrorIs(t, err, stages.ErrInvalid)
		failure, ok := errors.AsType[*helmx.RecordTooLargeError](err)
		require.True(t, ok, "%v", err)
		assert.Greater(t, failure.Bytes, failure.Limit)
		assert.Equal(t, 1<<20, failure.Limit)
		require.Greater(t, len(failure.Contributors), 3)
		assert.Equal(t, "shop/docs/video.txt", failure.Contributors[0].Name)
		assert.Greater(t, failure.Contributors[0].Bytes, 850_000)
		assert.Contains(t, []string{"values", "shop/templates/NOTES.txt"}, failure.Contributors[1].Name)
		assert.ErrorContains(t, err, ".helmignore")
	}
	assert.Equal(t, before, a.requests(mutating), "the cluster was touched")

	write(t, dir, ".helmignore", "docs/\n")
	d = open(t, cfg)
	assert.Equal(t, 1, deploy(t, d, "run-2", "a").Revision)
}
