package traffic_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
)

func TestLongDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		canary := canaryWatched(t, p, nil, func(c *traffic.CanaryConfig) { c.Drain = 2 * traffic.DefaultAbortTimeout })
		_, err := canary.Deploy(t.Context(), request(t, newImage, "run-1"))
		require.NoError(t, err)
		c.requireCalm(newImage)
	})
}
