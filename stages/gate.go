package stages

import (
	"context"
	"fmt"
)

// Verdict is what a gate says. Its zero value is [Inconclusive], so that a
// decision nobody made is never a pass.
type Verdict int

// The verdicts.
const (
	// Inconclusive means that there was no data, or not enough, to decide.
	Inconclusive Verdict = iota
	// Pass lets the run go on.
	Pass
	// Fail stops it.
	Fail
)

var verdictNames = [...]string{Inconclusive: "inconclusive", Pass: "pass", Fail: "fail"}

// String returns "inconclusive", "pass" or "fail".
func (v Verdict) String() string {
	if v < 0 || int(v) >= len(verdictNames) {
		return fmt.Sprintf("verdict(%d)", int(v))
	}
	return verdictNames[v]
}

// MarshalText returns the verdict's name.
func (v Verdict) MarshalText() ([]byte, error) {
	if v < 0 || int(v) >= len(verdictNames) {
		return nil, fmt.Errorf("%w: verdict %d", ErrInvalid, int(v))
	}
	return []byte(verdictNames[v]), nil
}

// UnmarshalText parses a verdict's name.
func (v *Verdict) UnmarshalText(text []byte) error {
	for i, name := range verdictNames {
		if name == string(text) {
			*v = Verdict(i)
			return nil
		}
	}
	return fmt.Errorf("%w: verdict %s", ErrInvalid, quote(string(text)))
}

// Reason is one rule's finding in a [Decision].
type Reason struct {
	// Rule names what was checked, such as "CVE-2024-3094" or "main.deny".
	Rule string `json:"rule"`
	// Subject is what it was found in, such as "Deployment shop/shop".
	Subject string `json:"subject,omitempty"`
	// Message says what is wrong and what would mend it.
	Message string `json:"message"`
}

// Decision is a gate's verdict with its grounds.
type Decision struct {
	// Gate names the gate that decided.
	Gate string `json:"gate"`
	// Verdict is what it decided.
	Verdict Verdict `json:"verdict"`
	// Reasons are the grounds of anything but a pass.
	Reasons []Reason `json:"reasons,omitempty"`
	// Warnings are findings that don't stop the run.
	Warnings []Reason `json:"warnings,omitempty"`
}

// Gate decides whether a run may go on, from a [Report], a [Plan] or a
// [Release]. A refusal is a decision, not an error; an error says that the gate
// itself did not work, and counts as inconclusive.
type Gate[T any] interface {
	Decide(ctx context.Context, subject T) (Decision, error)
}

// GateFunc lets a function serve as a [Gate].
type GateFunc[T any] func(ctx context.Context, subject T) (Decision, error)

// Decide calls f.
func (f GateFunc[T]) Decide(ctx context.Context, subject T) (Decision, error) { return f(ctx, subject) }

// SeriesGate is the optional ability of a [Gate] to be asked again and again about
// a subject that goes on changing, as by the looks of a canary's step, and to decide
// on all that it has seen since the first. Without it each Decide is a decision of
// its own, and the chances of a false alarm add up. A gate that asks others passes
// the ability on by [GateSeries].
type SeriesGate[T any] interface {
	Gate[T]
	// Series begins a series of Decides about one subject, and asks nothing yet. The
	// gate that it returns goes on at each Decide where the last has ended, whatever
	// ended that; it decides one at a time, and holds nothing that has to be given up.
	// Such a gate's chance of a false alarm is that of all its series together, of
	// which there are at most the given number, at least 1.
	Series(of int) Gate[T]
}

// GateSeries begins a series of Decides, one of at most so many, if the gate is a
// [SeriesGate], and returns the gate itself otherwise.
func GateSeries[T any](gate Gate[T], of int) Gate[T] {
	if series, ok := gate.(SeriesGate[T]); ok {
		return series.Series(of)
	}
	return gate
}
