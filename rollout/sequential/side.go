package sequential

import "math"

// side is what one side's counts say about its rate. Its numbers needn't be whole.
type side struct {
	failures, successes, n float64
	// mixture is the logarithm of the likelihood averaged over the prior, divided
	// by the greatest likelihood: at most 0.
	mixture float64
}

// The prior is an equal mixture of these beta distributions. The first is
// Jeffreys'; the others expect rates of about a tenth, a hundredth and a
// thousandth, so that rare failures cost less than under any one of them.
const (
	priorFailures = 0.5
	priorShare    = 0.25
)

var priorSuccesses = [...]float64{0.5, 5, 50, 500}

func newSide(failures, successes float64) side {
	s := side{failures: failures, successes: successes, n: failures + successes}
	if s.n == 0 {
		return s
	}
	var terms [len(priorSuccesses)]float64
	for i, b := range priorSuccesses {
		terms[i] = logBetaRatio(failures, successes, priorFailures, b)
	}
	s.mixture = min(0, math.Log(priorShare)+logSumExp(terms[:]))
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

// against returns the logarithm of the evidence against the rate q: of a
// martingale that begins at 1 if q is the true rate. It is convex in q and has
// its minimum at the observed rate.
func (s side) against(q float64) float64 {
	if s.n == 0 {
		return 0
	}
	return s.mixture + deviance(s.failures, s.n*q) + deviance(s.successes, s.n*(1-q))
}

// slope is the derivative of against.
func (s side) slope(q float64) float64 { return s.successes/(1-q) - s.failures/q }

// interval returns the rates between which neither end is refuted, below with
// probability alpha of error and above with beta.
func (s side) interval(alpha, beta float64) (lower, upper float64) {
	if s.n == 0 {
		return 0, 1
	}
	return crossing(s.rate(), 0, -math.Log(alpha), s.against), crossing(s.rate(), 1, -math.Log(beta), s.against)
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
	for odd := 3.0; ; odd += 2 {
		term *= v * v
		next := sum + term/odd
		if next == sum {
			return sum
		}
		sum = next
	}
}

// logBetaRatio returns the logarithm of the likelihood of x failures and y
// successes, averaged over the beta distribution of a and b, divided by the
// greatest likelihood. The large terms of both are cancelled by hand, so that it
// is exact for 1e19 requests too.
func logBetaRatio(x, y, a, b float64) float64 {
	n := x + y
	return growth(x, a) + growth(y, b) - growth(n, a+b) +
		(a-0.5)*math.Log(x+a) + (b-0.5)*math.Log(y+b) - (a+b-0.5)*math.Log(n+a+b) +
		remainder(x+a) + remainder(y+b) - remainder(n+a+b) + halfLog2Pi - logBeta(a, b)
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

func logBeta(a, b float64) float64 {
	la, _ := math.Lgamma(a)
	lb, _ := math.Lgamma(b)
	lab, _ := math.Lgamma(a + b)
	return la + lb - lab
}

func logSumExp(terms []float64) float64 {
	top := math.Inf(-1)
	for _, term := range terms {
		top = max(top, term)
	}
	if math.IsInf(top, 0) {
		return top
	}
	var sum float64
	for _, term := range terms {
		sum += math.Exp(term - top)
	}
	return top + math.Log(sum)
}
