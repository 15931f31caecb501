package pipeline_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
)

// TestJournalOfANewerVersion is not shortened by what an older one doesn't know.
func TestJournalOfANewerVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	newer := `{"run":"r","pipeline":"shop","kind":"prepared","time":"2026-01-02T03:04:05Z","stage":"deploy"}` + "\n"
	require.NoError(t, os.WriteFile(path, []byte(started+newer), 0o600))
	_, _, err := pipeline.FileJournal(path).Open(t.Context())
	require.ErrorIs(t, err, pipeline.ErrJournal)
	require.ErrorContains(t, err, `line 2: entry has the unknown kind "prepared"`)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, started+newer, string(content))
}
