package metric_test

import (
	"context"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/stages"
)

func ExampleNewThreshold() {
	source := metric.SourceFunc(func(_ context.Context, q metric.Query) (metric.Result, error) {
		fmt.Println("asked:", q.Expression)
		return metric.Result{Source: "a function", Samples: []metric.Sample{{Time: time.Now(), Value: 0.07}}}, nil
	})
	gate, err := metric.NewThreshold(metric.ThresholdConfig{
		Source:     source,
		Expression: `error_ratio{namespace="{{.Namespace}}",release="{{.Release}}"}`,
		Max:        new(0.01),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := gate.Decide(context.Background(), stages.Release{Name: "shop", Namespace: "prod", Revision: 2})
	fmt.Println(d.Verdict, d.Reasons[0].Rule, err)
	// Output:
	// asked: error_ratio{namespace="prod",release="shop"}
	// fail out-of-bounds <nil>
}

func ExampleNewComparison() {
	requests := 0.0
	source := metric.SourceFunc(func(_ context.Context, q metric.Query) (metric.Result, error) {
		requests += 4000
		failed := map[string]float64{`http_requests_total{release="shop-canary"}`: 0.08, `http_requests_total{release="shop"}`: 0.01}[q.Expression]
		sample := func(code string, share float64) metric.Sample {
			return metric.Sample{Labels: map[string]string{"code": code}, Time: time.Now(), Value: requests * share}
		}
		return metric.Result{Source: "a function", Samples: []metric.Sample{sample("200", 1-failed), sample("503", failed)}}, nil
	})
	gate, err := metric.NewComparison(metric.ComparisonConfig{
		Source:       source,
		Canary:       metric.Side{Requests: `http_requests_total{release="{{.Release}}"}`},
		Baseline:     metric.Side{Requests: `http_requests_total{release="{{.Vars.stable}}"}`},
		Vars:         metric.Vars{"stable": "shop"},
		FailureLabel: "code", FailurePattern: "5..",
		Watch: metric.Watch{Interval: time.Millisecond},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := gate.Decide(context.Background(), stages.Release{Name: "shop-canary", Namespace: "prod", Revision: 2})
	fmt.Println(d.Verdict, d.Reasons[0].Rule, err)
	// Output: fail failure-rate <nil>
}
