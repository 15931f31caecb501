package traffic_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestAbortSaysWhatTheCanaryHas where it could not be taken from it.
func TestAbortSaysWhatTheCanaryHas(t *testing.T) {
	for detail, failing := range map[string][]string{
		"in memory": {"shift to 0"},
		"as last recorded, because it can't be read": {"shift to 0", "observe"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			p := &process{cluster: c}
			aborting := false
			p.fault = func(call string, _ int, _ bool) error {
				aborting = aborting || call == "save aborting"
				if aborting && slices.Contains(failing, call) {
					return errInjected
				}
				return nil
			}
			_, err := p.canaryOf(parts{steps: twoSteps(p.gate(stages.Fail))}).Deploy(t.Context(), request(t, newImage, "run-1"))
			var aborted *traffic.AbortError
			require.ErrorAs(t, err, &aborted)
			assert.Equal(t, 10, aborted.Traffic.Canary)
			assert.Equal(t, detail, aborted.Traffic.Detail)
			require.ErrorContains(t, err, "the abort is not complete (10% to the canary")
		})
	}
}
