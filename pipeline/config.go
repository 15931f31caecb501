package pipeline

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// The defaults of a [Config].
const (
	DefaultRollbackTimeout = 5 * time.Minute
	DefaultDrainTimeout    = 5 * time.Second
)

// Config composes a pipeline. Builder, Scanner, Signer, Deployer, and at least
// one scan gate and one verifier are required; everything else has a default.
type Config struct {
	// Name names the pipeline in events, errors and the journal, required.
	Name string

	// Builder makes the image.
	Builder stages.Builder
	// Scanner looks for vulnerabilities, and ScanGates decide on what it finds.
	// They are asked in order until one doesn't pass.
	Scanner   stages.Scanner
	ScanGates []stages.Gate[stages.Report]
	// PlanGates decide on what the deployment would change. They need a Deployer
	// that is a [stages.Planner]. The plan is made beside the scan.
	PlanGates []stages.Gate[stages.Plan]
	// Signer signs the image once the gates above have passed.
	Signer stages.Signer
	// SignatureVerifier proves that the image is signed before it is deployed. It
	// defaults to the Signer, if that can verify.
	SignatureVerifier stages.SignatureVerifier
	// Deployer releases the image. A failed run can only be rolled back if it is a
	// [stages.Compensator].
	Deployer stages.Deployer
	// Verifiers prove, in order, that the release runs, and ReleaseGates decide,
	// in order, whether it may stay. After a rollback, those that are a
	// [stages.RestoreVerifier] prove that what was restored runs; one that is wrapped
	// as a [stages.VerifierFunc] isn't asked.
	Verifiers    []stages.Verifier
	ReleaseGates []stages.Gate[stages.Release]

	// Retries says which stages are tried again, and how. By default none is.
	Retries Retries
	// OnInconclusive says what an inconclusive release gate means. By default it
	// stops the run, as an inconclusive scan or plan gate always does.
	OnInconclusive InconclusivePolicy
	// RollbackTimeout bounds each restore, together with the wait until what it has
	// restored runs. By default [DefaultRollbackTimeout].
	RollbackTimeout time.Duration

	// Journal remembers checkpoints, so that [Pipeline.Recover] can restore what
	// a killed process left. It defaults to a [MemoryJournal], which outlives a run
	// but not the process; see [FileJournal].
	Journal Journal
	// Observers are told what happens, each in order and on a goroutine of its own.
	Observers []Observer
	// DrainTimeout is how long the end of a run waits for observers that are
	// behind, by default [DefaultDrainTimeout].
	DrainTimeout time.Duration
	// RunID names runs, by default by time and chance. An ID must be new to the
	// journal. It is recorded with the release, so letters, digits and '-' suit best.
	RunID func() string
}

// InconclusivePolicy says what becomes of a release when a release gate can't
// decide. It has no say over scan and plan gates: an image is cleared for
// deployment by passes only.
type InconclusivePolicy int

// The policies.
const (
	// InconclusiveStops fails the run, and so restores what was before.
	InconclusiveStops InconclusivePolicy = iota
	// InconclusiveKeeps keeps the release and goes on. The decision is in the
	// result and in an event of kind [KindDecided].
	InconclusiveKeeps
)

// Stage names a step of a run in events, errors, results and the journal. The
// second and later gates and verifiers of a list have their place appended, as
// in "verify-2".
type Stage string

// The stages.
const (
	StageBuild           Stage = "build"
	StageScan            Stage = "scan"
	StageScanGate        Stage = "scan-gate"
	StagePlan            Stage = "plan"
	StagePlanGate        Stage = "plan-gate"
	StageSign            Stage = "sign"
	StageVerifySignature Stage = "verify-signature"
	StageClear           Stage = "clear"
	StageLock            Stage = "lock"
	StageDeploy          Stage = "deploy"
	StageVerify          Stage = "verify"
	StageReleaseGate     Stage = "release-gate"
	StageCommit          Stage = "commit"
	StageVerifyRestored  Stage = "verify-restored"
)

// nth returns the name of the stage at index i of a list.
func (s Stage) nth(i int) Stage {
	if i == 0 {
		return s
	}
	return Stage(fmt.Sprintf("%s-%d", s, i+1))
}

// withDefaults returns a copy in which nothing optional is missing, and which
// the caller's slices can no longer change.
func (c Config) withDefaults() Config {
	c.ScanGates = append([]stages.Gate[stages.Report](nil), c.ScanGates...)
	c.PlanGates = append([]stages.Gate[stages.Plan](nil), c.PlanGates...)
	c.Verifiers = append([]stages.Verifier(nil), c.Verifiers...)
	c.ReleaseGates = append([]stages.Gate[stages.Release](nil), c.ReleaseGates...)
	c.Observers = append([]Observer(nil), c.Observers...)
	if c.SignatureVerifier == nil {
		c.SignatureVerifier, _ = c.Signer.(stages.SignatureVerifier)
	}
	if c.RollbackTimeout == 0 {
		c.RollbackTimeout = DefaultRollbackTimeout
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
	if c.Journal == nil {
		c.Journal = NewMemoryJournal()
	}
	if c.RunID == nil {
		c.RunID = newRunID
	}
	return c
}

// validate reports everything that is wrong with a config that has its defaults.
func (c Config) validate() error {
	var problems []error
	wrong := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%w: pipeline %q: %w", stages.ErrInvalid, c.Name, fmt.Errorf(format, args...)))
	}
	if strings.TrimSpace(c.Name) == "" || strings.ContainsAny(c.Name, "\r\n") {
		wrong("a name of one line is required")
	}
	for _, required := range []struct {
		name  string
		value any
	}{{"a Builder", c.Builder}, {"a Scanner", c.Scanner}, {"a Signer", c.Signer}, {"a Deployer", c.Deployer}} {
		if isNil(required.value) {
			wrong("%s is required", required.name)
		}
	}
	if isNil(c.SignatureVerifier) {
		wrong("nobody verifies signatures: set SignatureVerifier, or use a Signer that can verify")
	}
	if len(c.ScanGates) == 0 {
		wrong("at least one scan gate is required, or vulnerabilities would stop nothing")
	}
	if len(c.Verifiers) == 0 {
		wrong("at least one Verifier is required, or a release would count as running that nobody has seen run")
	}
	if _, ok := c.Deployer.(stages.Planner); !ok && len(c.PlanGates) > 0 {
		wrong("plan gates need a Deployer that can plan, which %T can't", c.Deployer)
	}
	for _, list := range []struct {
		name string
		hole int
	}{
		{"ScanGates", firstNil(c.ScanGates)}, {"PlanGates", firstNil(c.PlanGates)}, {"Verifiers", firstNil(c.Verifiers)},
		{"ReleaseGates", firstNil(c.ReleaseGates)}, {"Observers", firstNil(c.Observers)},
	} {
		if list.hole >= 0 {
			wrong("%s[%d] is nil", list.name, list.hole)
		}
	}
	if c.OnInconclusive != InconclusiveStops && c.OnInconclusive != InconclusiveKeeps {
		wrong("OnInconclusive is %d, which is no policy", int(c.OnInconclusive))
	}
	if c.RollbackTimeout < 0 || c.DrainTimeout < 0 {
		wrong("RollbackTimeout and DrainTimeout must not be negative")
	}
	if j, ok := c.Journal.(interface{ validate() error }); ok {
		if err := j.validate(); err != nil {
			wrong("%w", err)
		}
	}
	for _, err := range c.validateRetries() {
		wrong("%w", err)
	}
	return errors.Join(problems...)
}

// isNil also finds a nil pointer or function inside an interface.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Func, reflect.Pointer, reflect.Map, reflect.Slice, reflect.Chan:
		return r.IsNil()
	default:
		return false
	}
}

func firstNil[T any](list []T) int {
	for i, v := range list {
		if isNil(v) {
			return i
		}
	}
	return -1
}
