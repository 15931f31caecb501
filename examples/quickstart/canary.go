package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/load"
	"github.com/fairlead-dev/fairlead/e2e/sandbox"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/metric/prometheus"
	"github.com/fairlead-dev/fairlead/rollout/sequential"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// requestsOf are a release's requests as the sample service counts them, and
// Prometheus labels them.
const requestsOf = `http_requests_total{namespace="{{.Namespace}}",release="%s"}`

// newCanary has a new version beside the old one take half of the requests until
// it is shown to do no harm, or to do some. Both are the same chart, behind the
// Service of the stable one.
func newCanary(cluster *rest.Config, metrics, app, namespace string) (*traffic.Canary, error) {
	stable, err := newDeployer(cluster, app, namespace, "shop", stableValues)
	if err != nil {
		return nil, err
	}
	canary, err := newDeployer(cluster, app, namespace, "shop-canary", helmx.Values{Overrides: []helmx.Override{
		helmx.Set("service.canary=true"), helmx.Set("replicaCount=1"), // one is verified, and its traffic brings more
	}})
	if err != nil {
		return nil, err
	}
	ready, err := rollout.New(rollout.Config{REST: cluster})
	if err != nil {
		return nil, err
	}
	router, err := traffic.NewReplicas(traffic.ReplicasConfig{
		REST: cluster, Namespace: namespace, Service: "shop", Stable: "shop", Canary: "shop-canary",
	})
	if err != nil {
		return nil, err
	}
	state, err := traffic.NewConfigMap(traffic.ConfigMapConfig{REST: cluster, Namespace: namespace, Release: "shop"})
	if err != nil {
		return nil, err
	}
	errorRate, err := newErrorGate(metrics)
	if err != nil {
		return nil, err
	}
	return traffic.NewCanary(traffic.CanaryConfig{
		Stable: stable, Canary: canary, Verifiers: []stages.Verifier{ready}, Router: router, State: state,
		Steps:       []traffic.Step{{Weight: 50, Gates: []stages.Gate[stages.Release]{errorRate}}},
		Interval:    5 * time.Second,
		GateTimeout: 2 * time.Minute,
	})
}

// newErrorGate compares the canary's failures with those of the stable release. It
// may look every second: the comparison stays honest under any number of looks.
func newErrorGate(metrics string) (stages.Gate[stages.Release], error) {
	source, err := prometheus.New(prometheus.Config{URL: metrics})
	if err != nil {
		return nil, err
	}
	return metric.NewComparison(metric.ComparisonConfig{
		Name: "error-rate", Source: source,
		Canary:       metric.Side{Requests: fmt.Sprintf(requestsOf, "{{.Release}}")},
		Baseline:     metric.Side{Requests: fmt.Sprintf(requestsOf, "{{.Vars.stable}}")},
		Vars:         metric.Vars{"stable": "shop"},
		FailureLabel: "code", FailurePattern: "5..",
		Rate:  sequential.RateConfig{Tolerance: 0.05},
		Watch: metric.Watch{Interval: 2 * time.Second, Timeout: 100 * time.Second},
	})
}

// visitors are who the canary is tried on.
type visitors struct{ *load.Generator }

func invite(ctx context.Context, box *sandbox.Sandbox, namespace string) (visitors, error) {
	url, err := box.ServiceURL(ctx, namespace, "shop")
	if err != nil {
		return visitors{}, err
	}
	g, err := load.Start(ctx, load.Config{URL: url, Rate: 60})
	return visitors{g}, err
}

// leave ends the visits and says how they went.
func (v visitors) leave(w io.Writer) error {
	report := v.Stop()
	_, _ = fmt.Fprintf(w, "   visitors: %s\n", report)
	if report.LostTotal() > 0 {
		return fmt.Errorf("%d requests were answered by no version", report.LostTotal())
	}
	return nil
}
