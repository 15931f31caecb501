package pipeline_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestErrorText(t *testing.T) {
	cause := errors.New("boom")
	restored := func(o stages.RestoreOutcome, err error) []pipeline.Restoration {
		return []pipeline.Restoration{{Stage: pipeline.StageDeploy, Restoration: stages.Restoration{Subject: "release shop/shop", Outcome: o, Message: "revision 3"}, Err: err}}
	}
	for want, e := range map[string]*pipeline.Error{
		"pipeline p: scan i: boom; nothing was deployed; mend the cause and run again": {
			Stage: pipeline.StageScan, Subject: "i", Attempts: 1, Cause: cause, Outcome: pipeline.OutcomeUntouched},
		"pipeline p: deploy not begun: boom; nothing was deployed; mend the cause and run again": {
			Stage: pipeline.StageDeploy, Cause: cause, Outcome: pipeline.OutcomeUntouched},
		"pipeline p: verify r: boom; rolled back: release shop/shop unchanged (revision 3); mend the cause and run again": {
			Stage: pipeline.StageVerify, Subject: "r", Attempts: 1, Cause: cause, Outcome: pipeline.OutcomeRolledBack, Restorations: restored(stages.Unchanged, nil)},
		"pipeline p: verify r: boom; rollback failed: release shop/shop diverged (revision 3); look at what differs and restore it by hand before running again": {
			Stage: pipeline.StageVerify, Subject: "r", Attempts: 1, Cause: cause, Outcome: pipeline.OutcomeRollbackFailed, Restorations: restored(stages.Diverged, nil)},
		"pipeline p: verify r: boom; what is deployed now is unknown: release shop/shop restore failed (revision 3); mend what stopped the restore and call Recover": {
			Stage: pipeline.StageVerify, Subject: "r", Attempts: 1, Cause: cause, Outcome: pipeline.OutcomeUnknown, Restorations: restored("", cause)},
		"pipeline p: deploy i: boom; what is deployed now is unknown, because the deployer can't roll back; look at the release before running again": {
			Stage: pipeline.StageDeploy, Subject: "i", Attempts: 1, Cause: cause, Outcome: pipeline.OutcomeUnknown},
		"pipeline p: verify r: boom; the release stays deployed, because its deployer can't roll back; mend the cause and run again": {
			Stage: pipeline.StageVerify, Subject: "r", Attempts: 1, Cause: cause, Outcome: pipeline.OutcomeLeft},
		"pipeline p: build s: journal failed; nothing was deployed; mend the journal and run again": {
			Stage: pipeline.StageBuild, Subject: "s", Attempts: 1, Cause: pipeline.ErrJournal, Outcome: pipeline.OutcomeUntouched},
		"pipeline p: build s: stage panicked; nothing was deployed; report the panic to the stage's author": {
			Stage: pipeline.StageBuild, Subject: "s", Attempts: 1, Cause: stages.ErrPanicked, Outcome: pipeline.OutcomeUntouched},
	} {
		e.Pipeline, e.Run = "p", "r-1"
		require.EqualError(t, e, want)
		assert.ErrorIs(t, e, e.Cause)
	}
}

func TestGateErrorNamesWhatItMust(t *testing.T) {
	decision := stages.Decision{Gate: "vulnerabilities", Verdict: stages.Fail, Reasons: []stages.Reason{
		{Rule: "CVE-1", Subject: "openssl", Message: "fixed in 3.1"}, {Rule: "CVE-2", Message: "b"},
		{Rule: "CVE-3", Message: "c"}, {Rule: "CVE-4", Message: "d"}, {Rule: "CVE-5", Message: "e"},
	}}
	err := &pipeline.GateError{Decision: decision}
	require.EqualError(t, err, "gate refused: vulnerabilities: CVE-1 in openssl: fixed in 3.1; CVE-2: b; CVE-3: c; and 2 more")
	assert.Contains(t, (&pipeline.Error{Cause: err, Attempts: 3}).Detail(), "    CVE-5: e\n", "the detail has them all")

	broken := errors.New("no connection")
	err = &pipeline.GateError{Decision: stages.Decision{Gate: "latency"}, Err: broken}
	require.EqualError(t, err, "gate inconclusive: latency did not work: no connection")
	require.ErrorIs(t, err, broken)
}
