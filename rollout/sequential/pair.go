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
	shareBoth = 0.5
	shareOne  = 0.25
)

// combine returns the logarithm of the weighted mean of the evidence of both
// sides, each given as a logarithm.
func combine(canary, baseline float64) float64 {
	return logSumExp([]float64{math.Log(shareBoth) + canary + baseline, math.Log(shareOne) + canary, math.Log(shareOne) + baseline})
}

// least returns the least evidence against any pair of rates on the line, which
// is also the least on its far side, seen from the observed rates: the evidence
// is convex.
func (p pair) least(on line) float64 {
	evidence, _ := p.minimum(on)
	return evidence
}

// minimum also returns the baseline rate of the minimum, which lies between the
// observed one and the one at which the canary's is the observed one.
func (p pair) minimum(on line) (evidence, at float64) {
	first, last := max(0, on.inverse(0)), min(1, on.inverse(1))
	here, there := p.baseline.rate(), on.inverse(p.canary.rate())
	lo, hi := min(max(min(here, there), first), last), max(min(max(here, there), last), first)
	value := func(baseline float64) float64 {
		return combine(p.canary.against(clamp(on.at(baseline))), p.baseline.against(clamp(baseline)))
	}
	evidence, at = value(lo), lo
	if v := value(hi); v < evidence {
		evidence, at = v, hi
	}
	for range 64 {
		mid := lo + (hi-lo)/2
		if mid <= lo || mid >= hi {
			break
		}
		if p.slope(mid, on) > 0 {
			hi = mid
		} else {
			lo = mid
		}
	}
	if v := value(lo); v < evidence {
		evidence, at = v, lo
	}
	return evidence, at
}

// slope is the derivative of the evidence along the line, of which only the sign
// and the relative size matter.
func (p pair) slope(baseline float64, on line) float64 {
	canary := clamp(on.at(baseline))
	c, b := p.canary.against(canary), p.baseline.against(baseline)
	top := max(c+b, c, b)
	both, onlyC, onlyB := shareBoth*math.Exp(c+b-top), shareOne*math.Exp(c-top), shareOne*math.Exp(b-top)
	return (both+onlyC)*on.slope*p.canary.slope(canary) + (both+onlyB)*p.baseline.slope(baseline)
}

// interval returns the differences between which neither end is refuted, below
// with probability alpha of error and above with beta.
func (p pair) interval(alpha, beta float64) (lower, upper float64) {
	if p.canary.n == 0 || p.baseline.n == 0 {
		return -1, 1
	}
	observed := p.canary.rate() - p.baseline.rate()
	evidence := func(difference float64) float64 { return p.least(line{slope: 1, offset: difference}) }
	return crossing(observed, -1, -math.Log(alpha), evidence), crossing(observed, 1, -math.Log(beta), evidence)
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

// crossing returns where evidence, convex with its minimum at inside, reaches the
// threshold on the way to outside: the end of the last step that is beyond, or
// outside if it never does. Evidence grows about with the square of the
// distance, so that its root is nearly straight.
func crossing(inside, outside, threshold float64, evidence func(float64) float64) float64 {
	least := evidence(inside)
	goal := math.Sqrt(threshold - least)
	height := func(x float64) float64 { return math.Sqrt(max(0, evidence(x)-least)) - goal }
	from, to := -goal, height(outside)
	if to < 0 {
		return outside
	}
	for range 200 {
		if math.Abs(outside-inside) <= 1e-9*max(math.Abs(outside), 1e-12) {
			break
		}
		x := inside + (outside-inside)/2
		if !math.IsInf(to, 1) {
			x = inside + (outside-inside)*from/(from-to)
		}
		if x == inside || x == outside {
			break
		}
		// The Illinois rule: halve the height of the end that stays.
		if at := height(x); at < 0 {
			inside, from, to = x, at, to/2
		} else {
			outside, to, from = x, at, from/2
		}
	}
	return outside
}
