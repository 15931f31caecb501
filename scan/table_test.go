package scan_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/stages"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestWriteTable(t *testing.T) {
	full := report(lodash, glibc, zlib, tar, odd)
	full.Database = time.Date(2026, 11, 20, 6, 0, 0, 0, time.UTC)
	full.Findings[1].Title = "a title with\ttabs, \x1b[31mcolour and a very long explanation that goes on and on and on"
	empty := stages.Report{Image: image, Scanner: "trivy"}
	for name, r := range map[string]stages.Report{"full": full, "empty": empty} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			require.NoError(t, scan.WriteTable(&b, r))
			golden := filepath.Join("testdata", "table-"+name+".txt")
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(b.String()), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			assert.Equal(t, string(want), b.String())
		})
	}
}

type fullDisk struct{}

var errFull = errors.New("disk full")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestWriteTableReportsWriteErrors(t *testing.T) {
	require.ErrorIs(t, scan.WriteTable(fullDisk{}, report(lodash)), errFull)
}

func TestWriteTableOfAHostileImage(t *testing.T) {
	hostile := report(lodash)
	hostile.OS = "alpine 3.20\x1b]0;mine\x07\u202e, 9 packages, no findings\n\n"
	hostile.Findings[0].Package = "lodash\u202egpj.exe\u2028"
	var b strings.Builder
	require.NoError(t, scan.WriteTable(&b, hostile))
	assert.NotRegexp(t, "[\x1b\x07\u202e\u2028]", b.String())
	assert.Len(t, strings.Split(strings.TrimSpace(b.String()), "\n"), 5)
}
