package sequential

import (
	"fmt"
	"math"
	"sort"
)

// Quantile compares a quantile of the latency. Make one with [NewQuantile].
type Quantile struct{ config QuantileConfig }

// NewQuantile returns a comparison of a quantile, or an [*InputError].
func NewQuantile(config QuantileConfig) (*Quantile, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	return &Quantile{config: config}, nil
}

// Compare judges the canary's latencies against the baseline's, both since the
// comparison began and in the same buckets. It may be called at any time and as
// often as one likes. The result is about the ratio of the quantiles. An
// [*InputError] tells of histograms that can't be compared.
func (q *Quantile) Compare(canary, baseline Histogram) (Result, error) {
	if err := canary.check("canary"); err != nil {
		return Result{}, err
	}
	if err := canary.like(baseline, "baseline"); err != nil {
		return Result{}, err
	}
	c, b := q.ranks(canary), q.ranks(baseline)
	if c.n == 0 {
		c = b
	}
	if b.n == 0 {
		b = c
	}
	limits := func(factor float64) (lower, upper float64) {
		return q.ratio(c.times(factor, q.config.Quantile), b.times(factor, q.config.Quantile))
	}
	result := Result{Measure: QuantileRatio, Canary: canary.Requests(), Baseline: baseline.Requests(), Tolerated: 1 + q.config.Tolerance, Estimate: 1, Upper: Unbounded}
	if result.Canary > 0 && result.Baseline > 0 {
		result.Lower, result.Upper = limits(1)
		if b := baseline.quantile(q.config.Quantile); b > 0 {
			result.Estimate = canary.quantile(q.config.Quantile) / b
		}
	}
	lacking := shortfall{canary: result.Canary, baseline: result.Baseline, required: q.config.MinRequests}
	return q.conclude(result, lacking, c.n, limits), nil
}

// Against judges the canary's latencies since the comparison began against a
// fixed limit of the quantile in seconds: [Harm] is a quantile above it, [Safe]
// one at or below it. The result is about the canary's quantile in seconds. A
// limit that is not one of the upper bounds is judged by the nearest ones.
func (q *Quantile) Against(canary Histogram, limit float64) (Result, error) {
	if err := canary.check("canary"); err != nil {
		return Result{}, err
	}
	if !(limit > 0 && limit < Unbounded) {
		return Result{}, &InputError{Field: "limit", Problem: fmt.Sprintf("%g is not a positive number of seconds", limit)}
	}
	c := q.ranks(canary)
	limits := func(factor float64) (lower, upper float64) {
		return q.seconds(c.times(factor, q.config.Quantile))
	}
	result := Result{Measure: QuantileSeconds, Canary: canary.Requests(), Tolerated: limit, Estimate: canary.quantile(q.config.Quantile)}
	result.Lower, result.Upper = limits(1)
	lacking := shortfall{canary: result.Canary, baseline: math.MaxUint64, required: q.config.MinRequests}
	return q.conclude(result, lacking, c.n, limits), nil
}

// conclude fills in what follows from the limits.
func (q *Quantile) conclude(result Result, lacking shortfall, unit float64, limits func(factor float64) (lower, upper float64)) Result {
	result.Estimate = min(max(result.Estimate, result.Lower), result.Upper)
	if !lacking.any() {
		result.Outcome = outcome(result.Lower, result.Upper, result.Tolerated)
	}
	switch {
	case result.Outcome != Undecided:
	case unit == 0:
		result.Needed = Never
	default:
		result.Needed = lacking.needed(result.Canary, unit*q.config.Dispersion, func(factor float64) bool {
			lower, upper := limits(factor)
			return outcome(lower, upper, result.Tolerated) != Undecided
		})
	}
	return result
}

// outcome compares what lies between two bounds with what is tolerated.
func outcome(lower, upper, tolerated float64) Outcome {
	// Bounds such as 0.3 and 0.25 are to have exactly the ratio 1.2.
	const rounding = 1e-9
	switch {
	case lower >= tolerated*(1-rounding):
		return Harm
	case upper <= tolerated*(1+rounding):
		return Safe
	}
	return Undecided
}

// ranks is what a histogram says about where a quantile lies: at each finite
// bound, the logarithms of the evidence that the quantile is beyond it and that
// it is not.
type ranks struct {
	bounds            []float64
	faster, slower    []float64
	n                 float64
	beyond, notBeyond []float64
}

func (q *Quantile) ranks(h Histogram) ranks {
	cumulative, n := h.faster()
	r := ranks{bounds: h.finite(), n: float64(n) / q.config.Dispersion}
	for _, faster := range cumulative {
		r.faster = append(r.faster, float64(faster)/q.config.Dispersion)
		r.slower = append(r.slower, float64(n-faster)/q.config.Dispersion)
	}
	return r
}

// times weighs the evidence of factor times as many requests. The evidence is
// made monotone in the bound by lowering it, as the claims are: who claims that
// the quantile is beyond a bound claims it of every lower one.
func (r ranks) times(factor, quantile float64) ranks {
	m := len(r.bounds)
	out := ranks{bounds: r.bounds, n: r.n * factor, beyond: make([]float64, m), notBeyond: make([]float64, m)}
	share := 1 - quantile
	for i := range r.bounds {
		s := newSide(r.slower[i]*factor, r.faster[i]*factor)
		out.beyond[i], out.notBeyond[i] = s.lowest(), s.lowest()
		if s.rate() > share {
			out.beyond[i] = s.against(share)
		} else {
			out.notBeyond[i] = s.against(share)
		}
	}
	for i := 1; i < m; i++ {
		out.beyond[i] = min(out.beyond[i], out.beyond[i-1])
	}
	for i := m - 2; i >= 0; i-- {
		out.notBeyond[i] = min(out.notBeyond[i], out.notBeyond[i+1])
	}
	return out
}

// seconds returns the bounds between which the quantile lies.
func (q *Quantile) seconds(r ranks) (lower, upper float64) {
	lower = r.lower(func(evidence float64) bool { return evidence >= -math.Log(q.config.Alpha) })
	upper = r.upper(func(evidence float64) bool { return evidence >= -math.Log(q.config.Beta) })
	return lower, min(upper, Unbounded)
}

// lower returns the last bound that the quantile is beyond with enough evidence,
// or 0.
func (r ranks) lower(enough func(evidence float64) bool) float64 {
	i := sort.Search(len(r.bounds), func(i int) bool { return !enough(r.beyond[i]) })
	if i == 0 {
		return 0
	}
	return r.bounds[i-1]
}

// upper returns the first bound that the quantile is not beyond with enough
// evidence, or infinity.
func (r ranks) upper(enough func(evidence float64) bool) float64 {
	i := sort.Search(len(r.bounds), func(i int) bool { return enough(r.notBeyond[i]) })
	if i == len(r.bounds) {
		return math.Inf(1)
	}
	return r.bounds[i]
}

// ratio bounds the ratio of the canary's quantile to the baseline's. It goes
// through the buckets that the baseline's quantile may lie in. For each, the
// evidence that it doesn't is combined with the evidence of where the canary's
// lies. One bucket is the true one, so that no correction for their number is
// needed.
func (q *Quantile) ratio(canary, baseline ranks) (lower, upper float64) {
	lower, upper = math.Inf(1), 0
	harm, safe := -math.Log(q.config.Alpha), -math.Log(q.config.Beta)
	for i := range len(baseline.bounds) + 1 {
		from, to := 0.0, math.Inf(1)
		var contradictsFrom, contradictsTo float64 // of an end that nothing could contradict
		if i > 0 {
			from, contradictsFrom = baseline.bounds[i-1], baseline.notBeyond[i-1]
		}
		if i < len(baseline.bounds) {
			to, contradictsTo = baseline.bounds[i], baseline.beyond[i]
		}
		if !refuted(contradictsFrom, harm) {
			beyond := canary.lower(func(evidence float64) bool { return combine(evidence, contradictsFrom) >= harm })
			lower = min(lower, beyond/to)
		}
		if !refuted(contradictsTo, safe) {
			within := canary.upper(func(evidence float64) bool { return combine(evidence, contradictsTo) >= safe })
			upper = max(upper, within/from)
		}
	}
	return min(lower, Unbounded), min(upper, Unbounded)
}

// refuted tells whether the baseline's evidence suffices whatever the canary's is.
func refuted(baseline, threshold float64) bool { return logShareOne+baseline >= threshold }
