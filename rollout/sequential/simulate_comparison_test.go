package sequential

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write COMPARISON.md")

const (
	minutes        = 60
	perMinute      = 1000
	canaryShare    = 0.1
	canaryRequests = perMinute * canaryShare
)

// contest is how the judges did on the streams of one kind.
type contest struct {
	stream string
	harm   bool // whether an alarm is right
	cells  []cell
}

// cell is how one judge did.
type cell struct {
	streams, alarms, safe int
	delays                []int // minutes until the alarm
}

// see follows one stream minute by minute; it is called once for each.
func (c *cell) see(look func(minute int) Outcome) {
	c.streams++
	for minute := range minutes {
		switch look(minute) {
		case Harm:
			c.alarms++
			c.delays = append(c.delays, minute+1)
			return
		case Safe:
			c.safe++
			return
		case Undecided:
		}
	}
}

// alarmed gives the share of alarms and the median number of canary requests
// until them.
func (c *cell) alarmed() string {
	text := fmt.Sprintf("%d %%", int(math.Round(100*float64(c.alarms)/float64(c.streams))))
	if c.alarms > 0 {
		slices.Sort(c.delays)
		text += fmt.Sprintf(" after %d", int(canaryRequests)*c.delays[len(c.delays)/2])
	}
	return text
}

// calm is the share of streams that were called safe.
func (c *cell) calm() string {
	return fmt.Sprintf("%d %%", int(math.Round(100*float64(c.safe)/float64(c.streams))))
}

// pointwise judges by one point a minute.
func pointwise(j judge, canary, baseline []float64) func(minute int) Outcome {
	return func(minute int) Outcome {
		if j(canary[:minute+1], baseline[:minute+1]) {
			return Harm
		}
		return Undecided
	}
}

// rates are a stream: the failure rates of both sides in each minute, and how
// many requests fail together.
type rates struct {
	canary, baseline func(minute int) float64
	clump            int
}

func always(rate float64) func(int) float64 { return func(int) float64 { return rate } }

// outage is a failure of something that both sides depend on.
func outage(rate float64) func(int) float64 {
	return func(minute int) float64 {
		if minute >= 20 && minute < 30 {
			return 0.05
		}
		return rate
	}
}

const (
	rateTolerance = 0.002
	rateLimit     = 1.0 // percent
)

func contestOfRates(t *testing.T, name string, harm bool, stream rates) contest {
	t.Helper()
	out := contest{stream: name, harm: harm, cells: make([]cell, 4)}
	dispersion := max(1, stream.clump)
	rate, err := NewRate(RateConfig{Tolerance: rateTolerance, Dispersion: float64(dispersion)})
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(12, uint64(len(name))))
	for range streams(t, 100) {
		var canary, baseline []float64
		var sums [minutes][2]Counts
		var c, b Counts
		for minute := range minutes {
			more := draw(rng, perMinute/dispersion, canaryShare) * dispersion
			others := perMinute - more
			failed := dispersion * draw(rng, more/dispersion, stream.canary(minute))
			failedOthers := dispersion * draw(rng, others/dispersion, stream.baseline(minute))
			canary = append(canary, 100*float64(failed)/float64(max(1, more)))
			baseline = append(baseline, 100*float64(failedOthers)/float64(others))
			c = Counts{c.Requests + uint64(more), c.Failures + uint64(failed)}
			b = Counts{b.Requests + uint64(others), b.Failures + uint64(failedOthers)}
			sums[minute] = [2]Counts{c, b}
		}
		out.cells[0].see(func(minute int) Outcome {
			return rate.decide(pair{canary: rate.side(sums[minute][0]), baseline: rate.side(sums[minute][1])})
		})
		out.cells[1].see(pointwise(flagger(rateLimit), canary, baseline))
		out.cells[2].see(pointwise(pipecd(), canary, baseline))
		out.cells[3].see(pointwise(kayenta(), canary, baseline))
	}
	return out
}

const latencyLimit = 0.25 // seconds

func contestOfLatencies(t *testing.T, name string, harm bool, canary, baseline func(float64) float64) contest {
	t.Helper()
	out := contest{stream: name, harm: harm, cells: make([]cell, 5)}
	quantile, err := NewQuantile(QuantileConfig{})
	require.NoError(t, err)
	rate, err := NewRate(RateConfig{Tolerance: 0.01})
	require.NoError(t, err)
	// The bounds of a native histogram of schema 3, which include 0.25.
	bounds := growing(0.25/math.Pow(2, 5), math.Pow(2, 0.125), 80)
	bounds[slices.IndexFunc(bounds, func(x float64) bool { return x > 0.2499 })] = latencyLimit
	slow, usual := bucketed(bounds, canary), bucketed(bounds, baseline)
	rng := rand.New(rand.NewPCG(13, uint64(len(name))))
	for range streams(t, 30) {
		var points, others []float64
		var histories [2][]Histogram
		c, b := slow.empty(), usual.empty()
		for range minutes {
			now, then := slow.empty(), usual.empty()
			more := draw(rng, perMinute, canaryShare)
			scatter(rng, more, slow.probabilities, now.Counts)
			scatter(rng, perMinute-more, usual.probabilities, then.Counts)
			points = append(points, now.quantile(0.99))
			others = append(others, then.quantile(0.99))
			c, b = sum(c, now), sum(b, then)
			histories[0], histories[1] = append(histories[0], c), append(histories[1], b)
		}
		out.cells[0].see(func(minute int) Outcome {
			lower, upper := quantile.ratio(quantile.ranks(histories[0][minute]).times(1, 0.99), quantile.ranks(histories[1][minute]).times(1, 0.99))
			return outcome(lower, upper, 1+DefaultQuantileTolerance)
		})
		out.cells[1].see(func(minute int) Outcome {
			c, err := histories[0][minute].Slower(latencyLimit)
			require.NoError(t, err)
			b, err := histories[1][minute].Slower(latencyLimit)
			require.NoError(t, err)
			return rate.decide(pair{canary: rate.side(c), baseline: rate.side(b)})
		})
		out.cells[2].see(pointwise(flagger(latencyLimit), points, others))
		out.cells[3].see(pointwise(pipecd(), points, others))
		out.cells[4].see(pointwise(kayenta(), points, others))
	}
	return out
}

func sum(a, b Histogram) Histogram {
	counts := slices.Clone(a.Counts)
	for i, count := range b.Counts {
		counts[i] += count
	}
	return Histogram{UpperBounds: a.UpperBounds, Counts: counts}
}

func mixed(share float64, a, b func(float64) float64) func(float64) float64 {
	return func(x float64) float64 { return share*a(x) + (1-share)*b(x) }
}

// The judges on the same streams. Where there is no harm, this package alarms in
// no more than its share; where there is harm, it finds it.
func TestComparison(t *testing.T) {
	usual := lognormal(0.05, 0.5)
	stalls := func(x float64) float64 { return float64(count(x >= 1)) }
	rows := []contest{
		contestOfRates(t, "0.2 % both", false, rates{canary: always(0.002), baseline: always(0.002)}),
		contestOfRates(t, "0.8 % both", false, rates{canary: always(0.008), baseline: always(0.008)}),
		contestOfRates(t, "5 % both", false, rates{canary: always(0.05), baseline: always(0.05)}),
		contestOfRates(t, "0.2 % both, an outage of 10 minutes with 5 % both", false, rates{canary: outage(0.002), baseline: outage(0.002)}),
		contestOfRates(t, "0.2 % both, 5 requests fail at a time", false, rates{canary: always(0.002), baseline: always(0.002), clump: 5}),
		contestOfRates(t, "0.2 % becomes 0.8 %", true, rates{canary: always(0.008), baseline: always(0.002)}),
		contestOfRates(t, "0.2 % becomes 1.5 %", true, rates{canary: always(0.015), baseline: always(0.002)}),
		contestOfRates(t, "0.2 % becomes 5 %", true, rates{canary: always(0.05), baseline: always(0.002)}),
		contestOfRates(t, "0.2 % becomes 30 %", true, rates{canary: always(0.3), baseline: always(0.002)}),
		contestOfRates(t, "5 % becomes 8 %", true, rates{canary: always(0.08), baseline: always(0.05)}),
	}
	latencies := []contest{
		contestOfLatencies(t, "log-normal both, the 99th percentile is 0.16 s", false, usual, usual),
		contestOfLatencies(t, "the same with a heavy tail, both", false, mixed(0.9, usual, pareto), mixed(0.9, usual, pareto)),
		contestOfLatencies(t, "1.5 times as slow", true, stretched(usual, 1.5), usual),
		contestOfLatencies(t, "2 times as slow", true, stretched(usual, 2), usual),
		contestOfLatencies(t, "4 times as slow", true, stretched(usual, 4), usual),
		contestOfLatencies(t, "3 % of the requests stall for 1 s", true, mixed(0.97, usual, stalls), usual),
	}
	for _, row := range rows {
		ours := row.cells[0]
		if !row.harm {
			assert.LessOrEqual(t, ours.alarms, mostWrong(ours.streams, DefaultAlpha), row.stream)
			continue
		}
		assert.Zero(t, ours.safe, row.stream)
		assert.GreaterOrEqual(t, ours.alarms, ours.streams/4, row.stream)
	}
	for _, row := range latencies {
		for _, ours := range row.cells[:2] {
			if !row.harm {
				assert.LessOrEqual(t, ours.alarms, mostWrong(ours.streams, DefaultAlpha), row.stream)
			}
		}
	}
	if *long || testing.Short() || runtime.GOARCH != "amd64" {
		t.Skip("COMPARISON.md has the numbers of the usual length on amd64")
	}
	got := comparison(rows, latencies)
	if *update {
		require.NoError(t, os.WriteFile("COMPARISON.md", []byte(got), 0o644))
	}
	want, err := os.ReadFile("COMPARISON.md")
	require.NoError(t, err)
	assert.Equal(t, string(want), got, "go test -run TestComparison -update writes it")
}

func comparison(rows, latencies []contest) string {
	var out strings.Builder
	fmt.Fprintf(&out, comparisonHead, minutes, perMinute, int(canaryRequests), rows[0].cells[0].streams, latencies[0].cells[0].streams)
	out.WriteString("## Failure rates\n\n| stream | harm? | this package, tolerance 0.2 points | called safe | Flagger, at most 1 % | PipeCD | Kayenta |\n|---|---|---|---|---|---|---|\n")
	for _, row := range rows {
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s | %s | %s |\n", row.stream, yes(row.harm), row.cells[0].alarmed(), row.cells[0].calm(), row.cells[1].alarmed(), row.cells[2].alarmed(), row.cells[3].alarmed())
	}
	out.WriteString("\n## 99th percentile of the latency\n\n| stream | harm? | this package, quantile, tolerance 25 % | called safe | this package, share slower than 0.25 s, tolerance 1 point | called safe | Flagger, at most 0.25 s | PipeCD | Kayenta |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, row := range latencies {
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", row.stream, yes(row.harm), row.cells[0].alarmed(), row.cells[0].calm(), row.cells[1].alarmed(), row.cells[1].calm(), row.cells[2].alarmed(), row.cells[3].alarmed(), row.cells[4].alarmed())
	}
	out.WriteString(comparisonFoot)
	return out.String()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

const comparisonHead = `# How the judges compare

Written by ` + "`go test -run TestComparison -update`" + `; the test fails if it isn't what is measured.

Each stream lasts %d minutes, with %d requests a minute of which about %d go to
the canary. Every judge sees the same streams: %d of each kind for failure
rates, %d for latencies. A cell gives in how many of them the judge gave up on
the canary, and after how many of its requests (the median). Where there is no
harm, every alarm is false. "Called safe" is how often this package said that the
increase is below the tolerance, which the others don't tell apart from "no alarm
so far".

- **This package** is asked every minute, with Alpha = Beta = 1 %%, which bounds
  false alarms over the whole hour, and Dispersion 5 where requests fail together.
- **Flagger** checks every minute whether the canary is within a fixed range, and
  rolls back after 5 failed checks.
- **PipeCD** compares canary and baseline every 5 minutes, by a one-sided
  Mann-Whitney test at 5 %% of the points of these minutes, and fails at the first
  failure.
- **Kayenta** judges all points so far every 10 minutes: Mann-Whitney at 98 %%
  confidence, tolerance 0.25 of the Hodges-Lehmann estimate, direction increase.

`

const comparisonFoot = `
Read with care: the fixed thresholds are as good as the knowledge they were chosen
with, and they need none of the baseline's traffic. The Mann-Whitney tests compare
points, one a minute, whatever number of requests is behind each. A canary 1.5
times as slow is beyond the tolerance of 25 % by little more than the width of a
bucket, and only 0.8 points more of its requests are slower than 0.25 s, which is
within that column's tolerance. What is undecided after the hour comes with how
many more requests it takes. The streams are simulated with independent requests,
except where the table says otherwise.
`
