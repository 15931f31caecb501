package traffic

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Step is one step of a canary.
type Step struct {
	// Weight is the canary's share of the traffic in percent, from 1 to 100 and not
	// below that of the step before. The router brings about what is nearest to it.
	Weight int
	// For is how long the step takes at least. The gates must pass at its end.
	For time.Duration
	// Extend is for how much longer the step may wait for a gate that can't decide
	// yet. After that, or at once if it is 0, an inconclusive gate aborts.
	Extend time.Duration
	// Gates are looked at, all at once, when the step begins, at every interval and
	// at its end. They are asked about the canary's release. One that says Fail
	// aborts at any look; only at the end does Inconclusive count, and an error
	// counts as that. A [stages.SeriesGate] decides on all looks of a step together,
	// and its chance of a false alarm is shared out to the steps that have gates; a
	// step that is gone on with in another process counts as one more.
	Gates []stages.Gate[stages.Release]
}

// CanaryConfig configures a [Canary]. Stable, Canary, Router, Steps and State
// are required, and so is a verifier.
type CanaryConfig struct {
	// Stable deploys the release that serves. It must be a [stages.Compensator], a
	// [stages.Planner] and a [stages.Locker], as helmx's is.
	Stable stages.Deployer
	// Canary deploys the same application under another name; no other release may
	// have that name, as the canary is removed in the end. It must be a
	// [stages.Uninstaller].
	Canary stages.Deployer
	// Verifiers are asked in order about the canary before it gets traffic, and
	// about the stable release after its upgrade. Where an abort has to restore that,
	// those that are a [stages.RestoreVerifier] say when it runs again, and it gets the
	// traffic then and not before.
	Verifiers []stages.Verifier
	// Watch is asked about the canary again and again while it has traffic, and at
	// the end of each step. Default the first of Verifiers.
	Watch stages.Verifier
	// Router divides the traffic.
	Router Router
	// Steps are what the canary goes through. One step of weight 100 is a blue/green
	// deployment.
	Steps []Step
	// State keeps what is under way where other processes find it.
	State State
	// Resume has a run go on with the canary of a process that died, at its step,
	// if it is of the same image and there still is that step. By default it is
	// aborted, and the new run's own begins anew. It makes the canary's release again in
	// any case.
	Resume bool
	// Interval is the time between two looks at the gates. Default 10 seconds.
	Interval time.Duration
	// GateTimeout bounds one look of a gate, which is then inconclusive. Default 30
	// seconds. A gate that watches for a while before it decides needs more than the
	// time-out of its own, unless it is a [stages.SeriesGate], such as a comparison of
	// metrics, which goes on at the next look. Until it answers, the other gates are
	// asked again at every interval.
	GateTimeout time.Duration
	// SettleTimeout bounds the wait for a weight to take effect, and before the first
	// step that for the route to be served at all. Default 2 minutes.
	SettleTimeout time.Duration
	// Drain is how long the canary goes on running after all traffic has been seen
	// to go elsewhere, for the requests that are under way and for proxies that lag
	// behind. Default 5 seconds, none if negative.
	Drain time.Duration
	// AbortTimeout bounds an abort, and the restore of the stable release before it,
	// with its verification, once more. Default 5 minutes.
	AbortTimeout time.Duration
	// EvidenceTimeout bounds the diagnosis of the canary in an abort. Default 10
	// seconds.
	EvidenceTimeout time.Duration
}

// The defaults of [CanaryConfig].
const (
	DefaultInterval        = 10 * time.Second
	DefaultGateTimeout     = 30 * time.Second
	DefaultSettleTimeout   = 2 * time.Minute
	DefaultDrain           = 5 * time.Second
	DefaultAbortTimeout    = 5 * time.Minute
	DefaultEvidenceTimeout = 10 * time.Second
)

// prepare fills in the defaults, and returns what is wrong with c.
func (c *CanaryConfig) prepare() (problems []error) {
	c.Steps, c.Verifiers = slices.Clone(c.Steps), slices.Clone(c.Verifiers)
	c.Interval = cmp.Or(c.Interval, DefaultInterval)
	c.GateTimeout = cmp.Or(c.GateTimeout, DefaultGateTimeout)
	c.SettleTimeout = cmp.Or(c.SettleTimeout, DefaultSettleTimeout)
	c.Drain = cmp.Or(c.Drain, DefaultDrain)
	c.AbortTimeout = cmp.Or(c.AbortTimeout, DefaultAbortTimeout)
	c.EvidenceTimeout = cmp.Or(c.EvidenceTimeout, DefaultEvidenceTimeout)
	if c.Watch == nil && len(c.Verifiers) > 0 {
		c.Watch = c.Verifiers[0]
	}
	problems = c.checkParts()
	for i, s := range c.Steps {
		switch {
		case s.Weight < 1 || s.Weight > 100:
			problems = append(problems, fmt.Errorf("Steps[%d]: Weight %d is not from 1 to 100", i, s.Weight))
		case i > 0 && s.Weight < c.Steps[i-1].Weight:
			problems = append(problems, fmt.Errorf("Steps[%d]: Weight %d is below that of the step before", i, s.Weight))
		case s.For < 0 || s.Extend < 0:
			problems = append(problems, fmt.Errorf("Steps[%d]: For and Extend can't be negative", i))
		case slices.Contains(s.Gates, nil):
			problems = append(problems, fmt.Errorf("Steps[%d]: a gate is nil", i))
		}
	}
	for name, d := range map[string]time.Duration{
		"Interval": c.Interval, "GateTimeout": c.GateTimeout, "SettleTimeout": c.SettleTimeout,
		"AbortTimeout": c.AbortTimeout, "EvidenceTimeout": c.EvidenceTimeout,
	} {
		if d < 0 {
			problems = append(problems, fmt.Errorf("%s can't be negative", name))
		}
	}
	return problems
}

// gated returns how many steps have gates.
func (c *CanaryConfig) gated() int {
	n := 0
	for _, s := range c.Steps {
		if len(s.Gates) > 0 {
			n++
		}
	}
	return n
}

func (c *CanaryConfig) checkParts() (problems []error) {
	require := func(ok bool, problem string) {
		if !ok {
			problems = append(problems, errors.New(problem))
		}
	}
	require(c.Router != nil, "Router is required")
	require(c.State != nil, "State is required; NewConfigMap makes one")
	require(len(c.Steps) > 0, "Steps are required; one of weight 100 makes a blue/green deployment")
	require(c.Watch != nil && len(c.Verifiers) > 0 && !slices.Contains(c.Verifiers, nil),
		"Verifiers are required: a canary that isn't known to run must get no traffic")
	return problems
}
