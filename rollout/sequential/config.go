package sequential

import (
	"cmp"
	"fmt"
)

// The defaults of [RateConfig] and [QuantileConfig].
const (
	DefaultAlpha             = 0.01
	DefaultTolerance         = 0.01
	DefaultQuantile          = 0.99
	DefaultQuantileTolerance = 0.25
)

// RateConfig configures a [Rate].
type RateConfig struct {
	// Alpha bounds the probability of ever saying [Harm] of a canary within
	// tolerance, over all looks of a comparison. At most 0.5, default 0.01.
	Alpha float64
	// Beta bounds the probability of ever saying [Safe] of a canary beyond
	// tolerance. At most 0.5, default Alpha.
	Beta float64
	// Tolerance is the increase of the failure rate over the baseline's that is
	// tolerated, as a difference: 0.01 lets 2 % become 3 %. RelativeTolerance is
	// the same as a share of the baseline's rate: 0.5 does so too. The larger one
	// counts. Where both are 0, Tolerance is 0.01. RelativeTolerance alone makes
	// it hard to be [Safe] where nearly nothing fails. [Rate.Against] uses neither.
	Tolerance, RelativeTolerance float64
	// MinRequests is how many requests each side must have had before anything
	// but [Undecided] is said. The bounds hold without it.
	MinRequests uint64
	// Dispersion is the largest number of requests that may fail together for one
	// reason, such as those on one connection. Every count is divided by it, so
	// decisions take that many times longer. At least 1, default 1.
	Dispersion float64
}

func (c RateConfig) complete() (RateConfig, error) {
	const name = "RateConfig"
	if err := completeErrors(name, &c.Alpha, &c.Beta, &c.Dispersion); err != nil {
		return c, err
	}
	switch {
	case !(c.Tolerance >= 0 && c.Tolerance < 1):
		return c, &InputError{Field: name + ".Tolerance", Problem: fmt.Sprintf("%g is not a difference of rates of at least 0 and below 1", c.Tolerance)}
	case !(c.RelativeTolerance >= 0 && c.RelativeTolerance <= maxRelative):
		return c, &InputError{Field: name + ".RelativeTolerance", Problem: fmt.Sprintf("%g is not from 0 to %g", c.RelativeTolerance, maxRelative)}
	}
	if c.RelativeTolerance == 0 {
		c.Tolerance = cmp.Or(c.Tolerance, DefaultTolerance)
	}
	return c, nil
}

// QuantileConfig configures a [Quantile].
type QuantileConfig struct {
	// Quantile is which one to compare, between 0 and 1. Default 0.99: of a
	// hundred requests, the slowest.
	Quantile float64
	// Alpha, Beta, MinRequests and Dispersion are those of [RateConfig].
	Alpha, Beta float64
	// Tolerance is the increase of the quantile over the baseline's that is
	// tolerated, as a share of the baseline's: 0.25, the default, lets 200 ms
	// become 250 ms. [Quantile.Against] doesn't use it.
	Tolerance   float64
	MinRequests uint64
	Dispersion  float64
}

func (c QuantileConfig) complete() (QuantileConfig, error) {
	const name = "QuantileConfig"
	if err := completeErrors(name, &c.Alpha, &c.Beta, &c.Dispersion); err != nil {
		return c, err
	}
	c.Quantile = cmp.Or(c.Quantile, DefaultQuantile)
	c.Tolerance = cmp.Or(c.Tolerance, DefaultQuantileTolerance)
	switch {
	case !(c.Quantile > 0 && c.Quantile < 1):
		return c, &InputError{Field: name + ".Quantile", Problem: fmt.Sprintf("%g is not between 0 and 1", c.Quantile)}
	case !(c.Tolerance > 0 && c.Tolerance <= maxRelative):
		return c, &InputError{Field: name + ".Tolerance", Problem: fmt.Sprintf("%g is not from 0 to %g", c.Tolerance, maxRelative)}
	}
	return c, nil
}

// maxRelative bounds a relative tolerance: beyond, it is a mistake.
const maxRelative = 1e6

func completeErrors(name string, alpha, beta, dispersion *float64) error {
	*alpha = cmp.Or(*alpha, DefaultAlpha)
	*beta = cmp.Or(*beta, *alpha)
	*dispersion = cmp.Or(*dispersion, 1)
	switch {
	case !(*alpha >= minError && *alpha <= 0.5):
		return &InputError{Field: name + ".Alpha", Problem: fmt.Sprintf("%g is not a probability from %g to 0.5", *alpha, minError)}
	case !(*beta >= minError && *beta <= 0.5):
		return &InputError{Field: name + ".Beta", Problem: fmt.Sprintf("%g is not a probability from %g to 0.5", *beta, minError)}
	case !(*dispersion >= 1 && *dispersion <= maxRelative):
		return &InputError{Field: name + ".Dispersion", Problem: fmt.Sprintf("%g is not from 1 to %g", *dispersion, maxRelative)}
	}
	return nil
}

// minError is the smallest probability of error that can be asked for.
const minError = 1e-12
