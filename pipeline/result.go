package pipeline

import (
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Result is what a run did. [Pipeline.Run] returns one in every case after its
// start; what the run didn't reach is zero.
type Result struct {
	// Run and Pipeline say which run it was.
	Run      string `json:"run"`
	Pipeline string `json:"pipeline"`
	// Source is what was delivered.
	Source stages.Source `json:"source"`
	// Started and Elapsed say when the run was, Elapsed in nanoseconds.
	Started time.Time     `json:"started"`
	Elapsed time.Duration `json:"elapsed"`
	// Outcome is the state that the run left behind.
	Outcome Outcome `json:"outcome"`

	// Image, Report, Plan, Signature, Release and Verifications are what the
	// stages returned. Signature is the one that was verified.
	Image         stages.Image          `json:"image,omitzero"`
	Report        *stages.Report        `json:"report,omitempty"`
	Plan          *stages.Plan          `json:"plan,omitempty"`
	Signature     *stages.Signature     `json:"signature,omitempty"`
	Release       *stages.Release       `json:"release,omitempty"`
	Verifications []stages.Verification `json:"verifications,omitempty"`
	// Decisions are those of all gates that decided, in the order they did; the
	// last one of each, where it was asked again.
	Decisions []stages.Decision `json:"decisions,omitempty"`
	// Restorations are what was undone, in that order.
	Restorations []Restoration `json:"restorations,omitempty"`

	// Timings are those of the stages, in the order in which they began.
	Timings []Timing `json:"timings"`
	// DroppedEvents counts the events that some observer was not told, because
	// it was too slow. ObserverPanics counts the times that one panicked.
	DroppedEvents  int `json:"droppedEvents,omitempty"`
	ObserverPanics int `json:"observerPanics,omitempty"`
}

// Timing is how long a stage took.
type Timing struct {
	Stage Stage `json:"stage"`
	// Started is when it began, Elapsed how long it took in nanoseconds, with its
	// checkpoint, its retries and the waits between them.
	Started time.Time     `json:"started"`
	Elapsed time.Duration `json:"elapsed"`
	// Attempts counts the calls of the stage; 0 if its checkpoint failed.
	Attempts int `json:"attempts"`
	// Status is [KindStageDone], [KindStageFailed] or [KindStageCancelled].
	Status Kind `json:"status"`
}

// Outcome is the state that a run or recovery left behind.
type Outcome string

// The outcomes.
const (
	// OutcomeReleased means that the release is deployed and verified.
	OutcomeReleased Outcome = "released"
	// OutcomeUntouched means that nothing was deployed and nothing needed undoing.
	OutcomeUntouched Outcome = "untouched"
	// OutcomeRolledBack means that every checkpoint was restored, and that what was
	// restored runs, as far as there was a verifier to look.
	OutcomeRolledBack Outcome = "rolled-back"
	// OutcomeNotReady means that every checkpoint was restored, and that what was
	// restored is not seen to run.
	OutcomeNotReady Outcome = "restored-not-ready"
	// OutcomeRollbackFailed means that a restore left differences or was impossible.
	OutcomeRollbackFailed Outcome = "rollback-failed"
	// OutcomeLeft means that the release is deployed, that the run failed later, and
	// that the deployer can't restore what was before.
	OutcomeLeft Outcome = "left"
	// OutcomeUnknown means that a side effect or a restore failed half-way, so that
	// somebody has to look.
	OutcomeUnknown Outcome = "unknown"
)

// Restoration is what became of one checkpoint.
type Restoration struct {
	// Stage is whose checkpoint it was.
	Stage Stage `json:"stage"`
	// Restoration is what the stage did. Where Err is set, its outcome is empty
	// and its message says why. The message also says what came of verifying it.
	stages.Restoration
	// Verifications prove that the release which was restored runs. There are none
	// where there is no such release, or no [stages.RestoreVerifier].
	Verifications []stages.Verification `json:"verifications,omitempty"`
	// NotReady says why that release is not seen to run, and Evidence what was
	// observed.
	NotReady error             `json:"-"`
	Evidence []stages.Evidence `json:"evidence,omitempty"`
	// Elapsed is how long it took, in nanoseconds.
	Elapsed time.Duration `json:"elapsed"`
	// Err says why the outcome is not known.
	Err error `json:"-"`
}

// ok reports whether the state before is back.
func (r Restoration) ok() bool {
	return r.Err == nil && (r.Outcome == stages.Restored || r.Outcome == stages.Unchanged)
}

// errs returns why the state before is not back, or not known to be.
func (r Restoration) errs() (errs []error) {
	for _, err := range []error{r.Err, r.NotReady} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// uncompensated is a deployment that nothing can undo.
type uncompensated int

const (
	noDeploy uncompensated = iota
	deployFailed
	deployDone
)

// outcomeOf returns the state after a failed run.
func outcomeOf(deploy uncompensated, restorations []Restoration) Outcome {
	outcome := OutcomeUntouched
	if len(restorations) > 0 {
		outcome = OutcomeRolledBack
	}
	if deploy == deployDone {
		outcome = OutcomeLeft
	}
	for _, r := range restorations {
		if r.NotReady != nil {
			outcome = OutcomeNotReady
		}
	}
	for _, r := range restorations {
		if !r.ok() {
			outcome = OutcomeRollbackFailed
		}
	}
	for _, r := range restorations {
		if r.Err != nil {
			outcome = OutcomeUnknown
		}
	}
	if deploy == deployFailed {
		outcome = OutcomeUnknown
	}
	return outcome
}
