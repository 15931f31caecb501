package sequential

import "math"

// reach is where to look for a crossing: from inside to outside, about some
// multiples of spread away.
type reach struct{ inside, outside, spread float64 }

// crossing returns where evidence, convex with its minimum at inside, reaches the
// threshold on the way to outside: a little beyond, or outside if it never does.
// Evidence grows about with the square of the distance, so that its root is
// nearly straight.
func crossing(in reach, threshold float64, evidence func(float64) float64) float64 {
	inside, outside := in.inside, in.outside
	least := evidence(inside)
	switch {
	// More requests than a rate has digits for.
	case least >= threshold:
		return inside
	case math.IsInf(least, -1):
		return outside
	}
	goal := math.Sqrt(threshold - least)
	height := func(x float64) float64 { return math.Sqrt(max(0, evidence(x)-least)) - goal }
	from, to := -goal, height(outside)
	if to < 0 {
		return outside
	}
	// What a normal distribution would give, and a half more.
	if guess := inside + math.Copysign(1.5*math.Sqrt2*goal*in.spread, outside-inside); math.Abs(guess-inside) < math.Abs(outside-inside) {
		if at := height(guess); at < 0 {
			inside, from = guess, at
		} else {
			outside, to = guess, at
		}
	}
	for step := range 200 {
		x := inside + (outside-inside)/2
		if step%3 != 2 && !math.IsInf(to, 1) {
			x = inside + (outside-inside)*from/(from-to)
		}
		if x == inside || x == outside {
			break
		}
		// The Illinois rule: halve the height of the end that stays.
		at := height(x)
		if at < 0 {
			inside, from, to = x, at, to/2
			continue
		}
		outside, to, from = x, at, from/2
		if at <= 1e-4*goal {
			break
		}
	}
	return outside
}
