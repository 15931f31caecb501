package traffictest

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// TestState checks that an implementation keeps the contract of [traffic.State].
// The function returns one that has no record, and one that looks at the same
// place from another process.
func TestState(t *testing.T, newStates func(*testing.T) (one, other traffic.State)) {
	for _, c := range stateChecks {
		t.Run(c.name, func(t *testing.T) {
			one, other := newStates(t)
			c.run(t, one, other)
		})
	}
}

func record(run string) traffic.Record {
	return traffic.Record{
		Format: 1, Run: run, Holder: run + " x", Image: stagestest.Image("canary"), Phase: traffic.Watching,
		Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Step: 2, Weight: 50, From: 10, Reason: "why", Promotion: true,
		Stable: stages.Checkpoint{Subject: "release shop/shop", State: json.RawMessage(`{"a":1}`)}, AbortAsked: "please",
	}
}

var stateChecks = []struct {
	name string
	run  func(t *testing.T, one, other traffic.State)
}{
	{"begins with no record", func(t *testing.T, one, _ traffic.State) {
		got, version, err := one.Load(t.Context())
		require.NoError(t, err)
		assert.Nil(t, got)
		assert.Empty(t, version)
		require.NoError(t, one.Delete(t.Context(), "7"), "deleting what is gone is no error")
	}},
	{"keeps a record for others to read", func(t *testing.T, one, other traffic.State) {
		want := record("run-1")
		version, err := one.Save(t.Context(), want, "")
		require.NoError(t, err)
		require.NotEmpty(t, version)
		got, seen, err := other.Load(t.Context())
		require.NoError(t, err)
		require.NotNil(t, got)
		assert.Equal(t, version, seen)
		assert.JSONEq(t, string(want.Stable.State), string(got.Stable.State))
		got.Stable.State = want.Stable.State
		assert.Equal(t, want, *got)
	}},
	{"lets only who knows the newest version write", func(t *testing.T, one, other traffic.State) {
		first, err := one.Save(t.Context(), record("run-1"), "")
		require.NoError(t, err)
		_, err = other.Save(t.Context(), record("run-2"), "")
		require.ErrorIs(t, err, traffic.ErrStateChanged)
		second, err := other.Save(t.Context(), record("run-2"), first)
		require.NoError(t, err)
		_, err = one.Save(t.Context(), record("run-1"), first)
		require.ErrorIs(t, err, traffic.ErrStateChanged)
		require.ErrorIs(t, one.Delete(t.Context(), first), traffic.ErrStateChanged)
		require.NoError(t, one.Delete(t.Context(), second))
		_, err = other.Save(t.Context(), record("run-2"), second)
		require.ErrorIs(t, err, traffic.ErrStateChanged, "a record that was deleted is not written again unknowingly")
		got, _, err := one.Load(t.Context())
		require.NoError(t, err)
		assert.Nil(t, got)
	}},
	{"stops when cancelled", func(t *testing.T, one, _ traffic.State) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := one.Load(ctx)
		require.ErrorIs(t, err, context.Canceled)
		_, err = one.Save(ctx, record("run-1"), "")
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, one.Delete(ctx, "1"), context.Canceled)
	}},
}
