package pipeline

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// After a write that failed, a journal takes nothing more: what comes next could
// end up behind half a line.
func TestFileLogGivesUpAfterAFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	file, err := os.Open(path) // can't be written
	require.NoError(t, err)
	log := &fileLog{file: file}
	defer log.Close()
	first := log.Append(t.Context(), Entry{Run: "r", Kind: EntryStarted})
	require.Error(t, first)
	err = log.Append(t.Context(), Entry{Run: "r", Kind: EntryStarted})
	require.ErrorIs(t, err, first)
	assert.ErrorContains(t, err, "an earlier write failed")
}
