package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestJournals(t *testing.T) {
	for name, newJournal := range map[string]func(t *testing.T) pipeline.Journal{
		"memory": func(*testing.T) pipeline.Journal { return pipeline.NewMemoryJournal() },
		"file": func(t *testing.T) pipeline.Journal {
			return pipeline.FileJournal(filepath.Join(t.TempDir(), "journal"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJournal(t)
			log, entries, err := j.Open(t.Context())
			require.NoError(t, err)
			assert.Empty(t, entries)
			_, _, err = j.Open(t.Context())
			require.ErrorIs(t, err, pipeline.ErrBusy)

			written := []pipeline.Entry{
				{Run: "r", Pipeline: "p", Kind: pipeline.EntryStarted},
				{Run: "r", Pipeline: "p", Kind: pipeline.EntryCheckpointed, Stage: pipeline.StageDeploy, Image: image(t, "c"),
					Checkpoint: &stages.Checkpoint{Subject: "s", State: json.RawMessage("{\n\"revision\": 3}")}},
			}
			for _, e := range written {
				require.NoError(t, log.Append(t.Context(), e))
			}
			assert.Error(t, log.Append(t.Context(), pipeline.Entry{Run: "r", Kind: "gossip"}), "what can't be read back isn't written")
			assert.Error(t, log.Append(t.Context(), pipeline.Entry{Run: "r", Kind: pipeline.EntryCheckpointed, Stage: "x",
				Checkpoint: &stages.Checkpoint{State: json.RawMessage("{torn")}}))
			log.Close()

			log, entries, err = j.Open(t.Context())
			require.NoError(t, err)
			log.Close()
			written[1].Checkpoint.State = json.RawMessage(`{"revision":3}`)
			assert.Equal(t, written, entries)
		})
	}
}

func TestFileJournalIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	c := config(newFake(t))
	c.Journal = pipeline.FileJournal(path)
	_, err := newPipeline(t, c).Run(t.Context(), source)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

const (
	started      = `{"run":"r","pipeline":"shop","kind":"started","time":"2026-01-02T03:04:05Z"}` + "\n"
	checkpointed = `{"run":"r","pipeline":"shop","kind":"checkpointed","time":"2026-01-02T03:04:05Z","stage":"deploy","checkpoint":{"subject":"release shop/shop","state":"before"}}` + "\n"
	finished     = `{"run":"r","pipeline":"shop","kind":"finished","time":"2026-01-02T03:04:05Z","outcome":"released"}` + "\n"
)

func TestFileJournalReadsWhatIsThere(t *testing.T) {
	for name, tc := range map[string]struct {
		content string
		entries int
		kept    string
		err     string
	}{
		"empty":                   {"", 0, "", ""},
		"whole":                   {started + finished, 2, started + finished, ""},
		"torn":                    {started + finished[:20], 1, started, ""},
		"torn before the newline": {started + strings.TrimSuffix(finished, "\n"), 1, started, ""},
		"zeros after a crash":     {started + "\x00\x00\x00", 1, started, ""},
		"last line damaged":       {started + "{]\n", 1, started, ""},
		"only torn":               {"{", 0, "", ""},
		"middle damaged":          {started + "{]\n" + finished, 0, started + "{]\n" + finished, "line 2"},
		"no run":                  {`{"kind":"started"}` + "\n" + finished, 0, `{"kind":"started"}` + "\n" + finished, "line 1: entry names no run"},
		"another file":            {"apiVersion: v1\nkind: Config\n", 0, "apiVersion: v1\nkind: Config\n", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal")
			require.NoError(t, os.WriteFile(path, []byte(tc.content), 0o600))
			log, entries, err := pipeline.FileJournal(path).Open(t.Context())
			if tc.err == "" {
				require.NoError(t, err)
				log.Close()
			} else {
				require.ErrorIs(t, err, pipeline.ErrJournal)
				require.ErrorContains(t, err, tc.err)
			}
			assert.Len(t, entries, tc.entries)
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.Equal(t, tc.kept, string(content))
		})
	}
}

func TestJournalThatCannotBeOpened(t *testing.T) {
	f := newFake(t)
	c := config(f)
	c.Journal = pipeline.FileJournal(filepath.Join(t.TempDir(), "missing", "journal"))
	res, err := newPipeline(t, c).Run(t.Context(), source)
	require.ErrorIs(t, err, pipeline.ErrJournal)
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.Nil(t, res)
	assert.Empty(t, f.Calls())
}

// failing is a journal whose appends of one kind and stage fail.
type failing struct {
	pipeline.Journal
	kind  pipeline.EntryKind
	stage pipeline.Stage
	crash bool
}

func (j failing) Open(ctx context.Context) (pipeline.Log, []pipeline.Entry, error) {
	log, entries, err := j.Journal.Open(ctx)
	return failingLog{log, j}, entries, err
}

type failingLog struct {
	pipeline.Log
	journal failing
}

var errDisk = errors.New("no space left on device")

func (l failingLog) Append(ctx context.Context, e pipeline.Entry) error {
	if e.Kind == l.journal.kind && e.Stage == l.journal.stage {
		if l.journal.crash {
			panic(errDisk)
		}
		return errDisk
	}
	return l.Log.Append(ctx, e)
}

func TestJournalFailures(t *testing.T) {
	for _, tc := range []struct {
		kind    pipeline.EntryKind
		stage   pipeline.Stage
		never   string
		outcome pipeline.Outcome
	}{
		{pipeline.EntryStarted, "", "build", pipeline.OutcomeUntouched},
		{pipeline.EntryStarting, pipeline.StageBuild, "build", pipeline.OutcomeUntouched},
		{pipeline.EntryDone, pipeline.StageBuild, "scan", pipeline.OutcomeUntouched},
		{pipeline.EntryStarting, pipeline.StageSign, "sign", pipeline.OutcomeUntouched},
		{pipeline.EntryCheckpointed, pipeline.StageDeploy, "deploy", pipeline.OutcomeUntouched},
		{pipeline.EntryDone, pipeline.StageDeploy, "verify", pipeline.OutcomeRolledBack},
		{pipeline.EntryFinished, "", "", pipeline.OutcomeRolledBack},
	} {
		for _, crash := range []bool{false, true} {
			t.Run(string(tc.kind+" "+pipeline.EntryKind(tc.stage)), func(t *testing.T) {
				f := newFake(t)
				c := config(f)
				c.Journal = failing{pipeline.NewMemoryJournal(), tc.kind, tc.stage, crash}
				res, err := newPipeline(t, c).Run(t.Context(), source)
				require.ErrorIs(t, err, pipeline.ErrJournal)
				require.ErrorIs(t, err, errDisk)
				assert.Equal(t, tc.outcome, res.Outcome)
				assert.NotContains(t, f.Calls(), tc.never)
				assert.Equal(t, "before", f.state())
			})
		}
	}
}

// Restoring goes on without a journal; a recovery then finds it done already.
func TestRestoreWithoutJournal(t *testing.T) {
	f, journal, cause := newFake(t), pipeline.NewMemoryJournal(), errors.New("crash loop")
	f.fail("verify", cause)
	c := config(f)
	c.Journal = failing{journal, pipeline.EntryRestored, pipeline.StageDeploy, false}
	_, err := newPipeline(t, c).Run(t.Context(), source)
	require.ErrorIs(t, err, cause)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	require.ErrorIs(t, err, errDisk, "every cause is kept")
	var failed *pipeline.Error
	require.ErrorAs(t, err, &failed)
	assert.Len(t, failed.Later, 1)
	assert.Contains(t, failed.Detail(), "also: write restored to the journal")
	assert.Equal(t, "before", f.state())
}

// Without an end to it, a journal would slow down every run of a process that
// delivers all day.
func TestSpentJournalsStartAnew(t *testing.T) {
	for name, journal := range map[string]pipeline.Journal{
		"memory": pipeline.NewMemoryJournal(),
		"file":   pipeline.FileJournal(filepath.Join(t.TempDir(), "journal")),
	} {
		t.Run(name, func(t *testing.T) {
			open := func() (pipeline.Log, int) {
				log, entries, err := journal.Open(t.Context())
				require.NoError(t, err)
				return log, len(entries)
			}
			write := func(log pipeline.Log, run string, kind pipeline.EntryKind, text string) {
				require.NoError(t, log.Append(t.Context(), pipeline.Entry{Run: run, Kind: kind, Error: text}))
			}
			log, _ := open()
			write(log, "first", pipeline.EntryStarted, "")
			write(log, "first", pipeline.EntryFinished, strings.Repeat("x", 300<<10))
			write(log, "second", pipeline.EntryStarted, "")
			log.Close()
			log, entries := open()
			assert.Equal(t, 3, entries, "an unfinished run keeps the journal")
			write(log, "second", pipeline.EntryFinished, "")
			log.Close()
			log, entries = open()
			assert.Zero(t, entries)
			write(log, "third", pipeline.EntryStarted, "")
			log.Close()
			log, entries = open()
			assert.Equal(t, 1, entries)
			log.Close()
		})
	}
}
