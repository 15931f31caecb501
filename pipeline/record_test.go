package pipeline_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
)

// recording is a fake that writes down why its release failed.
type recording struct {
	*fake
	cause error
}

func (r *recording) RecordFailure(ctx context.Context, _ string, cause error) error {
	r.cause = cause
	return r.call(ctx, "record")
}

func TestFailureIsRecordedBeforeTheRestore(t *testing.T) {
	cause := errors.New("crash loop")
	for name, test := range map[string]struct {
		at     string
		record func(ctx context.Context, attempt int) error
		calls  int
		kind   pipeline.Kind
		later  string
	}{
		"recorded":       {at: "verify", calls: 1, kind: pipeline.KindFailureRecorded},
		"nothing to say": {at: "sign"},
		"fails": {at: "deploy", calls: 1, kind: pipeline.KindFailureNotRecorded, later: "record why the release failed: disk full",
			record: func(context.Context, int) error { return errors.New("disk full") }},
		"panics": {at: "verify", calls: 1, kind: pipeline.KindFailureNotRecorded, later: "record why the release failed",
			record: func(context.Context, int) error { panic("oh") }},
		"hangs": {at: "verify", calls: 1, kind: pipeline.KindFailureNotRecorded, later: "record why the release failed",
			record: func(ctx context.Context, _ int) error { <-ctx.Done(); return context.Cause(ctx) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, seen := &recording{fake: newFake(t)}, &recorder{}
				r.fail(test.at, cause)
				if test.record != nil {
					r.on["record"] = test.record
				}
				c := config(r.fake, seen)
				c.Deployer = r
				result, err := newPipeline(t, c).Run(t.Context(), source)
				require.ErrorIs(t, err, cause)
				assert.Equal(t, "before", r.state())
				assert.Equal(t, test.calls, r.counts["record"])
				failed, ok := errors.AsType[*pipeline.Error](err)
				require.True(t, ok)
				if test.later == "" {
					assert.Empty(t, failed.Later)
				} else {
					require.Len(t, failed.Later, 1)
					assert.ErrorContains(t, failed.Later[0], test.later)
				}
				if test.calls == 0 {
					assert.Equal(t, pipeline.OutcomeUntouched, result.Outcome)
					return
				}
				require.ErrorIs(t, r.cause, cause)
				assert.Equal(t, pipeline.OutcomeRolledBack, result.Outcome)
				assert.Len(t, seen.of(test.kind), 1)
				calls := r.Calls()
				assert.Less(t, slices.Index(calls, "record"), slices.Index(calls, "restore"))
			})
		})
	}
}

// TestRecoveryRecordsThatTheRunEndedSilently: a restore that goes well is no error,
// whether or not that could be written down.
func TestRecoveryRecordsThatTheRunEndedSilently(t *testing.T) {
	for name, test := range map[string]struct {
		journal string
		fails   error
		cause   string
	}{
		"in the deployment":     {journal: started + checkpointed, cause: "deploy: the process ended without a word; it may have been killed"},
		"after it":              {journal: started + checkpointed + entry("done", "deploy", ""), cause: "after deploy: the process ended without a word; it may have been killed"},
		"before it":             {journal: started + entry("starting", "sign", "")},
		"in a restore":          {journal: started + checkpointed + entry("restoring", "deploy", "")},
		"and can't be written":  {journal: started + checkpointed, fails: errors.New("disk full"), cause: "deploy: the process ended without a word; it may have been killed"},
		"of what can't go back": {journal: started + entry("starting", "deploy", "") + entry("done", "deploy", ""), cause: "after deploy: the process ended without a word; it may have been killed"},
	} {
		t.Run(name, func(t *testing.T) {
			r, seen := &recording{fake: newFake(t)}, &recorder{}
			r.cluster = "half"
			r.on["record"] = func(context.Context, int) error { return test.fails }
			c := config(r.fake, seen)
			c.Deployer = r
			c.Journal, _ = journalOf(t, test.journal)
			recovered, err := newPipeline(t, c).Recover(t.Context())
			require.Len(t, recovered, 1)
			if recovered[0].Outcome != pipeline.OutcomeLeft {
				require.NoError(t, err)
			}
			if test.cause == "" {
				require.NoError(t, r.cause)
				return
			}
			require.EqualError(t, r.cause, test.cause)
			kind := pipeline.KindFailureRecorded
			if test.fails != nil {
				kind = pipeline.KindFailureNotRecorded
			}
			assert.Len(t, seen.of(kind), 1)
			if calls := r.Calls(); recovered[0].Outcome == pipeline.OutcomeRolledBack {
				assert.Equal(t, []string{"record", "restore"}, calls)
			}
		})
	}
}
