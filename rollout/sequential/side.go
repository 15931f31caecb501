package sequential

import (
	"math"
	"slices"
)

// side is what one side's counts say about its rate. Its numbers needn't be whole.
type side struct {
	failures, successes, n float64
	// least are the logarithms of each bet's winnings at the observed rate, with
	// its share: what it wins at another rate is more by a deviance.
	least [1 + len(relative)]float64
}

// The evidence is what one would have won by betting against a rate at fair odds
// or worse. The stake is shared among bets of two kinds.
//
// A fifth is on the rate being drawn from an equal mixture of the absolute
// priors. The first is Jeffreys'; the others expect rates of about a tenth, a
// hundredth and a thousandth.
//
// The rest is on the rate being a multiple of the one it is tested against: drawn
// from gamma distributions with mean 1 and these shapes, of which the first
// expects it to be some times as much, and the last to differ by a few percent, as
// can only be seen after thousands of failures. Their odds are those of a Poisson
// distribution, which are worse than fair, as 1+x is at most e^x. They cost less
// than an absolute prior where a rate is known well already.
var (
	absolute = [...]prior{newPrior(0.5), newPrior(5), newPrior(50), newPrior(500)}
	relative = [...]float64{1, 16, 1024}
)

const shareAbsolute = 0.2

var (
	logAbsolute = math.Log(shareAbsolute / float64(len(absolute)))
	logRelative = math.Log((1 - shareAbsolute) / float64(len(relative)))
)

// prior is a beta distribution.
type prior struct{ a, b, constant float64 }

func newPrior(b float64) prior {
	const a = 0.5
	la, _ := math.Lgamma(a)
	lb, _ := math.Lgamma(b)
	lab, _ := math.Lgamma(a + b)
	return prior{a: a, b: b, constant: halfLog2Pi - (la + lb - lab)}
}

// likelihood returns the logarithm of the likelihood of x failures and y
// successes, averaged over the prior, divided by the greatest likelihood. The
// large terms of both are cancelled by hand, so that it is exact for 1e19
// requests too.
func (p prior) likelihood(x, y float64) float64 {
	a, b, n := p.a, p.b, x+y
	return growth(x, a) + growth(y, b) - growth(n, a+b) +
		(a-0.5)*math.Log(x+a) + (b-0.5)*math.Log(y+b) - (a+b-0.5)*math.Log(n+a+b) +
		remainder(x+a) + remainder(y+b) - remainder(n+a+b) + p.constant
}

func newSide(failures, successes float64) side {
	s := side{failures: failures, successes: successes, n: failures + successes}
	if s.n == 0 {
		return s
	}
	var terms [len(absolute)]float64
	for i, p := range absolute {
		terms[i] = logAbsolute + p.likelihood(failures, successes)
	}
	s.least[0] = logSum(terms[:])
	for i, shape := range relative {
		s.least[i+1] = logRelative + 0.5*math.Log(shape/(failures+shape)) + remainder(failures+shape) - remainder(shape)
	}
	return s
}

func (s side) times(factor float64) side { return newSide(s.failures*factor, s.successes*factor) }

// rate is the observed rate, 0 without requests.
func (s side) rate() float64 {
	if s.n == 0 {
		return 0
	}
	return s.failures / s.n
}

// lowest is the evidence against the observed rate: the least there is.
func (s side) lowest() float64 {
	if s.n == 0 {
		return 0
	}
	return logSum(s.least[:])
}

// against returns the logarithm of the evidence against the rate q: of a
// supermartingale that begins at 1 if q is the true rate. It is convex in q and
// has its minimum at the observed rate.
func (s side) against(q float64) float64 {
	if s.n == 0 {
		return 0
	}
	won := s.winnings(q)
	return logSum(won[:])
}

// winnings returns the logarithms of what each bet wins, with its share.
func (s side) winnings(q float64) [1 + len(relative)]float64 {
	won := s.least
	won[0] += deviance(s.failures, s.n*q) + deviance(s.successes, s.n*(1-q))
	for i, shape := range relative {
		won[i+1] += deviance(s.failures+shape, s.n*q+shape)
	}
	return won
}

// rising returns the evidence and its derivative.
func (s side) rising(q float64) (evidence, slope float64) {
	if s.n == 0 {
		return 0, 0
	}
	won := s.winnings(q)
	evidence = logSum(won[:])
	if math.IsInf(evidence, 1) {
		if q < s.rate() {
			return evidence, -math.MaxFloat64
		}
		return evidence, math.MaxFloat64
	}
	if s.successes > 0 {
		slope += s.successes / (1 - q)
	}
	if s.failures > 0 {
		slope -= s.failures / q
	}
	slope *= math.Exp(won[0] - evidence)
	for i, shape := range relative {
		slope += math.Exp(won[i+1]-evidence) * s.n * (s.n*q - s.failures) / (s.n*q + shape)
	}
	return evidence, slope
}

// interval returns the rates between which neither end is refuted, below with
// probability alpha of error and above with beta.
func (s side) interval(alpha, beta float64) (lower, upper float64) {
	if s.n == 0 {
		return 0, 1
	}
	lower = crossing(reach{s.rate(), 0, s.spread()}, -math.Log(alpha), s.against)
	upper = crossing(reach{s.rate(), 1, s.spread()}, -math.Log(beta), s.against)
	return lower, upper
}

// spread is about the standard deviation of the observed rate.
func (s side) spread() float64 {
	return math.Sqrt((s.failures + 1) / s.n * (s.successes + 1) / s.n / s.n)
}

// deviance returns x·ln(x/mean) + mean - x without losing digits where x is near
// the mean (C. Loader, Fast and Accurate Computation of Binomial Probabilities).
func deviance(x, mean float64) float64 {
	switch {
	case x == mean:
		return 0
	case x == 0:
		return mean
	case mean <= 0:
		return math.Inf(1)
	case math.Abs(x-mean) >= 0.1*(x+mean):
		return x*math.Log(x/mean) + mean - x
	}
	v := (x - mean) / (x + mean)
	sum, term := (x-mean)*v, 2*x*v
	for odd := 3.0; odd < 100; odd += 2 {
		term *= v * v
		next := sum + term/odd
		if next == sum {
			break
		}
		sum = next
	}
	return sum
}

// growth returns x·ln((x+a)/x), and its limit at 0.
func growth(x, a float64) float64 {
	if x == 0 {
		return 0
	}
	return x * math.Log1p(a/x)
}

var halfLog2Pi = 0.5 * math.Log(2*math.Pi)

// remainder returns what Stirling's formula lacks: ln Γ(x) minus
// (x-½)·ln x - x + ½·ln 2π.
func remainder(x float64) float64 {
	if x < 10 {
		exact, _ := math.Lgamma(x)
		return exact - ((x-0.5)*math.Log(x) - x + halfLog2Pi)
	}
	x2 := x * x
	return (1.0/12 - (1.0/360-(1.0/1260-1/(1680*x2))/x2)/x2) / x
}

// logSum returns the logarithm of the sum of what the terms are logarithms of.
func logSum(terms []float64) float64 {
	top := slices.Max(terms)
	if math.IsInf(top, 0) {
		return top
	}
	var sum float64
	for _, term := range terms {
		// Less than that doesn't change a digit.
		if top-term < 40 {
			sum += math.Exp(term - top)
		}
	}
	return top + math.Log(sum)
}
