package traffic_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

func TestPromoteNeedsARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		killIn(t, c)
		q := &process{cluster: c}
		_, err := q.canaryOf(parts{steps: twoSteps()}).Promote(t.Context(), request(t, newImage, ""))
		require.ErrorIs(t, err, stages.ErrInvalid)
	})
}
