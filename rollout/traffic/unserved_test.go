package traffic_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
)

// TestRouteThatNobodyServes is refused while there is nothing yet to take back: its
// canary could never be seen to have lost its traffic.
func TestRouteThatNobodyServes(t *testing.T) {
	for settles, router := range map[string]func(c *cluster) traffic.Router{
		"never": func(c *cluster) traffic.Router {
			return traffic.RouterFuncs{
				Set: func(_ context.Context, weight int) error { c.router.Set(weight); return nil },
				Get: func(context.Context) (traffic.Split, error) {
					return traffic.Split{Canary: c.router.Weight(), Detail: "no gateway has accepted it yet"}, nil
				},
			}
		},
		"late": func(c *cluster) traffic.Router {
			accepted := time.Now().Add(time.Minute)
			return traffic.RouterFuncs{
				Set: func(_ context.Context, weight int) error { c.router.Set(weight); return nil },
				Get: func(context.Context) (traffic.Split, error) {
					return traffic.Split{Canary: c.router.Weight(), Settled: time.Now().After(accepted)}, nil
				},
			}
		},
	} {
		t.Run(settles, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				p := &process{cluster: c}
				_, err := p.canaryOf(parts{steps: twoSteps(), router: router(c)}).Deploy(t.Context(), request(t, newImage, "run-1"))
				if settles == "late" {
					require.NoError(t, err)
					c.requireCalm(newImage)
					return
				}
				require.ErrorContains(t, err, "no gateway has accepted it yet")
				assert.NotContains(t, p.log, "deploy canary")
				c.requireCalm(oldImage)
			})
		})
	}
}
