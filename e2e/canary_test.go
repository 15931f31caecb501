package e2e_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/e2e/load"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/rollout/metric/prometheus"
	"github.com/fairlead-dev/fairlead/rollout/sequential"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	// What is tolerated of a release, and what a bad one is built with.
	toleratedRate    = 0.05
	toleratedLatency = 100 * time.Millisecond
	failing          = "FAIL_RATE=0.2"
	slow             = "SLOW=300ms"

	// gateTimeout is more than a gate needs once Prometheus has found the new pods.
	gateTimeout = time.Minute
)

// Expressions are of raw counters: the gates count by themselves.
const (
	requestsOf = `http_requests_total{namespace="{{.Namespace}}",release="{{.Release}}"}`
	latencyOf  = `http_request_duration_seconds_bucket{namespace="{{.Namespace}}",release="{{.Release}}"}`
	ofStable   = `http_requests_total{namespace="{{.Namespace}}",release="{{.Vars.stable}}"}`
)

// errorGate holds a release's failures against those of the stable release beside
// it or, without one, to what is tolerated.
func (w *world) errorGate(t *testing.T, stable string) stages.Gate[stages.Release] {
	t.Helper()
	config := metric.ComparisonConfig{
		Name: "error-rate", Source: w.metrics(t),
		Canary:       metric.Side{Requests: requestsOf},
		FailureLabel: "code", FailurePattern: "5..",
		Watch: metric.Watch{Interval: time.Second, Timeout: gateTimeout},
	}
	if stable == "" {
		config.MaxFailureRate = toleratedRate
	} else {
		config.Baseline = metric.Side{Requests: ofStable}
		config.Vars = metric.Vars{"stable": stable}
		config.Rate = sequential.RateConfig{Tolerance: toleratedRate}
	}
	gate, err := metric.NewComparison(config)
	require.NoError(t, err)
	return gate
}

// latencyGate holds nine of ten requests of a release to what is tolerated.
func (w *world) latencyGate(t *testing.T) stages.Gate[stages.Release] {
	t.Helper()
	gate, err := metric.NewComparison(metric.ComparisonConfig{
		Name: "latency", Source: w.metrics(t),
		Canary:     metric.Side{Latency: latencyOf},
		MaxLatency: toleratedLatency,
		Quantile:   sequential.QuantileConfig{Quantile: 0.9},
		Watch:      metric.Watch{Interval: time.Second, Timeout: gateTimeout},
	})
	require.NoError(t, err)
	return gate
}

func (w *world) metrics(t *testing.T) metric.Source {
	t.Helper()
	source, err := prometheus.New(prometheus.Config{URL: w.prometheus(t)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, source.Close()) })
	return source
}

// timed logs how long a gate took over a version, and how many of its requests.
type timed struct {
	stages.Gate[stages.Release]
	t       *testing.T
	guests  *load.Generator
	version string
}

func (g *timed) Decide(ctx context.Context, rel stages.Release) (stages.Decision, error) {
	began := time.Now()
	d, err := g.Gate.Decide(ctx, rel)
	tally := g.guests.Report().Versions[g.version]
	if ctx.Err() == nil {
		g.t.Logf("MEASURED verdict: %s says %s of %s %.1f s after its first answer, %.1f s after it was asked; %d of its requests served, %d failed; %v",
			d.Gate, d.Verdict, g.version, time.Since(tally.First).Seconds(), time.Since(began).Seconds(), tally.Served, tally.Failed, d.Reasons)
	}
	return d, err
}

// Series passes on that the gate counts through the looks of a step.
func (g *timed) Series(of int) stages.Gate[stages.Release] {
	return &timed{stages.GateSeries(g.Gate, of), g.t, g.guests, g.version}
}

// canaryDelivery is the sample service's pipeline with a canary, which half of the
// requests go to until the gates are sure of it.
func (w *world) canaryDelivery(t *testing.T, namespace string, gates ...stages.Gate[stages.Release]) (pipeline.Config, *traffic.Canary) {
	t.Helper()
	parts, err := canaryParts(w.rest, namespace, helmx.LockConfig{})
	require.NoError(t, err)
	parts.Steps = []traffic.Step{{Weight: 50, Gates: gates}}
	parts.Interval, parts.GateTimeout, parts.Drain = time.Second, gateTimeout+10*time.Second, 0
	canary, err := traffic.NewCanary(parts)
	require.NoError(t, err)
	cfg := w.delivery(t, namespace)
	cfg.Deployer = canary
	cfg.Observers = append(cfg.Observers, pipeline.ObserverFunc(func(e pipeline.Event) {
		if e.Kind == pipeline.KindProgress && e.Stage == pipeline.StageDeploy {
			t.Logf("deploy %s", e.Message)
		}
	}))
	return cfg, canary
}

// TestMetricsDecideOnCanaries delivers three canaries under load, which Prometheus
// measures: a healthy one, one that fails too often and one that is too slow.
func TestMetricsDecideOnCanaries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.prometheus(t)
	ns := w.namespace(t)
	cfg, _ := w.canaryDelivery(t, ns)
	first, err := run(t, cfg, source("1.0.0"))
	require.NoError(t, err, "the first install needs no canary")
	stable, serves := "1.0.0", first.Image

	for _, c := range []struct {
		version, flaw string
		caughtBy      string // a gate, if it isn't to be promoted
	}{
		{version: "1.1.0"},
		{version: "1.2.0", flaw: failing, caughtBy: "error-rate"},
		{version: "1.3.0", flaw: slow, caughtBy: "latency"},
	} {
		ok := t.Run(c.version+" "+c.flaw, func(t *testing.T) {
			guests := w.crowd(t, ns)
			cfg, canary := w.canaryDelivery(t, ns,
				&timed{w.errorGate(t, release), t, guests, c.version}, &timed{w.latencyGate(t), t, guests, c.version})
			src := source(c.version)
			if c.flaw != "" {
				src = source(c.version, c.flaw)
			}
			began := time.Now()
			result, err := run(t, cfg, src)
			t.Logf("MEASURED delivery: %s in %.1f s", result.Outcome, time.Since(began).Seconds())
			if c.caughtBy == "" {
				require.NoError(t, err)
				stable, serves = c.version, result.Image
			} else {
				aborted := requireAborted(t, err)
				require.NotEmpty(t, aborted.Decisions)
				assert.Equal(t, c.caughtBy, aborted.Decisions[0].Gate)
				assert.Equal(t, stages.Fail, aborted.Decisions[0].Verdict)
				requireSaid(t, err, c.version)
			}
			w.requireNoCanary(t, canary, ns, stable, serves)
			report := requireUnharmed(t, guests, c.version)
			assert.NotZero(t, report.Versions[c.version].Served+report.Versions[c.version].Failed, "the canary had traffic")
			if c.flaw != failing {
				assert.Zero(t, report.Versions[c.version].Failed, "only the version that is built to may fail")
			}
		})
		if !ok {
			return
		}
	}
}

// TestMetricGateRollsBack has a plain delivery's release gate look at what
// Prometheus measures, once the new version serves everybody.
func TestMetricGateRollsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.prometheus(t)
	ns := w.namespace(t)
	cfg := w.delivery(t, ns)
	cfg.Deployer = w.shopDeployer(t, ns, release, public)
	_, err := run(t, cfg, source("1.0.0"))
	require.NoError(t, err)

	guests := w.crowd(t, ns)
	cfg.Deployer = w.shopDeployer(t, ns, release, public)
	cfg.ReleaseGates = []stages.Gate[stages.Release]{&timed{w.errorGate(t, ""), t, guests, "1.1.0"}}
	result, err := run(t, cfg, source("1.1.0"))
	require.NoError(t, err)
	assert.Equal(t, pipeline.OutcomeReleased, result.Outcome)
	requireUnharmed(t, guests)

	guests = w.crowd(t, ns)
	cfg.Deployer = w.shopDeployer(t, ns, release, public)
	cfg.ReleaseGates = []stages.Gate[stages.Release]{&timed{w.errorGate(t, ""), t, guests, "1.2.0"}}
	result, err = run(t, cfg, source("1.2.0", failing))
	require.ErrorIs(t, err, stages.ErrGateRefused)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.Equal(t, pipeline.OutcomeRolledBack, result.Outcome)
	requireSaid(t, err, "1.2.0")
	w.requireBack(t, ns, "1.1.0")
	report := requireUnharmed(t, guests, "1.2.0")
	assert.NotZero(t, report.Versions["1.2.0"].Failed)
}

// requireSaid finds what the pods of the version that was refused had written, which
// nothing tells of once they are gone.
func requireSaid(t *testing.T, err error, version string) {
	t.Helper()
	failure, ok := errors.AsType[*pipeline.Error](err)
	require.True(t, ok, "%v", err)
	var logs []string
	for _, e := range failure.Evidence {
		logs = append(logs, e.Logs...)
	}
	assert.Contains(t, strings.Join(logs, "\n"), "shop "+version+" listens")
}

// requireBack waits until the version serves alone again. A restored release is
// compared with its record; that the pods follow takes the cluster a moment, in
// which those of the bad version still answer.
func (w *world) requireBack(t *testing.T, namespace, version string) {
	t.Helper()
	const inARow = 10
	ctx := labtest.Context(t)
	restored, streak := time.Now(), 0
	require.Eventually(t, func() bool {
		if body, err := w.page(ctx, namespace); err != nil || body != "shop "+version+": welcome\n" {
			streak = 0
		} else {
			streak++
		}
		return streak == inARow
	}, time.Minute, 100*time.Millisecond)
	t.Logf("MEASURED rollback: %s serves alone %.1f s after the restore", version, (time.Since(restored) - inARow*100*time.Millisecond).Seconds())
}
