package prometheus_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/metric/prometheus"
	"github.com/fairlead-dev/fairlead/stages"
)

func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now, value, labels := time.Now().Unix(), "0.031", `{"job":"shop"}`
		if strings.Contains(r.FormValue("query"), "timestamp(") {
			value = fmt.Sprint(now) // scraped just now
		}
		_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":%s,"value":[%d,%q]}]}}`, labels, now, value)
	}))
	defer server.Close()

	source, err := prometheus.New(prometheus.Config{
		URL:         server.URL,
		BearerToken: func(context.Context) (string, error) { return "from a vault", nil },
		Headers:     map[string]string{"X-Scope-OrgID": "acme"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer source.Close()
	gate, err := metric.NewThreshold(metric.ThresholdConfig{
		Source:     source,
		Expression: `job:error_ratio:rate1m{job="{{.Release}}"}`,
		Max:        new(0.01),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := gate.Decide(context.Background(), stages.Release{Name: "shop", Namespace: "prod", Revision: 3})
	fmt.Println(d.Verdict, err)
	// Output: fail <nil>
}
