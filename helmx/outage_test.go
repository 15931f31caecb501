package helmx_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

const hookPath = "/apis/batch/v1/namespaces/shop/jobs/web-migrate"

// TestHookIsWaitedForWithoutTheAPIServer: that there is no answer says nothing about
// the hook.
func TestHookIsWaitedForWithoutTheAPIServer(t *testing.T) {
	for name, path := range map[string]string{
		"no answer to a look":  hookPath,
		"no answer to a watch": "/apis/batch/v1/namespaces/shop/jobs",
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			a.jobs = ""
			var refused atomic.Int32
			a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet || r.URL.Path != path || a.get(hookPath) == nil {
					return false
				}
				if refused.Add(1) == 2 {
					a.edit(hookPath, func(job content) content {
						job["status"] = content{"conditions": []any{content{"type": "Complete", "status": "True"}}}
						return job
					})
					return false
				}
				w.WriteHeader(http.StatusBadGateway)
				return true
			})
			deploy(t, open(t, digestConfig(a, helmx.Set("hook=migrate"))), "run-1", "a")
			assert.EqualValues(t, 2, refused.Load(), "it was asked again")
		})
	}
}

// TestHookThatNobodyCouldWatch is not called a failed one.
func TestHookThatNobodyCouldWatch(t *testing.T) {
	a := newAPIServer(t, "shop")
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || r.URL.Path != hookPath {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	cfg := digestConfig(a, helmx.Set("hook=migrate"))
	cfg.Timeout = 2 * time.Second
	_, err := open(t, cfg).Deploy(t.Context(), request(t, "run-1", "a"))
	var failure *helmx.APIError
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, helmx.Unavailable, failure.Reason)
	require.ErrorContains(t, err, "wait for Job shop/web-migrate: not done after 2s: look at Job shop/web-migrate")
	assert.False(t, stages.IsPermanent(err))
}
