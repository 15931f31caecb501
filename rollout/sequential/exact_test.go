package sequential

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// binomial returns the logarithm of the probability of k of n at the rate q.
func binomial(n, k int, q float64) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c + float64(k)*math.Log(q) + float64(n-k)*math.Log1p(-q)
}

// The evidence against the true rate is at most 1 on average, after any number
// of requests; exactly 1 but for the bets at the odds of a Poisson distribution.
func TestEvidenceIsFair(t *testing.T) {
	for _, q := range []float64{0.0005, 0.01, 0.3, 0.99} {
		for _, n := range []int{1, 2, 10, 100, 1000} {
			var mean, fair float64
			for k := range n + 1 {
				s := newSide(float64(k), float64(n-k))
				won := s.winnings(q)
				mean += math.Exp(binomial(n, k, q) + s.against(q))
				fair += math.Exp(binomial(n, k, q) + won[0])
			}
			assert.LessOrEqual(t, mean, 1+1e-9, "q=%g n=%d", q, n)
			assert.InDelta(t, shareAbsolute, fair, 1e-9, "q=%g n=%d", q, n)
			if q <= 0.01 {
				assert.Greater(t, mean, 0.9, "q=%g n=%d", q, n)
			}
		}
	}
}

// The mean over what the next request may tell is at most what is known now.
func TestEvidenceIsASupermartingale(t *testing.T) {
	for _, q := range []float64{0.001, 0.2} {
		for _, counts := range [][2]float64{{0, 0}, {0, 7}, {3, 40}, {12, 100_000}, {1e6, 1e9}} {
			var now float64 // with nothing known, the whole stake
			if counts != [2]float64{} {
				now = newSide(counts[0], counts[1]).against(q)
			}
			failed, succeeded := newSide(counts[0]+1, counts[1]).against(q), newSide(counts[0], counts[1]+1).against(q)
			next := logSum([]float64{math.Log(q) + failed, math.Log1p(-q) + succeeded})
			assert.LessOrEqual(t, next, now+1e-9*max(1, math.Abs(now)), "q=%g after %v", q, counts)
		}
	}
}

// The slope is that of the evidence.
func TestSlope(t *testing.T) {
	for _, s := range []side{newSide(0, 40), newSide(30, 1000), newSide(1e6, 1e9), newSide(7, 0)} {
		for _, q := range []float64{0.0001, 0.02, 0.5, 0.97} {
			const h = 1e-7
			_, slope := s.rising(q)
			assert.InEpsilon(t, 1, slope/((s.against(q+h)-s.against(q-h))/(2*h)), 1e-3, "%v at %g", s, q)
		}
	}
}

// Requests that fail together in clumps of at most Dispersion leave the evidence
// at 1 or less on average, also if clumps are smaller or fail only in part.
func TestDispersionCoversClumps(t *testing.T) {
	const dispersion, clumps = 5.0, 60
	for _, q := range []float64{0.01, 0.3} {
		for size := 1.0; size <= dispersion; size++ {
			var mean float64
			for k := range clumps + 1 {
				failed, whole := float64(k)*size/dispersion, float64(clumps-k)*size/dispersion
				mean += math.Exp(binomial(clumps, k, q) + newSide(failed, whole).against(q))
			}
			assert.LessOrEqual(t, mean, 1+1e-9, "q=%g clumps of %g", q, size)
		}
	}
	// Without it, clumps break the bound.
	var mean float64
	for k := range clumps + 1 {
		mean += math.Exp(binomial(clumps, k, 0.3) + newSide(float64(k)*dispersion, float64(clumps-k)*dispersion).against(0.3))
	}
	assert.Greater(t, mean, 10.0)
}

// The probability of ever being wrong at the limit, by enumeration: no sampling.
func TestAgainstNeverExceedsItsErrors(t *testing.T) {
	const alpha, beta = 0.05, 0.1
	rate, err := NewRate(RateConfig{Alpha: alpha, Beta: beta})
	require.NoError(t, err)
	for _, limit := range []float64{0.003, 0.02, 0.2} {
		wrong := map[Outcome]float64{}
		alive := []float64{1} // the probability of k failures and no decision so far
		for n := 1; n <= 600; n++ {
			next := make([]float64, n+1)
			for k, p := range alive {
				next[k] += p * (1 - limit)
				next[k+1] += p * limit
			}
			for k := range next {
				if outcome := rate.decideAgainst(newSide(float64(k), float64(n-k)), limit); outcome != Undecided {
					wrong[outcome] += next[k]
					next[k] = 0
				}
			}
			alive = next
		}
		assert.LessOrEqual(t, wrong[Harm], alpha, "limit %g", limit)
		assert.LessOrEqual(t, wrong[Safe], beta, "limit %g", limit)
		t.Logf("limit %g: false harm %.4f of %g, false safe %.4f of %g", limit, wrong[Harm], alpha, wrong[Safe], beta)
	}
}

// The same for two sides at the tolerance, looked at after every second request.
func TestCompareNeverExceedsItsErrors(t *testing.T) {
	const alpha, beta, horizon = 0.1, 0.1, 50
	rate, err := NewRate(RateConfig{Alpha: alpha, Beta: beta, Tolerance: 0.1})
	require.NoError(t, err)
	for _, baseline := range []float64{0.01, 0.4} {
		canary := baseline + 0.1
		wrong := map[Outcome]float64{}
		alive := map[[2]int]float64{{0, 0}: 1}
		for n := 1; n <= horizon; n++ {
			next := map[[2]int]float64{}
			for k, p := range alive {
				next[[2]int{k[0], k[1]}] += p * (1 - canary) * (1 - baseline)
				next[[2]int{k[0] + 1, k[1]}] += p * canary * (1 - baseline)
				next[[2]int{k[0], k[1] + 1}] += p * (1 - canary) * baseline
				next[[2]int{k[0] + 1, k[1] + 1}] += p * canary * baseline
			}
			for k, p := range next {
				observed := pair{canary: newSide(float64(k[0]), float64(n-k[0])), baseline: newSide(float64(k[1]), float64(n-k[1]))}
				if outcome := rate.decide(observed); outcome != Undecided {
					wrong[outcome] += p
					delete(next, k)
				}
			}
			alive = next
		}
		assert.LessOrEqual(t, wrong[Harm], alpha, "baseline %g", baseline)
		assert.LessOrEqual(t, wrong[Safe], beta, "baseline %g", baseline)
	}
}

// The least evidence along a line is found, and never overstated.
func TestLeastEvidence(t *testing.T) {
	for _, p := range []pair{
		{canary: newSide(35, 1165), baseline: newSide(51, 10749)},
		{canary: newSide(0, 1000), baseline: newSide(0, 90_000)},
		{canary: newSide(10, 0), baseline: newSide(0, 10)},
		{canary: newSide(1e7, 1e9), baseline: newSide(2e7, 9e9)},
	} {
		for _, on := range []line{{1, 0.005}, {1, 0}, {1.5, 0}, {1, -0.3}, {1, 0.9}} {
			least := p.least(on)
			first, last := max(0, on.inverse(0)), min(1, on.inverse(1))
			scanned := math.Inf(1)
			for i := range 4001 {
				evidence, _ := p.along(on, first+(last-first)*math.Pow(float64(i)/4000, 3))
				scanned = min(scanned, evidence)
			}
			assert.LessOrEqual(t, least, scanned+1e-9*math.Abs(scanned), "%+v on %+v", p, on)
			if !math.IsInf(scanned, 1) {
				assert.InDelta(t, scanned, least, 0.05*math.Abs(scanned)+0.05, "%+v on %+v", p, on)
			}
		}
	}
}

// Digits must not be lost where the large terms of Stirling's formula cancel.
func TestLikelihoodOfManyRequests(t *testing.T) {
	for _, n := range []float64{1e6, 1e9, 1e12, 1e15, 1e19} {
		// Under Jeffreys' prior the logarithm tends to ½·ln(2/(π·n)) at any rate.
		assert.InDelta(t, 0.5*math.Log(2/(math.Pi*n)), newPrior(0.5).likelihood(0.01*n, 0.99*n), 1e-4, "n=%g", n)
		// Three standard deviations away, the likelihood has fallen by 4.5.
		s, q := newSide(0.01*n, 0.99*n), 0.01+3*math.Sqrt(0.01*0.99/n)
		assert.InDelta(t, 4.5, s.winnings(q)[0]-s.least[0], 0.1, "n=%g", n)
	}
}
