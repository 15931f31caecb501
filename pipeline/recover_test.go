package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// journalOf returns a file journal with that content, and its path.
func journalOf(t *testing.T, content string) (pipeline.Journal, string) {
	path := filepath.Join(t.TempDir(), "journal")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return pipeline.FileJournal(path), path
}

func entry(kind, stage, more string) string {
	return fmt.Sprintf(`{"run":"r","pipeline":"shop","kind":%q,"time":"2026-01-02T03:04:05Z","stage":%q%s}`+"\n", kind, stage, more)
}

func TestRecover(t *testing.T) {
	const restored = `,"restoration":{"subject":"release shop/shop","outcome":"restored","message":"m"}`
	for name, tc := range map[string]struct {
		journal string
		runs    int
		outcome pipeline.Outcome
		state   string
		class   error
	}{
		"empty":                              {"", 0, "", "half", nil},
		"finished":                           {started + checkpointed + finished, 0, "", "half", nil},
		"started only":                       {started, 1, pipeline.OutcomeUntouched, "half", nil},
		"built":                              {started + entry("starting", "build", ""), 1, pipeline.OutcomeUntouched, "half", nil},
		"checkpointed":                       {started + checkpointed, 1, pipeline.OutcomeRolledBack, "before", nil},
		"deployed":                           {started + checkpointed + entry("done", "deploy", ""), 1, pipeline.OutcomeRolledBack, "before", nil},
		"restoring":                          {started + checkpointed + entry("restoring", "deploy", ""), 1, pipeline.OutcomeRolledBack, "before", nil},
		"restored":                           {started + checkpointed + entry("restored", "deploy", restored), 1, pipeline.OutcomeRolledBack, "half", nil},
		"torn checkpoint":                    {started + checkpointed[:40], 1, pipeline.OutcomeUntouched, "half", nil},
		"commit that failed and got through": {started + checkpointed + finished + entry("restoring", "deploy", ""), 1, pipeline.OutcomeRolledBack, "before", nil},
		"no compensator, failed":             {started + entry("starting", "deploy", ""), 1, pipeline.OutcomeUnknown, "half", stages.ErrIndeterminate},
	} {
		t.Run(name, func(t *testing.T) {
			f, rec := newFake(t), &recorder{}
			f.cluster = "half"
			c := config(f, rec)
			c.Journal, _ = journalOf(t, tc.journal)
			p := newPipeline(t, c)
			_, err := p.Run(t.Context(), source)
			assert.Equal(t, tc.runs > 0, errors.Is(err, pipeline.ErrUnfinished))
			if tc.runs == 0 {
				return
			}
			assert.Empty(t, f.Calls())
			var unfinished *pipeline.UnfinishedError
			require.ErrorAs(t, err, &unfinished)
			assert.Equal(t, []string{"r"}, unfinished.Runs)

			recovered, err := p.Recover(t.Context())
			if tc.class == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, tc.class)
			}
			require.Len(t, recovered, 1)
			assert.Equal(t, tc.outcome, recovered[0].Outcome)
			assert.Equal(t, tc.state, f.state())
			assert.Equal(t, 2026, recovered[0].Started.Year())
			events := rec.all()
			assert.Equal(t, pipeline.KindRecoveryStarted, events[0].Kind)
			assert.Equal(t, pipeline.KindRecoveryFinished, events[len(events)-1].Kind)

			_, err = p.Run(t.Context(), source)
			require.NoError(t, err, "the way is free")
		})
	}
}

func TestRecoverLeftRelease(t *testing.T) {
	c := config(newFake(t))
	c.Journal, _ = journalOf(t, started+entry("starting", "deploy", "")+entry("done", "deploy", ""))
	p := newPipeline(t, c)
	recovered, err := p.Recover(t.Context())
	require.ErrorContains(t, err, "recover run r: the release stays deployed, because its deployer can't roll back; nobody has verified it")
	assert.Equal(t, pipeline.OutcomeLeft, recovered[0].Outcome)
	recovered, err = p.Recover(t.Context())
	require.NoError(t, err)
	assert.Empty(t, recovered)
}

func TestRecoverDiverged(t *testing.T) {
	var log []string
	f := newFake(t)
	c := config(f)
	c.Deployer = compensated{f, "deploy", stages.Diverged, &log}
	c.Journal, _ = journalOf(t, started+checkpointed)
	p := newPipeline(t, c)
	_, err := p.Recover(t.Context())
	require.ErrorIs(t, err, stages.ErrRollbackFailed)
	require.NotErrorIs(t, err, stages.ErrIndeterminate)
	_, err = p.Recover(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"deploy"}, log, "its outcome is known, so it isn't repeated")
}

func TestRecoverRefusesWhatItCannotMatch(t *testing.T) {
	for name, tc := range map[string]struct{ journal, want string }{
		"stage":    {started + checkpointed + entry("checkpointed", "shift-traffic", `,"checkpoint":{"subject":"mesh","state":1}`), `stage "shift-traffic" (mesh)`},
		"position": {started + entry("checkpointed", "verify-2", `,"checkpoint":{"subject":"mesh","state":1}`), `stage "verify-2" (mesh)`},
		"pipeline": {`{"run":"r","pipeline":"blog","kind":"started","time":"2026-01-02T03:04:05Z"}` + "\n", `run r is of pipeline "blog"`},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c := config(f)
			var path string
			c.Journal, path = journalOf(t, tc.journal)
			recovered, err := newPipeline(t, c).Recover(t.Context())
			require.ErrorIs(t, err, stages.ErrInvalid)
			require.ErrorContains(t, err, tc.want)
			assert.Empty(t, recovered)
			assert.Empty(t, f.Calls(), "nothing is restored out of order")
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.Equal(t, tc.journal, string(content))
		})
	}
}

func TestRecoverCancelledAndRepeated(t *testing.T) {
	f := newFake(t)
	f.cluster = "half"
	c := config(f)
	c.Journal, _ = journalOf(t, started+checkpointed)
	p := newPipeline(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	f.on["restore"] = func(ctx context.Context, _ int) error { cancel(); return context.Cause(ctx) }
	recovered, err := p.Recover(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, stages.ErrIndeterminate)
	assert.Equal(t, pipeline.OutcomeUnknown, recovered[0].Outcome)
	assert.Equal(t, "half", f.state())
	delete(f.on, "restore")
	_, err = p.Recover(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "before", f.state())
}
