package metric_test

import (
	"context"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestBurnRateWatchesRequests is about releases that get their first requests three
// minutes after the deployment, as canaries do that have to be verified.
func TestBurnRateWatchesRequests(t *testing.T) {
	const silent = 3 * time.Minute
	for name, test := range map[string]struct {
		waited      time.Duration // from the deployment to the gate
		outages     []outage
		verdict     stages.Verdict
		least, most time.Duration // from the first request on
	}{
		"calm":                       {silent, nil, stages.Pass, 90 * time.Second, 2 * time.Minute},
		"calm, asked before":         {time.Minute, nil, stages.Pass, 90 * time.Second, 2 * time.Minute},
		"calm, asked in between":     {silent + time.Minute, nil, stages.Pass, 90 * time.Second, 2 * time.Minute},
		"calm, asked late":           {silent + 5*time.Minute, nil, stages.Pass, 5 * time.Minute, 5 * time.Minute},
		"a blip at the first":        {silent + 15*time.Second, []outage{{silent, silent + 5*time.Second, 0.5}}, stages.Pass, 90 * time.Second, 2 * time.Minute},
		"a blip just now":            {silent + 15*time.Second, []outage{{silent + 13*time.Second, silent + 16*time.Second, 0.5}}, stages.Pass, 90 * time.Second, 2 * time.Minute},
		"a blip before the gate":     {silent + 40*time.Second, []outage{{silent + 36*time.Second, silent + 39*time.Second, 0.5}}, stages.Pass, 90 * time.Second, 2 * time.Minute},
		"all fails":                  {silent, []outage{{silent, long, 1}}, stages.Fail, 15 * time.Second, time.Minute},
		"all fails, asked later":     {silent + time.Minute, []outage{{silent, long, 1}}, stages.Fail, time.Minute, time.Minute},
		"all fails after some time":  {silent, []outage{{silent + time.Minute, long, 1}}, stages.Fail, time.Minute, 90 * time.Second},
		"all fails, and long before": {silent + time.Hour, []outage{{silent, long, 1}}, stages.Fail, time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rel := release()
				rel.Previous, rel.Deployed = 0, rel.Deployed.Add(-test.waited)
				d := decide(t, budget(t, service{deployed: rel.Deployed, silent: silent, outages: test.outages}, nil), rel)
				assert.Equal(t, test.verdict, d.Verdict, "%+v", d)
				took := time.Since(rel.Deployed) - silent
				assert.True(t, test.least <= took && took <= test.most, "%s after the first request", took)
			})
		})
	}
}

// TestBurnRateWatchesTheReleasesRequests: those of others that the ratio is about as
// well don't count as watched.
func TestBurnRateWatchesTheReleasesRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rel := release()
		rel.Deployed = rel.Deployed.Add(-3 * time.Minute)
		all, own := service{deployed: rel.Deployed}, service{deployed: rel.Deployed, silent: 3 * time.Minute}
		source := metric.SourceFunc(func(ctx context.Context, q metric.Query) (metric.Result, error) {
			if strings.HasPrefix(q.Expression, "requests") {
				return own.Query(ctx, q)
			}
			return all.Query(ctx, q)
		})
		began := time.Now()
		d := decide(t, budget(t, source, func(c *metric.BurnRateConfig) { c.Traffic, c.MinTraffic = "requests[{{.Window}}]", 50 }), rel)
		assert.Equal(t, stages.Pass, d.Verdict, "%+v", d)
		assert.GreaterOrEqual(t, time.Since(began), 90*time.Second)
	})
}

func TestBurnRateAllowsTooLittleTraffic(t *testing.T) {
	for name, s := range map[string]service{
		"none":                 {silent: long},
		"some":                 {silent: 4*time.Minute + 30*time.Second},
		"some failed, earlier": {silent: 4 * time.Minute, outages: []outage{{4 * time.Minute, 4*time.Minute + 10*time.Second, 1}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			rel := release()
			rel.Previous, s.deployed = 0, rel.Deployed
			d := decide(t, budget(t, s, func(c *metric.BurnRateConfig) {
				c.Traffic, c.MinTraffic, c.Watch.AllowUndecided = "requests[{{.Window}}]", 900, true
			}), rel)
			assert.Equal(t, stages.Pass, d.Verdict, "%s: %+v", name, d)
			assert.Equal(t, []string{"too-little-traffic"}, rules(d.Warnings), name)
		})
	}
}

// TestBurnRateAllowsNoJumps is about what burns evenly since the deployment: how much
// of it is allowed changes little from one age to the next, so that a release isn't
// harmful just because it is a minute older.
func TestBurnRateAllowsNoJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rel := release()
		now := rel.Deployed
		allowed := func(age time.Duration) float64 {
			rel.Deployed = now.Add(-age)
			share := sort.Search(1000, func(permille int) bool {
				s := service{deployed: rel.Deployed, outages: []outage{{0, long, float64(permille) / 20000}}}
				return decide(t, budget(t, s, nil), rel).Verdict == stages.Fail
			})
			return float64(share) / 20
		}
		before := allowed(10 * time.Minute)
		assert.InDelta(t, 14.4, before, 0.1)
		for age := 10 * time.Minute; age < 80*time.Hour; age = age * 51 / 50 {
			now = time.Now() // deciding takes its time
			most := allowed(age)
			assert.InDelta(t, before, most, 0.03*before+0.1, "at the age of %s", age)
			before = most
		}
		assert.InDelta(t, 1, before, 0.1)
	})
}

// TestBurnRateKnowsWhetherItGoesOn is about what is scraped every minute: no window
// shorter than two has a rate.
func TestBurnRateKnowsWhetherItGoesOn(t *testing.T) {
	for name, test := range map[string]struct {
		outages []outage
		every   time.Duration
		verdict stages.Verdict
		after   time.Duration
		reason  []string
	}{
		"it goes on":              {[]outage{{0, long, 1}}, time.Minute, stages.Fail, 135 * time.Second, []string{"budget-burning"}},
		"it is over":              {[]outage{{3 * time.Second, 8 * time.Second, 1}}, time.Minute, stages.Pass, 135 * time.Second, nil},
		"it can't be known":       {[]outage{{0, long, 1}}, 150 * time.Second, stages.Inconclusive, metric.DefaultTimeout, []string{"burning-unclear"}},
		"calm, and it's the same": {nil, 150 * time.Second, stages.Pass, metric.DefaultTimeout, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rel := release()
				scraped := service{deployed: rel.Deployed, outages: test.outages, every: test.every}
				d := decide(t, budget(t, scraped, func(c *metric.BurnRateConfig) { c.Watch.AllowUndecided = true }), rel)
				assert.Equal(t, test.verdict, d.Verdict, "%+v", d)
				assert.Equal(t, test.after, time.Since(rel.Deployed))
				assert.Equal(t, test.reason, rules(d.Reasons))
			})
		})
	}
}
