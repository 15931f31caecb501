package traffic_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

func TestResumeWithFewerSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		p.fault = func(call string, _ int, _ bool) error {
			if call == "shift to 50" {
				p.fault = func(string, int, bool) error { return errDead }
				return errDead
			}
			return nil
		}
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps(p.gate(stages.Pass))}), "run-1", newImage)
		require.ErrorIs(t, err, errDead)
		c.died()
		q := &process{cluster: c}
		_, err = q.deliver(t.Context(), q.canaryOf(parts{steps: twoSteps()[:1], resume: true}), "run-2", newImage)
		require.NoError(t, err)
		c.requireCalm(newImage)
	})
}
