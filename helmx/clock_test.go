package helmx_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestRestoreWithAFastClock knows what the run has made, though by the clock of its
// host all of that was made before.
func TestRestoreWithAFastClock(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a, helmx.Set("hook=migrate")))
	cp := checkpoint(t, d, "run-1")
	deploy(t, d, "run-1", "a")
	slow := time.Now().Add(-10 * time.Minute).UTC().Format(time.RFC3339)
	for _, path := range a.paths("/namespaces/shop/") {
		a.edit(path, func(obj content) content {
			section(obj, "metadata")["creationTimestamp"] = slow
			return obj
		})
	}
	r := restore(t, d, "run-1", cp)
	assert.Equal(t, stages.Restored, r.Outcome, r.Message)
	assert.Empty(t, a.paths("/namespaces/shop/"))
}
