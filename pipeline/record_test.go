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
