package otlp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/metric/otlp"
)

func Example() {
	receiver, err := otlp.New(otlp.Config{Keep: []string{"http.server.active_requests"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	server := httptest.NewServer(receiver) // in a program: a handler of its own server
	defer server.Close()

	// What an application, or a collector, would send.
	body := `{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
		"scopeMetrics":[{"metrics":[{"name":"http.server.active_requests","gauge":{"dataPoints":[{"asInt":"12"}]}}]}]}]}`
	resp, err := http.Post(server.URL+"/v1/metrics", "application/json", strings.NewReader(body))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()

	result, err := receiver.Query(context.Background(), metric.Query{Expression: `http.server.active_requests{service.name="shop"}`})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, sample := range result.Samples {
		fmt.Println(sample.Labels["service.name"], sample.Value)
	}
	// Output: shop 12
}
