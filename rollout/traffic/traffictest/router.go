package traffictest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// RouterHarness is a router, with an eye and a hand on its cluster. A canary is
// deployed, and all traffic is on the stable release.
type RouterHarness struct {
	// Router is the implementation.
	Router traffic.Router
	// Foreign sets the weight as somebody else would, past the router, to one that
	// Nearest has returned.
	Foreign func(ctx context.Context, weight int) error
	// Settle does what the cluster does to have what was asked for take effect; nil
	// if it does so by itself.
	Settle func(ctx context.Context) error
}

// patience is how often a shift is repeated, and how often it is looked at.
const patience = 100

// TestRouter checks that an implementation keeps the contract of
// [traffic.Router].
func TestRouter(t *testing.T, newHarness func(*testing.T) RouterHarness) {
	for _, c := range routerChecks {
		t.Run(c.name, func(t *testing.T) { c.run(t, newHarness(t)) })
	}
}

var routerChecks = []struct {
	name string
	run  func(t *testing.T, h RouterHarness)
}{
	{"begins with all traffic on the stable release", func(t *testing.T, h RouterHarness) {
		h.requireSettled(t, 0)
	}},
	{"names the nearest weight, and changes nothing", func(t *testing.T, h RouterHarness) {
		for _, weight := range []int{0, 1, 5, 10, 33, 50, 66, 90, 99, 100} {
			nearest := h.nearest(t, weight)
			assert.Equal(t, nearest, h.nearest(t, nearest), "the nearest weight is its own nearest")
			switch weight {
			case 0, 100:
				assert.Equal(t, weight, nearest)
			default:
				assert.Positive(t, nearest, "something asked for must not become nothing")
				assert.LessOrEqual(t, nearest, 100)
			}
		}
		for _, weight := range []int{-2, -1, 101} {
			_, err := h.Router.Nearest(t.Context(), weight)
			require.ErrorIs(t, err, stages.ErrInvalid, "weight %d", weight)
		}
		h.requireSettled(t, 0)
	}},
	{"shifts there and back", func(t *testing.T, h RouterHarness) {
		at := 0
		for _, weight := range []int{10, 50, 100, 50, 0, 100, 0} {
			to := h.nearest(t, weight)
			h.shift(t, at, to)
			h.requireSettled(t, to)
			at = to
		}
	}},
	{"a shift can be repeated", func(t *testing.T, h RouterHarness) {
		to := h.nearest(t, 50)
		h.shift(t, 0, to)
		h.requireSettled(t, to)
		h.shift(t, 0, to)
		h.shift(t, to, to)
		h.requireSettled(t, to)
		h.shift(t, traffic.Any, 0)
		h.shift(t, traffic.Any, 0)
		h.requireSettled(t, 0)
	}},
	{"keeps what somebody else has set, unless told otherwise", func(t *testing.T, h RouterHarness) {
		to := h.nearest(t, 50)
		require.NoError(t, h.Foreign(t.Context(), 100))
		h.settle(t)
		err := h.Router.Shift(t.Context(), 0, to)
		if to != 100 {
			var changed *traffic.ChangedError
			require.ErrorAs(t, err, &changed)
			assert.Equal(t, 100, changed.Got)
			assert.NotEmpty(t, changed.Error())
		}
		split, err := h.Router.Observe(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 100, split.Canary)
		h.shift(t, traffic.Any, 0)
		h.requireSettled(t, 0)
	}},
	{"refuses what is no weight", func(t *testing.T, h RouterHarness) {
		for _, to := range []int{-1, 101} {
			require.ErrorIs(t, h.Router.Shift(t.Context(), 0, to), stages.ErrInvalid)
		}
		h.requireSettled(t, 0)
	}},
	{"stops when cancelled", func(t *testing.T, h RouterHarness) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		_, err := h.Router.Nearest(ctx, 50)
		require.ErrorIs(t, err, context.Canceled)
		_, err = h.Router.Observe(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, h.Router.Shift(ctx, 0, h.nearest(t, 50)), context.Canceled)
		assert.Less(t, time.Since(start), 10*time.Second)
		h.requireSettled(t, 0)
	}},
}

func (h RouterHarness) nearest(t *testing.T, weight int) int {
	t.Helper()
	nearest, err := h.Router.Nearest(t.Context(), weight)
	require.NoError(t, err)
	return nearest
}

func (h RouterHarness) settle(t *testing.T) {
	t.Helper()
	if h.Settle != nil {
		require.NoError(t, h.Settle(t.Context()))
	}
}

// shift asks until it is done, as one shift may have to wait for the cluster.
func (h RouterHarness) shift(t *testing.T, from, to int) {
	t.Helper()
	var err error
	for range patience {
		if err = h.Router.Shift(t.Context(), from, to); err == nil {
			return
		}
		h.settle(t)
	}
	require.NoError(t, err, "shift from %d to %d", from, to)
}

func (h RouterHarness) requireSettled(t *testing.T, weight int) {
	t.Helper()
	var split traffic.Split
	for range patience {
		h.settle(t)
		var err error
		split, err = h.Router.Observe(t.Context())
		require.NoError(t, err)
		if split.Settled && split.Canary == weight {
			return
		}
	}
	require.Failf(t, "the weight does not settle", "asked for %d, got %s", weight, split)
}
