package sequential

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var long = flag.Bool("long", false, "simulate twenty times as many streams")

// streams is how many streams a simulation has.
func streams(t *testing.T, short int) int {
	t.Helper()
	switch {
	case *long:
		return 20 * short
	case testing.Short():
		return short/4 + 1
	}
	return short
}

// draw returns how many of n requests fail at a rate: the jumps between failures
// are geometric.
func draw(rng *rand.Rand, n int, rate float64) int {
	switch {
	case rate <= 0:
		return 0
	case rate >= 1:
		return n
	case rate > 0.5:
		return n - draw(rng, n, 1-rate)
	}
	jump := func() float64 { return math.Floor(math.Log(1-rng.Float64()) / math.Log1p(-rate)) }
	failures := 0
	for at := jump(); at < float64(n); at += 1 + jump() {
		failures++
	}
	return failures
}

// scatter distributes n requests over buckets.
func scatter(rng *rand.Rand, n int, probabilities []float64, into []uint64) {
	rest := 1.0
	for i, p := range probabilities {
		if n == 0 || rest <= 0 {
			return
		}
		count := draw(rng, n, min(1, p/rest))
		into[i] += uint64(count)
		n, rest = n-count, rest-p
	}
}

// mostWrong is how many of n streams may be wrong with a probability of at most
// bound each, but for one simulation in a thousand.
func mostWrong(n int, bound float64) int {
	return int(bound*float64(n) + 3.1*math.Sqrt(bound*(1-bound)*float64(n)))
}

// look is a split of a batch of requests.
type look func(rng *rand.Rand, step int, seen pair) (canary, baseline int)

// steady sends a share of the traffic to the canary, in batches that grow, so
// that a hundred looks reach far.
func steady(share float64) look {
	return func(rng *rand.Rand, step int, _ pair) (canary, baseline int) {
		batch := 100 + int(20*math.Pow(1.06, float64(step)))
		canary = draw(rng, batch, share)
		return canary, batch - canary
	}
}

// greedy sends the more to the canary the worse it looks, which is the worst
// that can happen to a test that takes the split for fixed.
func greedy(rng *rand.Rand, step int, seen pair) (canary, baseline int) {
	if seen.canary.rate() > seen.baseline.rate() {
		return steady(0.9)(rng, step, seen)
	}
	return steady(0.05)(rng, step, seen)
}

// tally counts the streams in which an outcome was ever said, and those in which
// the interval ever missed the truth.
type tally struct{ harm, safe, missed int }

func simulateRate(rate *Rate, next look, canary, baseline float64, n int) tally {
	var out tally
	rng := rand.New(rand.NewPCG(math.Float64bits(canary), math.Float64bits(baseline)))
	for range n {
		var c, b Counts
		said := map[Outcome]bool{}
		missed := false
		for step := range 100 {
			more, others := next(rng, step, pair{canary: rate.side(c), baseline: rate.side(b)})
			c.Requests, b.Requests = c.Requests+uint64(more), b.Requests+uint64(others)
			c.Failures += uint64(draw(rng, more, canary))
			b.Failures += uint64(draw(rng, others, baseline))
			said[rate.decide(pair{canary: rate.side(c), baseline: rate.side(b)})] = true
			if step%10 == 9 {
				lower, upper := pair{canary: rate.side(c), baseline: rate.side(b)}.interval(rate.config.Alpha, rate.config.Beta)
				missed = missed || lower > canary-baseline || upper < canary-baseline
			}
		}
		out.harm += count(said[Harm])
		out.safe += count(said[Safe])
		out.missed += count(missed)
	}
	return out
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A hundred looks at more than 100 000 requests: false alarms, false safety and
// missed intervals stay within their bounds, whatever the rate and the split.
func TestRateErrorsStayWithinBounds(t *testing.T) {
	const alpha, beta, tolerance = 0.1, 0.1, 0.002
	n := streams(t, 20)
	rate, err := NewRate(RateConfig{Alpha: alpha, Beta: beta, Tolerance: tolerance})
	require.NoError(t, err)
	for split, next := range map[string]look{"1:99": steady(0.01), "10:90": steady(0.1), "50:50": steady(0.5), "greedy": greedy} {
		for _, baseline := range []float64{0.001, 0.01, 0.2} {
			t.Run(fmt.Sprintf("%s at %g", split, baseline), func(t *testing.T) {
				// At the tolerance, where being wrong either way is likeliest.
				edge := simulateRate(rate, next, baseline+tolerance, baseline, n)
				assert.LessOrEqual(t, edge.harm, mostWrong(n, alpha), "false alarms of %d", n)
				assert.LessOrEqual(t, edge.safe, mostWrong(n, beta), "false safety of %d", n)
				assert.LessOrEqual(t, edge.missed, mostWrong(n, alpha+beta), "missed intervals of %d", n)
				t.Logf("of %d: %+v", n, edge)
				equal := simulateRate(rate, next, baseline, baseline, n)
				assert.LessOrEqual(t, equal.harm, mostWrong(n, alpha), "false alarms of %d", n)
			})
		}
	}
}

// Requests that fail in clumps of up to ten: with Dispersion the bound holds.
func TestDispersionKeepsTheBound(t *testing.T) {
	const alpha, clump, p = 0.1, 10, 0.02
	n := streams(t, 200)
	alarms := map[float64]int{}
	for _, dispersion := range []float64{1, clump} {
		rate, err := NewRate(RateConfig{Alpha: alpha, Tolerance: 1e-6, Dispersion: dispersion})
		require.NoError(t, err)
		rng := rand.New(rand.NewPCG(7, 8))
		for range n {
			var c, b Counts
			for range 60 {
				c.Requests, b.Requests = c.Requests+10*clump, b.Requests+10*clump
				c.Failures += clump * uint64(draw(rng, 10, p))
				b.Failures += clump * uint64(draw(rng, 10, p))
				if rate.decide(pair{canary: rate.side(c), baseline: rate.side(b)}) == Harm {
					alarms[dispersion]++
					break
				}
			}
		}
	}
	assert.LessOrEqual(t, alarms[clump], mostWrong(n, alpha))
	assert.Greater(t, alarms[1], mostWrong(n, alpha), "what Dispersion is for")
}

// latency is a distribution over buckets.
type latency struct {
	bounds        []float64
	probabilities []float64
}

// bucketed returns the probabilities of a distribution function's buckets.
func bucketed(bounds []float64, cdf func(x float64) float64) latency {
	l := latency{bounds: bounds}
	below := 0.0
	for _, bound := range bounds {
		p := 1.0
		if !math.IsInf(bound, 1) {
			p = cdf(bound)
		}
		l.probabilities = append(l.probabilities, p-below)
		below = p
	}
	return l
}

func (l latency) empty() Histogram {
	return Histogram{UpperBounds: l.bounds, Counts: make([]uint64, len(l.bounds))}
}

// growing returns n bounds that grow by a factor, and +Inf.
func growing(first, factor float64, n int) []float64 {
	var bounds []float64
	for i := range n {
		bounds = append(bounds, first*math.Pow(factor, float64(i)))
	}
	return append(bounds, math.Inf(1))
}

func lognormal(median, sigma float64) func(float64) float64 {
	return func(x float64) float64 { return 0.5 * math.Erfc(-math.Log(x/median)/(sigma*math.Sqrt2)) }
}

// pareto has no variance: its tail is as heavy as they come.
func pareto(x float64) float64 {
	if x < 0.01 {
		return 0
	}
	return 1 - math.Pow(0.01/x, 1.2)
}

func stretched(cdf func(float64) float64, factor float64) func(float64) float64 {
	return func(x float64) float64 { return cdf(x / factor) }
}

func TestQuantileErrorsStayWithinBounds(t *testing.T) {
	const alpha, beta = 0.1, 0.1
	n := streams(t, 16)
	classic := []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, math.Inf(1)}
	point := func(x float64) float64 { return float64(count(x >= 0.05)) }
	for name, test := range map[string]struct {
		bounds           []float64
		canary, baseline func(float64) float64
		ratio            float64 // the true one, of which the wrong outcome follows; 1: harm
	}{
		"equal":               {growing(0.005, 1.1, 60), lognormal(0.05, 0.5), lognormal(0.05, 0.5), 1},
		"heavy tail":          {growing(0.01, 1.1, 80), pareto, pareto, 1},
		"coarse buckets":      {classic, lognormal(0.05, 0.5), lognormal(0.05, 0.5), 1},
		"ties":                {classic, point, point, 1},
		"at the tolerance":    {growing(0.005, 1.25, 30), stretched(lognormal(0.05, 0.5), 1.25), lognormal(0.05, 0.5), 1.25},
		"beyond":              {growing(0.005, 1.1, 60), stretched(lognormal(0.05, 0.5), 1.3), lognormal(0.05, 0.5), 1.3},
		"beyond, heavy tail":  {growing(0.01, 1.1, 80), stretched(pareto, 1.3), pareto, 1.3},
		"beyond, few buckets": {classic, stretched(lognormal(0.05, 0.5), 1.3), lognormal(0.05, 0.5), 1.3},
	} {
		for _, q := range []float64{0.5, 0.99} {
			t.Run(fmt.Sprintf("%s at %g", name, q), func(t *testing.T) {
				quantile, err := NewQuantile(QuantileConfig{Quantile: q, Alpha: alpha, Beta: beta})
				require.NoError(t, err)
				rng := rand.New(rand.NewPCG(9, uint64(1000*q)))
				canary, baseline := bucketed(test.bounds, test.canary), bucketed(test.bounds, test.baseline)
				var alarms, safe, missed int
				for range n {
					c, b := canary.empty(), baseline.empty()
					said := map[Outcome]bool{}
					miss := false
					for step := range 32 {
						more, others := steady(0.2)(rng, 3*step, pair{})
						scatter(rng, more, canary.probabilities, c.Counts)
						scatter(rng, others, baseline.probabilities, b.Counts)
						lower, upper := quantile.ratio(quantile.ranks(c).times(1, q), quantile.ranks(b).times(1, q))
						said[outcome(lower, upper, 1+DefaultQuantileTolerance)] = true
						miss = miss || lower > test.ratio || upper < test.ratio
					}
					alarms, safe, missed = alarms+count(said[Harm]), safe+count(said[Safe]), missed+count(miss)
				}
				if test.ratio <= 1.25 {
					assert.LessOrEqual(t, alarms, mostWrong(n, alpha), "false alarms of %d", n)
				}
				if test.ratio > 1.25 {
					assert.LessOrEqual(t, safe, mostWrong(n, beta), "false safety of %d", n)
				}
				assert.LessOrEqual(t, missed, mostWrong(n, alpha+beta), "missed intervals of %d", n)
				t.Logf("of %d: %d harm, %d safe, %d missed", n, alarms, safe, missed)
			})
		}
	}
}

// The simulations draw from what they say they draw from.
func TestDraw(t *testing.T) {
	rng := rand.New(rand.NewPCG(10, 11))
	for _, rate := range []float64{0.001, 0.05, 0.3, 0.9} {
		const n, rounds = 500, 2000
		var sum, squares float64
		for range rounds {
			k := float64(draw(rng, n, rate))
			sum, squares = sum+k, squares+k*k
		}
		mean := sum / rounds
		assert.InDelta(t, n*rate, mean, 4*math.Sqrt(n*rate*(1-rate)/rounds), "rate %g", rate)
		assert.InEpsilon(t, n*rate*(1-rate), squares/rounds-mean*mean, 0.15, "rate %g", rate)
	}
}
