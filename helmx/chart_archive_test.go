package helmx_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestArchivesThatAreRefused(t *testing.T) {
	const metadata = "apiVersion: v2\nname: shop\nversion: 1.2.3\n"
	chart := entry{name: "shop/Chart.yaml", text: metadata}
	many := []entry{chart}
	for i := range 10_001 {
		many = append(many, entry{name: fmt.Sprintf("shop/files/%d", i)})
	}
	// Each dependency unpacks to less than is allowed, all of them to more.
	zeros := strings.Repeat("\x00", 5<<20)
	bomb := []entry{{name: "dep/Chart.yaml", text: metadata}}
	for i := range 11 {
		bomb = append(bomb, entry{name: fmt.Sprintf("dep/files/%d", i), text: zeros})
	}
	nested := string(tgz(t, bomb...))
	deep := tgz(t, chart)
	for range 10 {
		deep = tgz(t, chart, entry{name: "shop/charts/dep.tgz", text: string(deep)})
	}
	for name, c := range map[string]struct {
		archive []byte
		want    string
	}{
		"not an archive":  {[]byte("hello"), "not a packaged chart"},
		"empty":           {tgz(t), "no files"},
		"cut":             {tgz(t, chart)[:60], "damaged"},
		"parent":          {tgz(t, chart, entry{name: "shop/../../etc/passwd", text: "x"}), "leads out"},
		"absolute":        {tgz(t, chart, entry{name: "/etc/passwd", text: "x"}), "leads out"},
		"windows":         {tgz(t, chart, entry{name: `shop\..\..\x`, text: "x"}), "leads out"},
		"drive":           {tgz(t, chart, entry{name: "shop/c:/x", text: "x"}), "leads out"},
		"symlink":         {tgz(t, chart, entry{name: "shop/values.yaml", text: "/etc/passwd", kind: tar.TypeSymlink}), "neither a file nor a folder"},
		"hard link":       {tgz(t, chart, entry{name: "shop/values.yaml", text: "/etc/passwd", kind: tar.TypeLink}), "neither a file nor a folder"},
		"big file":        {tgz(t, chart, entry{name: "shop/big", text: zeros + "x"}), "larger than 5 MiB"},
		"many files":      {tgz(t, many...), "more than 10000 files"},
		"bombs in it":     {tgz(t, chart, entry{name: "shop/charts/a.tgz", text: nested}, entry{name: "shop/charts/b.tgz", text: nested}), "unpacks to more than 100 MiB"},
		"too deep":        {deep, "more than 8 deep"},
		"escape below":    {tgz(t, chart, entry{name: "shop/charts/a.tgz", text: string(tgz(t, entry{name: "dep/../../x", text: "x"}))}), "leads out"},
		"no Chart.yaml":   {tgz(t, entry{name: "shop/values.yaml", text: "a: 1"}), "Chart.yaml file is missing"},
		"broken values":   {tgz(t, chart, entry{name: "shop/values.yaml", text: "a: 1\n b: canary\n"}), "values.yaml:2"},
		"broken metadata": {tgz(t, entry{name: "shop/Chart.yaml", text: "a: [canary\n"}), "Chart.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "shop.tgz")
			require.NoError(t, os.WriteFile(path, c.archive, 0o600))
			cfg := digestConfig(newAPIServer(t))
			cfg.Chart = path
			_, err := helmx.New(cfg)
			require.ErrorIs(t, err, stages.ErrInvalid)
			failure, ok := errors.AsType[*helmx.ChartError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, helmx.ChartMalformed, failure.Reason)
			assert.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "canary")
		})
	}
}

func TestPackagedChart(t *testing.T) {
	archive, name := packaged(t, "testdata/digest")
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, archive, 0o600))
	cfg := digestConfig(newAPIServer(t, "shop"))
	cfg.Chart = path
	assert.Equal(t, 1, deploy(t, open(t, cfg), "run-1", "a").Revision)
}
