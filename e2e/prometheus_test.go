package e2e_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
)

// prometheus is the URL of the cluster's Prometheus, which is started for the
// first test that asks.
func (w *world) prometheus(t *testing.T) string {
	t.Helper()
	theWorld.Lock()
	defer theWorld.Unlock()
	require.NoError(t, w.box.RunPrometheus(labtest.Context(t)))
	return w.box.Prometheus
}

// series asks Prometheus for the present series of an expression.
func series(t require.TestingT, prometheus, expression string) []map[string]string {
	response, err := http.Get(prometheus + "/api/v1/query?query=" + url.QueryEscape(expression))
	require.NoError(t, err)
	defer response.Body.Close()
	var answer struct {
		Status string
		Data   struct {
			Result []struct{ Metric map[string]string }
		}
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&answer))
	require.Equal(t, "success", answer.Status)
	var found []map[string]string
	for _, r := range answer.Data.Result {
		found = append(found, r.Metric)
	}
	return found
}

// TestPrometheusFindsTheSample proves that a real Prometheus understands what the
// sample service says of itself, and how soon it knows of a new pod.
func TestPrometheusFindsTheSample(t *testing.T) {
	w := newWorld(t)
	address := w.prometheus(t)
	ns := w.namespace(t)
	_, err := run(t, w.delivery(t, ns), source("1.0.0"))
	require.NoError(t, err)
	ready := time.Now()
	mine := `{namespace="` + ns + `",release="` + release + `"}`
	require.EventuallyWithT(t, func(t *assert.CollectT) { assert.Len(t, series(t, address, "up"+mine+" == 1"), 2) }, time.Minute, 200*time.Millisecond,
		"both replicas are scraped")
	t.Logf("MEASURED %s from the end of the delivery until both replicas are scraped", time.Since(ready).Round(100*time.Millisecond))
	for _, s := range series(t, address, "http_requests_total"+mine) {
		assert.Equal(t, "1.0.0", s["version"])
		assert.Contains(t, []string{"200", "500"}, s["code"])
	}
	assert.Len(t, series(t, address, "http_request_duration_seconds_bucket"+mine), 2*12)
}
