package helmx_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestServersThatAskForTooLongAWait have refused.
func TestServersThatAskForTooLongAWait(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/secrets") {
			return false
		}
		w.Header().Set("Retry-After", "86400")
		fail(w, 503, metav1.StatusReasonServiceUnavailable, "maintenance")
		return true
	})
	start := time.Now()
	_, err := d.Plan(t.Context(), stages.PlanRequest{Image: image("a")})
	var refused *helmx.APIError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, helmx.Unavailable, refused.Reason)
	require.ErrorContains(t, err, "maintenance")
	assert.Less(t, time.Since(start), time.Minute)
}
