package pipeline

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever a file holds, reading it doesn't crash, what is read can be written
// and read again, and cutting the file anywhere loses nothing but the end.
func FuzzJournal(f *testing.F) {
	const line = `{"run":"r","pipeline":"p","kind":"started","time":"2026-01-02T03:04:05Z"}` + "\n"
	f.Add([]byte(line), 10)
	f.Add([]byte(line+`{"run":"r","pipeline":"p","kind":"checkpointed","time":"2026-01-02T03:04:05Z","stage":"deploy","checkpoint":{"subject":"s","state":{"a":[1]}}}`+"\n"), 90)
	f.Add([]byte(line+`{"run":"r","kind":"restored","stage":"deploy","restoration":{"outcome":"restored"}}`+"\n{]\n"), 3)
	f.Add([]byte("\n\n\x00{}"), 1)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		entries, size, err := decodeEntries(data)
		if err != nil {
			require.ErrorIs(t, err, ErrJournal)
			return
		}
		require.LessOrEqual(t, size, int64(len(data)))
		require.NotContains(t, string(data[size:max(size, int64(len(data))-1)]), "\n", "only one line is given up")
		replay(entries)

		var again bytes.Buffer
		for _, e := range entries {
			encoded, err := encodeEntry(e)
			require.NoError(t, err)
			again.Write(encoded)
		}
		reread, whole, err := decodeEntries(again.Bytes())
		require.NoError(t, err)
		require.EqualValues(t, again.Len(), whole)
		require.Len(t, reread, len(entries))

		if cut >= 0 && int64(cut) <= size {
			prefix, _, err := decodeEntries(data[:cut])
			require.NoError(t, err)
			require.Len(t, prefix, bytes.Count(data[:cut], []byte("\n")))
		}
	})
}
