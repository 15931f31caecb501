package sequential

import (
	"fmt"
	"math"
)

// Rate compares failure rates. Make one with [NewRate].
type Rate struct {
	config RateConfig
	lines  []line
}

// NewRate returns a comparison of failure rates, or an [*InputError].
func NewRate(config RateConfig) (*Rate, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	r := &Rate{config: config}
	if config.Tolerance > 0 {
		r.lines = append(r.lines, line{slope: 1, offset: config.Tolerance})
	}
	if config.RelativeTolerance > 0 {
		r.lines = append(r.lines, line{slope: 1 + config.RelativeTolerance})
	}
	return r, nil
}

// Compare judges the canary's counts against the baseline's, both since the
// comparison began. It may be called at any time and as often as one likes. The
// result is about the difference of the rates. An [*InputError] tells of counts
// that can't be.
func (r *Rate) Compare(canary, baseline Counts) (Result, error) {
	if err := canary.check("canary"); err != nil {
		return Result{}, err
	}
	if err := baseline.check("baseline"); err != nil {
		return Result{}, err
	}
	c, b := r.side(canary), r.side(baseline)
	p := pair{canary: c, baseline: b}
	lower, upper := p.interval(r.config.Alpha, r.config.Beta)
	estimate := c.rate() - b.rate()
	if c.n == 0 || b.n == 0 {
		estimate = 0
	}
	result := Result{
		Measure: RateDifference, Canary: canary.Requests, Baseline: baseline.Requests,
		Estimate: estimate, Lower: min(lower, estimate), Upper: max(upper, estimate),
		Tolerated: max(r.config.Tolerance, r.config.RelativeTolerance*b.rate()),
	}
	lacking := shortfall{canary: canary.Requests, baseline: baseline.Requests, required: r.config.MinRequests}
	if !lacking.any() {
		result.Outcome = r.decide(p)
	}
	if result.Outcome == Undecided {
		p, unit := p.projectable()
		result.Needed = lacking.needed(canary.Requests, unit*r.config.Dispersion, func(factor float64) bool {
			return r.decide(p.times(factor)) != Undecided
		})
	}
	return result, nil
}

// Against judges the canary's counts since the comparison began against a fixed
// limit of the failure rate, between 0 and 1: [Harm] is a rate above it, [Safe]
// one below. The result is about the canary's rate.
func (r *Rate) Against(canary Counts, limit float64) (Result, error) {
	if err := canary.check("canary"); err != nil {
		return Result{}, err
	}
	if !(limit > 0 && limit < 1) {
		return Result{}, &InputError{Field: "limit", Problem: fmt.Sprintf("%g is not a rate between 0 and 1", limit)}
	}
	s := r.side(canary)
	lower, upper := s.interval(r.config.Alpha, r.config.Beta)
	result := Result{
		Measure: FailureRate, Canary: canary.Requests, Tolerated: limit,
		Estimate: s.rate(), Lower: min(lower, s.rate()), Upper: max(upper, s.rate()),
	}
	lacking := shortfall{canary: canary.Requests, baseline: math.MaxUint64, required: r.config.MinRequests}
	if !lacking.any() {
		result.Outcome = r.decideAgainst(s, limit)
	}
	if result.Outcome == Undecided {
		unit := s.n
		if s.n == 0 {
			s, unit = newSide(0, 1), 1
		}
		result.Needed = lacking.needed(canary.Requests, unit*r.config.Dispersion, func(factor float64) bool {
			return r.decideAgainst(s.times(factor), limit) != Undecided
		})
	}
	return result, nil
}

func (r *Rate) side(c Counts) side {
	return newSide(float64(c.Failures)/r.config.Dispersion, float64(c.Requests-c.Failures)/r.config.Dispersion)
}

// decide needs every tolerance refuted for harm, because the larger one counts,
// and for safety to be shown below one.
func (r *Rate) decide(p pair) Outcome {
	if p.canary.n == 0 || p.baseline.n == 0 {
		return Undecided
	}
	harm := true
	for _, tolerated := range r.lines {
		excess := p.canary.rate() - tolerated.at(p.baseline.rate())
		if excess < 0 && p.refutes(tolerated, r.config.Beta) {
			return Safe
		}
		harm = harm && excess > 0 && p.refutes(tolerated, r.config.Alpha)
	}
	if harm {
		return Harm
	}
	return Undecided
}

func (r *Rate) decideAgainst(s side, limit float64) Outcome {
	switch {
	case s.rate() > limit && s.against(limit) >= -math.Log(r.config.Alpha):
		return Harm
	case s.rate() < limit && s.against(limit) >= -math.Log(r.config.Beta):
		return Safe
	}
	return Undecided
}
