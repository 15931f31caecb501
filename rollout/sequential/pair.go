package sequential

import "math"

// line is a border between pairs of rates: canary = slope·baseline + offset.
type line struct{ slope, offset float64 }

func (l line) at(baseline float64) float64 { return l.slope*baseline + l.offset }

// inverse returns the baseline rate whose border is the canary rate.
func (l line) inverse(canary float64) float64 { return (canary - l.offset) / l.slope }

// pair is what the counts of both sides say about their rates.
type pair struct{ canary, baseline side }

func (p pair) times(factor float64) pair {
	return pair{canary: p.canary.times(factor), baseline: p.baseline.times(factor)}
}

// The shares of the product of both sides' evidence and of each side's own in
// the evidence of the pair. The product is best where both have about as many
// requests; the canary's own where the baseline is as good as known.
const (
	shareBoth = 0.8
	shareOne  = 0.1
)

var (
	logShareBoth = math.Log(shareBoth)
	logShareOne  = math.Log(shareOne)
)

// combine returns the logarithm of the weighted mean of the evidence of both
// sides, each given as a logarithm.
func combine(canary, baseline float64) float64 {
	evidence, _, _ := blend(canary, baseline)
	return evidence
}

// blend also returns by how much the mean grows with either side's evidence.
func blend(canary, baseline float64) (evidence, byCanary, byBaseline float64) {
	both, onlyCanary, onlyBaseline := logShareBoth+canary+baseline, logShareOne+canary, logShareOne+baseline
	top := max(both, onlyCanary, onlyBaseline)
	if math.IsInf(top, 0) {
		return top, 1, 1
	}
	both, onlyCanary, onlyBaseline = math.Exp(both-top), math.Exp(onlyCanary-top), math.Exp(onlyBaseline-top)
	sum := both + onlyCanary + onlyBaseline
	return top + math.Log(sum), (both + onlyCanary) / sum, (both + onlyBaseline) / sum
}

// precision is how exact the logarithm of an evidence is.
const precision = 1e-5

// least returns the least evidence against any pair of rates on the line, which
// is also the least on its far side, seen from the observed rates. What it
// returns is never too much.
func (p pair) least(on line) float64 { return p.search(on, math.NaN()) }

// refutes reports whether the evidence against every pair of rates on the line is
// at least 1/err.
func (p pair) refutes(on line, err float64) bool {
	threshold := -math.Log(err)
	return p.search(on, threshold) >= threshold
}

// search finds the least evidence along the line, or some evidence on the same
// side of the threshold. The evidence is convex along the line; its minimum lies
// between the observed baseline rate and the one at which the canary's is the
// observed one. A tangent bounds it from below.
func (p pair) search(on line, threshold float64) float64 {
	first, last := max(0, on.inverse(0)), min(1, on.inverse(1))
	here, there := p.baseline.rate(), on.inverse(p.canary.rate())
	lo := min(max(min(here, there), first), last)
	hi := max(min(max(here, there), last), first)
	low, slopeLo := p.along(on, lo)
	high, slopeHi := p.along(on, hi)
	switch {
	case slopeLo >= 0 || lo >= hi || low < threshold:
		return low
	case slopeHi <= 0 || high < threshold:
		return high
	}
	bound := math.Inf(-1)
	for step := range 200 {
		x := lo + (hi-lo)/2
		if secant := lo - slopeLo*(hi-lo)/(slopeHi-slopeLo); step%3 != 2 && secant > lo && secant < hi {
			x = secant
		}
		evidence, slope := p.along(on, x)
		// The Illinois rule: halve the height of the end that stays.
		width := hi - x
		if slope < 0 {
			lo, slopeLo, slopeHi = x, slope, slopeHi/2
		} else {
			width = lo - x
			hi, slopeHi, slopeLo = x, slope, slopeLo/2
		}
		if !math.IsInf(evidence, 1) {
			bound = max(bound, evidence+slope*width)
		}
		if evidence < threshold {
			return evidence
		}
		if bound >= threshold || evidence-bound <= precision*max(1, math.Abs(bound)) || hi-lo <= 0x1p-52*hi {
			break
		}
	}
	return bound
}

// along returns the evidence and its derivative at a baseline rate on the line.
func (p pair) along(on line, baseline float64) (evidence, slope float64) {
	baseline = clamp(baseline)
	canary := clamp(on.at(baseline))
	ofCanary, canarySlope := p.canary.rising(canary)
	ofBaseline, baselineSlope := p.baseline.rising(baseline)
	evidence, byCanary, byBaseline := blend(ofCanary, ofBaseline)
	return evidence, min(max(byCanary*on.slope*canarySlope+byBaseline*baselineSlope, -math.MaxFloat64), math.MaxFloat64)
}

// interval returns the differences between which neither end is refuted, below
// with probability alpha of error and above with beta.
func (p pair) interval(alpha, beta float64) (lower, upper float64) {
	if p.canary.n == 0 || p.baseline.n == 0 {
		return -1, 1
	}
	observed := p.canary.rate() - p.baseline.rate()
	spread := math.Hypot(p.canary.spread(), p.baseline.spread())
	evidence := func(difference float64) float64 { return p.least(line{slope: 1, offset: difference}) }
	lower = crossing(reach{observed, -1, spread}, -math.Log(alpha), evidence)
	upper = crossing(reach{observed, 1, spread}, -math.Log(beta), evidence)
	return lower, upper
}

// projectable replaces a side without requests by the likeness of the other,
// and two by one request each without failure. It returns the canary's requests
// in it too.
func (p pair) projectable() (_ pair, unit float64) {
	switch {
	case p.canary.n == 0 && p.baseline.n == 0:
		p = pair{canary: newSide(0, 1), baseline: newSide(0, 1)}
	case p.canary.n == 0:
		p.canary = p.baseline
	case p.baseline.n == 0:
		p.baseline = p.canary
	}
	return p, p.canary.n
}

func clamp(rate float64) float64 { return min(max(rate, 0), 1) }
