package e2e_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/e2e/load"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// public makes the service reachable from this machine.
var public = helmx.Set("service.type=NodePort")

// shopDeployer deploys the sample service's chart with these values.
func (w *world) shopDeployer(t *testing.T, namespace, name string, values ...helmx.Override) *helmx.Deployer {
	t.Helper()
	d, err := helmx.New(helmx.Config{
		Chart: chartDir, Release: name, Namespace: namespace, CreateNamespace: true,
		Values:     helmx.Values{Overrides: values},
		Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
		Kubernetes: helmx.Kubernetes{REST: w.rest},
	})
	require.NoError(t, err)
	return d
}

// crowd is load on the sample service, which is stopped with the test at latest.
func (w *world) crowd(t *testing.T, namespace string) *load.Generator {
	t.Helper()
	ctx := labtest.Context(t)
	url, err := w.box.ServiceURL(ctx, namespace, release)
	require.NoError(t, err)
	g, err := load.Start(ctx, load.Config{URL: url})
	require.NoError(t, err)
	t.Cleanup(func() { g.Stop() })
	return g
}

// requireUnharmed ends the load and checks that each request was served, but for
// those that a version named in bad had to fail by itself.
func requireUnharmed(t *testing.T, g *load.Generator, bad ...string) load.Report {
	t.Helper()
	report := g.Stop()
	t.Logf("MEASURED requests: %s", report)
	assert.Empty(t, report.Lost, "requests that no version answered")
	for version, tally := range report.Versions {
		if !slices.Contains(bad, version) {
			assert.Zero(t, tally.Failed, "requests that version %s failed", version)
		}
	}
	return report
}

// TestRolloutsLoseNoRequest sends requests all through an upgrade and the crash
// and rollback of another.
func TestRolloutsLoseNoRequest(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	cfg := w.delivery(t, ns)
	cfg.Deployer = w.shopDeployer(t, ns, release, public)
	deliver := func(src stages.Source) (*pipeline.Result, error) {
		p, err := pipeline.New(cfg)
		require.NoError(t, err)
		return p.Run(labtest.Context(t), src)
	}

	// An install has nobody to serve before it is there; from its first answer on
	// everybody is served.
	firstAnswer := make(chan *load.Generator, 1)
	go func() {
		defer close(firstAnswer)
		if url := w.awaitPage(labtest.Context(t), ns); url != "" {
			if g, err := load.Start(labtest.Context(t), load.Config{URL: url}); err == nil {
				firstAnswer <- g
			}
		}
	}()
	_, err := deliver(source("1.0.0"))
	require.NoError(t, err)
	guests := <-firstAnswer
	require.NotNil(t, guests, "the service never answered")
	report := requireUnharmed(t, guests)
	assert.NotZero(t, report.Versions["1.0.0"].Served)

	guests = w.crowd(t, ns)
	_, err = deliver(source("1.1.0"))
	require.NoError(t, err)
	report = requireUnharmed(t, guests)
	assert.NotZero(t, report.Versions["1.0.0"].Served)
	assert.NotZero(t, report.Versions["1.1.0"].Served)

	guests = w.crowd(t, ns)
	result, err := deliver(source("1.2.0", crashing))
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.Equal(t, pipeline.OutcomeRolledBack, result.Outcome)
	report = requireUnharmed(t, guests)
	assert.Len(t, report.Versions, 1, "only the version that works has answered")
}

// awaitPage returns the URL of the sample service once it answers.
func (w *world) awaitPage(ctx context.Context, namespace string) string {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ""
		case <-tick.C:
		}
		if _, err := w.page(ctx, namespace); err != nil {
			continue
		}
		if url, err := w.box.ServiceURL(ctx, namespace, release); err == nil {
			return url
		}
	}
}
