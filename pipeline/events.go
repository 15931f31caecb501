package pipeline

import (
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Kind says what an [Event] tells.
type Kind string

// The kinds. Every run sends one of KindRunStarted first and one of
// KindRunSucceeded and KindRunFailed last. A stage that has started is later
// done, failed or cancelled, exactly once.
const (
	KindRunStarted   Kind = "run-started"
	KindRunSucceeded Kind = "run-succeeded"
	// KindRunFailed has the run's [Error] as text, the outcome as message, and the
	// evidence.
	KindRunFailed Kind = "run-failed"

	KindStageStarted Kind = "stage-started"
	KindStageDone    Kind = "stage-done"
	// KindStageFailed has the evidence.
	KindStageFailed Kind = "stage-failed"
	// KindStageCancelled is a stage that stopped because its context ended: the
	// run was cancelled, or the work beside it failed.
	KindStageCancelled Kind = "stage-cancelled"
	// KindRetrying is an attempt that failed and will be followed by another.
	KindRetrying Kind = "retrying"
	// KindProgress is what a stage reported by [stages.ReportProgress].
	KindProgress Kind = "progress"
	// KindWaiting is a stage that goes on although it was cancelled. The run waits
	// for it, because it may still be changing something.
	KindWaiting Kind = "waiting"
	// KindDecided has a gate's decision.
	KindDecided Kind = "decided"
	// KindPlanned has what the deployment would change.
	KindPlanned Kind = "planned"
	// KindCheckpointed is a side effect whose undoing is in the journal.
	KindCheckpointed Kind = "checkpointed"

	// KindFailureRecorded is a release whose record says by now why it failed, and
	// KindFailureNotRecorded one whose record could not be written, which changes
	// nothing about the run.
	KindFailureRecorded    Kind = "failure-recorded"
	KindFailureNotRecorded Kind = "failure-not-recorded"

	KindRestoring Kind = "restoring"
	// KindRestored has what was restored; its outcome may still be a bad one.
	KindRestored Kind = "restored"
	// KindRestoreFailed is a restore whose outcome is not known.
	KindRestoreFailed Kind = "restore-failed"

	// KindRecoveryStarted and KindRecoveryFinished bracket what is done about an
	// unfinished run, under that run's ID.
	KindRecoveryStarted  Kind = "recovery-started"
	KindRecoveryFinished Kind = "recovery-finished"
)

// Event is one thing that happened in a run. Treat it as immutable.
type Event struct {
	// Run and Pipeline say in which run of what.
	Run      string `json:"run"`
	Pipeline string `json:"pipeline"`
	// Seq counts the events of a run from 1, or of a recovery. A gap is an event
	// that was dropped.
	Seq int64 `json:"seq"`
	// Time is when it happened.
	Time time.Time `json:"time"`
	// Stage is which stage it happened to; empty for the run as a whole.
	Stage Stage `json:"stage,omitempty"`
	// Kind says what happened.
	Kind Kind `json:"kind"`
	// Attempt counts from 1; 0 where it means nothing.
	Attempt int `json:"attempt,omitempty"`
	// Elapsed is how long it took, in nanoseconds.
	Elapsed time.Duration `json:"elapsed,omitempty"`
	// ID is the same for all progress about one piece of work; see [stages.Progress].
	ID string `json:"id,omitempty"`
	// Subject is what it is about: a folder, an image, a release.
	Subject string `json:"subject,omitempty"`
	// Message is one line for people.
	Message string `json:"message,omitempty"`
	// Error is why it failed.
	Error string `json:"error,omitempty"`

	// Evidence is what was observed about a failure.
	Evidence []stages.Evidence `json:"evidence,omitempty"`
	// Decision is a gate's.
	Decision *stages.Decision `json:"decision,omitempty"`
	// Changes are a plan's, with their diffs.
	Changes []stages.Change `json:"changes,omitempty"`
	// Restoration is what was restored.
	Restoration *stages.Restoration `json:"restoration,omitempty"`
	// Outcome is what a run or a recovery left behind, at its end.
	Outcome Outcome `json:"outcome,omitempty"`
}

// droppable events may be lost on an observer that is behind.
func (e *Event) droppable() bool { return e.Kind == KindProgress || e.Kind == KindWaiting }

// Observer is told what happens in a run, such as to show it or to send it on.
// The events of a run come in order and one at a time, on a goroutine of the
// observer's own. One that is behind loses the oldest progress, never anything
// else, until the run ends: then it has [Config.DrainTimeout] left. A panic is
// swallowed and counted in the result. The one thing of a run that can outlive
// it is a call of Observe that doesn't return.
type Observer interface {
	Observe(e Event)
}

// ObserverFunc lets a function serve as an [Observer].
type ObserverFunc func(e Event)

// Observe calls f.
func (f ObserverFunc) Observe(e Event) { f(e) }
