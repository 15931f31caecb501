package releaseset

import (
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Outcome is what became of a member.
type Outcome string

// The outcomes. Those from Restored on are of a restore: see
// [stages.RestoreOutcome].
const (
	// NotStarted means that the member was not touched.
	NotStarted Outcome = "not started"
	// Deployed means that the member is released, and verified if it has a verifier.
	Deployed Outcome = "deployed"
	// Removed means that the member is gone.
	Removed Outcome = "removed"
	// Restored means that the member was changed and is as before.
	Restored Outcome = "restored"
	// Unchanged means that there was nothing to restore.
	Unchanged Outcome = "unchanged"
	// NotReady means that the member is as before and is not seen to run, which is
	// looked for where its verifier is a [stages.RestoreVerifier].
	NotReady Outcome = "restored, not ready"
	// Diverged means that the member was restored and still differs.
	Diverged Outcome = "diverged"
	// Impossible means that the member can't be restored.
	Impossible Outcome = "impossible"
	// Unknown means that the restore could not be carried through.
	Unknown Outcome = "unknown"
)

// Result is what became of a set.
type Result struct {
	// Run is the run that it was applied by.
	Run string `json:"run"`
	// Members are in the order of the configuration.
	Members []MemberResult `json:"members"`
}

// MemberResult is what became of a member.
type MemberResult struct {
	// Member is its ID.
	Member string `json:"member"`
	// Outcome is the state that it was left in.
	Outcome Outcome `json:"outcome"`
	// Release is what was deployed, if it was, even if it was undone later.
	Release stages.Release `json:"release,omitzero"`
	// Removal is what was removed, if it was, even if it was brought back later.
	Removal stages.Removal `json:"removal,omitzero"`
	// Verification is the proof that it ran, where it has a verifier.
	Verification stages.Verification `json:"verification,omitzero"`
	// Restoration is what was undone, and what came of it.
	Restoration stages.Restoration `json:"restoration,omitzero"`
	// Err is why the member failed; RestoreErr why its restore did, or why what was
	// restored is not seen to run.
	Err        error `json:"-"`
	RestoreErr error `json:"-"`
	// Elapsed is how long it took to deploy and verify.
	Elapsed time.Duration `json:"elapsed"`
}

// Member returns the result of the member with that ID.
func (r Result) Member(id string) (MemberResult, bool) {
	for _, m := range r.Members {
		if m.Member == id {
			return m, true
		}
	}
	return MemberResult{}, false
}

func (m MemberResult) describe() string {
	text := m.Member + " " + string(m.Outcome)
	switch {
	case m.RestoreErr != nil:
		text += " (" + m.RestoreErr.Error() + ")"
	case m.Restoration.Message != "":
		text += " (" + m.Restoration.Message + ")"
	}
	return text
}

// outcomeOf translates the outcome of a restore.
func outcomeOf(o stages.RestoreOutcome) (Outcome, bool) {
	switch o {
	case stages.Restored:
		return Restored, true
	case stages.Unchanged:
		return Unchanged, true
	case stages.Diverged:
		return Diverged, true
	case stages.Impossible:
		return Impossible, true
	default:
		return Unknown, false
	}
}
