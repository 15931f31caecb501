package sequential

import (
	"fmt"
	"math"
	"strconv"
)

// Outcome is what a comparison has shown so far.
type Outcome int

// The outcomes. The zero value is Undecided.
const (
	// Undecided: what was observed fits harm and safety alike.
	Undecided Outcome = iota
	// Harm: the canary is worse than tolerated.
	Harm
	// Safe: the canary is not worse than tolerated.
	Safe
)

// String returns "undecided", "harm" or "safe".
func (o Outcome) String() string {
	switch o {
	case Undecided:
		return "undecided"
	case Harm:
		return "harm"
	case Safe:
		return "safe"
	}
	return "outcome " + strconv.Itoa(int(o))
}

// Measure is the quantity that a [Result] is about.
type Measure int

// The measures.
const (
	// RateDifference is the canary's failure rate minus the baseline's, from -1 to 1.
	RateDifference Measure = iota + 1
	// FailureRate is the canary's failure rate, from 0 to 1.
	FailureRate
	// QuantileRatio is the canary's quantile divided by the baseline's.
	QuantileRatio
	// QuantileSeconds is the canary's quantile in seconds.
	QuantileSeconds
)

const (
	// Unbounded is the Upper of a result that has no upper bound yet: a finite
	// number, so that a result can be encoded as JSON.
	Unbounded = math.MaxFloat64
	// Never is the Needed of a result that no number of further requests would
	// decide if they went like those before: the estimate is at the tolerance, or
	// buckets are too wide.
	Never = math.MaxUint64
)

// Result is the answer at one look.
type Result struct {
	Outcome Outcome
	// Measure is what the numbers are about.
	Measure Measure
	// Estimate is the plain observation, within Lower and Upper. Lower and Upper
	// bound the true value at all looks at once, see the package.
	Estimate, Lower, Upper float64
	// Tolerated is what Estimate is held against: the tolerated difference at the
	// observed baseline rate, the tolerated ratio, or the limit.
	Tolerated float64
	// Canary and Baseline are the numbers of requests that were looked at.
	Canary, Baseline uint64
	// Needed is about how many more requests the canary has to serve until there
	// is a decision: the counts are multiplied, at the observed rates and split,
	// until they would decide. It is 0 when decided and may be [Never]. A side
	// without requests is taken to be like the other, and both without to have no
	// failures.
	Needed uint64
}

// String says the result in one line.
func (r Result) String() string {
	text := fmt.Sprintf("%s: %s, %s, on %d canary", r.Outcome, r.value(), r.tolerance(), r.Canary)
	if r.Measure == RateDifference || r.Measure == QuantileRatio {
		text += fmt.Sprintf(" and %d baseline", r.Baseline)
	}
	text += " requests"
	switch {
	case r.Outcome != Undecided:
		return text
	case r.Needed == Never && (r.Measure == QuantileRatio || r.Measure == QuantileSeconds):
		return text + "; more requests like these won't decide it: the buckets are too wide there, or the quantile is just at the limit"
	case r.Needed == Never:
		return text + "; more requests like these won't decide it: the rate is just at the limit"
	}
	return text + fmt.Sprintf("; about %d more canary requests are needed", about(r.Needed))
}

// about rounds up to two digits.
func about(n uint64) uint64 {
	unit := uint64(1)
	for n/unit >= 100 {
		unit *= 10
	}
	if n%unit == 0 || n > Never-unit {
		return n
	}
	return (n/unit + 1) * unit
}

func (r Result) value() string {
	switch r.Measure {
	case RateDifference:
		return fmt.Sprintf("failure rate %+.3g percentage points (%+.3g to %+.3g)", 100*r.Estimate, 100*r.Lower, 100*r.Upper)
	case FailureRate:
		return fmt.Sprintf("failure rate %.3g%% (%.3g%% to %.3g%%)", 100*r.Estimate, 100*r.Lower, 100*r.Upper)
	case QuantileRatio:
		return fmt.Sprintf("latency %.3g times the baseline's (%s)", r.Estimate, r.span(""))
	}
	return fmt.Sprintf("latency %.3g s (%s)", r.Estimate, r.span(" s"))
}

func (r Result) span(unit string) string {
	if r.Upper == Unbounded {
		return fmt.Sprintf("at least %.3g%s", r.Lower, unit)
	}
	return fmt.Sprintf("%.3g to %.3g%s", r.Lower, r.Upper, unit)
}

func (r Result) tolerance() string {
	switch r.Measure {
	case RateDifference:
		return fmt.Sprintf("tolerated %+.3g", 100*r.Tolerated)
	case FailureRate:
		return fmt.Sprintf("limit %.3g%%", 100*r.Tolerated)
	case QuantileRatio:
		return fmt.Sprintf("tolerated %.3g times", r.Tolerated)
	}
	return fmt.Sprintf("limit %.3g s", r.Tolerated)
}
