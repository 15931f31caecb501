package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestRunReleases(t *testing.T) {
	f, rec, journal := newFake(t), &recorder{}, pipeline.NewMemoryJournal()
	c := config(f, rec)
	c.Journal = journal
	c.RunID = func() string { return "run-1" }
	res, err := newPipeline(t, c).Run(t.Context(), source)
	require.NoError(t, err)

	assert.Equal(t, pipeline.OutcomeReleased, res.Outcome)
	assert.Equal(t, "run-1", res.Run)
	assert.Equal(t, f.img, res.Image)
	assert.Equal(t, 3, res.Report.Packages)
	assert.Equal(t, "shop/shop", res.Plan.Release)
	assert.Equal(t, "k", res.Signature.KeyID)
	assert.Equal(t, 2, res.Release.Revision)
	assert.Len(t, res.Verifications, 1)
	assert.Len(t, res.Decisions, 3)
	assert.Empty(t, res.Restorations)
	assert.Equal(t, f.img.Digest().Short(), f.state())
	assert.Equal(t, plannedDigest, f.bound, "the deployment is bound to what the gates decided on")
	assert.Len(t, res.Timings, 10)
	for _, timing := range res.Timings {
		assert.Equal(t, pipeline.KindStageDone, timing.Status, timing.Stage)
		assert.Equal(t, 1, timing.Attempts, timing.Stage)
	}

	events := rec.all()
	assert.Equal(t, pipeline.KindRunStarted, events[0].Kind)
	assert.Equal(t, pipeline.KindRunSucceeded, events[len(events)-1].Kind)
	for i, e := range events {
		assert.EqualValues(t, i+1, e.Seq)
		assert.Equal(t, "run-1", e.Run)
		assert.Equal(t, "shop", e.Pipeline)
	}
	planned := rec.of(pipeline.KindPlanned)
	require.Len(t, planned, 1)
	assert.Equal(t, "0 to create, 1 to update, 0 to delete", planned[0].Message)
	assert.Equal(t, "-a\n+b\n", planned[0].Changes[0].Diff)

	entries, err := journal.Entries()
	require.NoError(t, err)
	var kinds []string
	for _, e := range entries {
		kinds = append(kinds, strings.TrimSuffix(fmt.Sprint(e.Kind, " ", e.Stage), " "))
	}
	assert.Equal(t, []string{"started", "starting build", "done build", "starting sign", "done sign",
		"checkpointed deploy", "done deploy", "finished"}, kinds)

	_, err = json.Marshal(res)
	require.NoError(t, err)
}

// Each stage fails in turn: later stages aren't reached, and only what comes
// after the checkpoint is rolled back.
func TestRunFailsAtEachStage(t *testing.T) {
	cause := errors.New("out of luck")
	for _, tc := range []struct {
		call    string
		stage   pipeline.Stage
		never   string
		outcome pipeline.Outcome
		is      []error
	}{
		{"build", pipeline.StageBuild, "scan", pipeline.OutcomeUntouched, nil},
		{"scan", pipeline.StageScan, "sign", pipeline.OutcomeUntouched, nil},
		{"scan-gate", pipeline.StageScanGate, "sign", pipeline.OutcomeUntouched, []error{stages.ErrInconclusive}},
		{"plan", pipeline.StagePlan, "sign", pipeline.OutcomeUntouched, nil},
		{"plan-gate", pipeline.StagePlanGate, "sign", pipeline.OutcomeUntouched, []error{stages.ErrInconclusive}},
		{"sign", pipeline.StageSign, "verify-signature", pipeline.OutcomeUntouched, nil},
		{"verify-signature", pipeline.StageVerifySignature, "checkpoint", pipeline.OutcomeUntouched, nil},
		{"checkpoint", pipeline.StageDeploy, "deploy", pipeline.OutcomeUntouched, nil},
		{"deploy", pipeline.StageDeploy, "verify", pipeline.OutcomeRolledBack, []error{stages.ErrRolledBack}},
		{"verify", pipeline.StageVerify, "release-gate", pipeline.OutcomeRolledBack, []error{stages.ErrRolledBack}},
		{"release-gate", pipeline.StageReleaseGate, "", pipeline.OutcomeRolledBack, []error{stages.ErrRolledBack, stages.ErrInconclusive}},
	} {
		t.Run(tc.call, func(t *testing.T) {
			f, rec := newFake(t), &recorder{}
			f.fail(tc.call, cause)
			res, err := newPipeline(t, config(f, rec)).Run(t.Context(), source)
			require.ErrorIs(t, err, cause)
			for _, class := range tc.is {
				assert.ErrorIs(t, err, class)
			}
			var failed *pipeline.Error
			require.ErrorAs(t, err, &failed)
			assert.Equal(t, tc.stage, failed.Stage)
			assert.Equal(t, tc.outcome, failed.Outcome)
			assert.Equal(t, tc.outcome, res.Outcome)
			assert.NotContains(t, f.Calls(), tc.never)
			assert.Equal(t, "before", f.state())
			assert.Equal(t, tc.outcome == pipeline.OutcomeRolledBack, errors.Is(err, stages.ErrRolledBack))
			assert.NotErrorIs(t, err, stages.ErrRollbackFailed)
			ends := rec.of(pipeline.KindRunFailed)
			require.Len(t, ends, 1)
			assert.Equal(t, err.Error(), ends[0].Error)
			assert.Contains(t, fmt.Sprintf("%+v", err), "cause: ")
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

// The same, with panics and with a goroutine ended by the stage.
func TestRunSurvivesPanics(t *testing.T) {
	for _, call := range []string{"build", "scan", "scan-gate", "plan", "plan-gate", "sign", "verify-signature", "checkpoint", "deploy", "verify", "release-gate"} {
		for name, crash := range map[string]func(context.Context, int) error{
			"panic":  func(context.Context, int) error { panic("boom") },
			"goexit": func(context.Context, int) error { runtime.Goexit(); return nil },
		} {
			t.Run(call+"/"+name, func(t *testing.T) {
				f := newFake(t)
				f.on[call] = crash
				_, err := newPipeline(t, config(f)).Run(t.Context(), source)
				require.ErrorIs(t, err, stages.ErrPanicked)
				assert.Equal(t, "before", f.state())
				if name == "panic" {
					assert.Contains(t, fmt.Sprintf("%+v", err), "fakes_test.go")
					assert.NotContains(t, err.Error(), "fakes_test.go")
				}
			})
		}
	}
}

func TestRestoreFails(t *testing.T) {
	broken := errors.New("API server away")
	for name, restore := range map[string]func(context.Context, int) error{
		"error":  func(context.Context, int) error { return broken },
		"panic":  func(context.Context, int) error { panic(broken) },
		"goexit": func(context.Context, int) error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			f, cause := newFake(t), errors.New("crash loop")
			f.fail("verify", cause)
			f.on["restore"] = restore
			p := newPipeline(t, config(f))
			res, err := p.Run(t.Context(), source)
			require.ErrorIs(t, err, cause)
			assert.ErrorIs(t, err, stages.ErrRollbackFailed)
			assert.ErrorIs(t, err, stages.ErrIndeterminate)
			assert.NotErrorIs(t, err, stages.ErrRolledBack)
			assert.Equal(t, pipeline.OutcomeUnknown, res.Outcome)
			if name != "goexit" {
				assert.ErrorIs(t, err, broken)
			}

			_, err = p.Run(t.Context(), source)
			require.ErrorIs(t, err, pipeline.ErrUnfinished)
			delete(f.on, "restore")
			recovered, err := p.Recover(t.Context())
			require.NoError(t, err)
			require.Len(t, recovered, 1)
			assert.Equal(t, res.Run, recovered[0].Run)
			assert.Equal(t, pipeline.OutcomeRolledBack, recovered[0].Outcome)
			assert.Equal(t, "before", f.state())
			recovered, err = p.Recover(t.Context())
			require.NoError(t, err)
			assert.Empty(t, recovered)
		})
	}
}

// compensated is a stage with its own checkpoint and a scripted restore.
type compensated struct {
	*fake
	name    string
	outcome stages.RestoreOutcome
	log     *[]string
}

func (c compensated) Checkpoint(context.Context, stages.CheckpointRequest) (stages.Checkpoint, error) {
	return stages.Checkpoint{Subject: c.name, State: json.RawMessage(`{}`)}, nil
}

func (c compensated) Restore(_ context.Context, _ string, cp stages.Checkpoint) (stages.Restoration, error) {
	*c.log = append(*c.log, c.name)
	return stages.Restoration{Subject: cp.Subject, Outcome: c.outcome, Message: "seen"}, nil
}

func TestRestoreOrderAndOutcomes(t *testing.T) {
	for _, tc := range []struct {
		sign    stages.RestoreOutcome
		outcome pipeline.Outcome
		class   error
	}{
		{stages.Restored, pipeline.OutcomeRolledBack, stages.ErrRolledBack},
		{stages.Unchanged, pipeline.OutcomeRolledBack, stages.ErrRolledBack},
		{stages.Diverged, pipeline.OutcomeRollbackFailed, stages.ErrRollbackFailed},
		{stages.Impossible, pipeline.OutcomeRollbackFailed, stages.ErrRollbackFailed},
		{"", pipeline.OutcomeUnknown, stages.ErrIndeterminate},
		{"perhaps", pipeline.OutcomeUnknown, stages.ErrIndeterminate},
	} {
		t.Run(string(tc.sign), func(t *testing.T) {
			f := newFake(t)
			f.fail("release-gate", verdict(stages.Fail))
			var log []string
			c := config(f)
			c.Builder = compensated{f, "build", stages.Unchanged, &log}
			c.Signer = compensated{f, "sign", tc.sign, &log}
			c.Deployer = compensated{f, "deploy", stages.Restored, &log}
			c.Verifiers = []stages.Verifier{stages.VerifierFunc(f.Verify), compensated{f, "verify", stages.Restored, &log}}
			res, err := newPipeline(t, c).Run(t.Context(), source)
			assert.Equal(t, []string{"verify", "deploy", "sign", "build"}, log)
			require.ErrorIs(t, err, tc.class)
			require.ErrorIs(t, err, stages.ErrGateRefused)
			assert.Equal(t, tc.outcome, res.Outcome)
			assert.Equal(t, pipeline.Stage("verify-2"), res.Restorations[0].Stage)
		})
	}
}

// plain hides what a deployer could do beside deploying.
type plain struct{ stages.Deployer }

func TestDeployerWithoutCompensation(t *testing.T) {
	for call, want := range map[string]struct {
		outcome pipeline.Outcome
		unknown bool
	}{
		"sign":   {pipeline.OutcomeUntouched, false},
		"deploy": {pipeline.OutcomeUnknown, true},
		"verify": {pipeline.OutcomeLeft, false},
	} {
		t.Run(call, func(t *testing.T) {
			f := newFake(t)
			f.fail(call, errors.New("no"))
			c := config(f)
			c.Deployer, c.PlanGates = plain{f}, nil
			p := newPipeline(t, c)
			res, err := p.Run(t.Context(), source)
			assert.Equal(t, want.outcome, res.Outcome)
			assert.Equal(t, want.unknown, errors.Is(err, stages.ErrIndeterminate))
			assert.NotErrorIs(t, err, stages.ErrRolledBack)
			assert.Nil(t, res.Plan)
			recovered, err := p.Recover(t.Context())
			require.NoError(t, err)
			assert.Empty(t, recovered, "a failed run is finished")
		})
	}
}

func TestForeignSubjects(t *testing.T) {
	for stage, swap := range map[pipeline.Stage]func(*pipeline.Config, *fake, stages.Image){
		pipeline.StageScan: func(c *pipeline.Config, _ *fake, other stages.Image) {
			c.Scanner = stages.ScannerFunc(func(context.Context, stages.Image) (stages.Report, error) {
				return stages.Report{Image: other}, nil
			})
		},
		pipeline.StagePlan: func(c *pipeline.Config, f *fake, other stages.Image) { c.Deployer = foreignPlan{f, other} },
		pipeline.StageSign: func(c *pipeline.Config, f *fake, other stages.Image) {
			c.Signer = stages.SignerFunc(func(context.Context, stages.Image) (stages.Signature, error) {
				return stages.Signature{Image: other}, nil
			})
		},
		pipeline.StageVerifySignature: func(c *pipeline.Config, _ *fake, other stages.Image) {
			c.SignatureVerifier = stages.SignatureVerifierFunc(func(context.Context, stages.Image) (stages.Signature, error) {
				return stages.Signature{Image: other}, nil
			})
		},
		pipeline.StageDeploy: func(c *pipeline.Config, f *fake, other stages.Image) { c.Deployer = foreignRelease{f, other} },
		pipeline.StageVerify: func(c *pipeline.Config, _ *fake, other stages.Image) {
			c.Verifiers = []stages.Verifier{stages.VerifierFunc(func(context.Context, stages.Release) (stages.Verification, error) {
				return stages.Verification{Image: other, Checks: []stages.Check{{Name: "x"}}}, nil
			})}
		},
	} {
		for _, other := range []stages.Image{image(t, "b"), {}} {
			t.Run(fmt.Sprint(stage, " zero ", other.IsZero()), func(t *testing.T) {
				f := newFake(t)
				c := config(f)
				c.Retries.Scan, c.Retries.Plan = pipeline.Backoff(5), pipeline.Backoff(5)
				swap(&c, f, other)
				_, err := newPipeline(t, c).Run(t.Context(), source)
				require.ErrorIs(t, err, stages.ErrSubjectMismatch)
				var failed *pipeline.Error
				require.ErrorAs(t, err, &failed)
				assert.Equal(t, stage, failed.Stage)
				assert.Equal(t, 1, failed.Attempts)
				assert.Equal(t, "before", f.state())
			})
		}
	}
}

type foreignPlan struct {
	*fake
	other stages.Image
}

func (d foreignPlan) Plan(context.Context, stages.PlanRequest) (stages.Plan, error) {
	return stages.Plan{Image: d.other}, nil
}

type foreignRelease struct {
	*fake
	other stages.Image
}

func (d foreignRelease) Deploy(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	rel, err := d.fake.Deploy(ctx, req)
	rel.Image = d.other
	return rel, err
}

// A signature of the same digest in another repository is caught by the clearance.
func TestSignatureOfAnotherRepository(t *testing.T) {
	f := newFake(t)
	other, err := stages.ParseImage("elsewhere.test/shop@" + f.img.Digest().String())
	require.NoError(t, err)
	c := config(f)
	c.SignatureVerifier = stages.SignatureVerifierFunc(func(context.Context, stages.Image) (stages.Signature, error) {
		return stages.Signature{Image: other}, nil
	})
	_, err = newPipeline(t, c).Run(t.Context(), source)
	require.ErrorIs(t, err, stages.ErrNotCleared)
	assert.NotContains(t, f.Calls(), "deploy")
}

func TestNothingIsNoPass(t *testing.T) {
	t.Run("no image", func(t *testing.T) {
		f := newFake(t)
		f.img = stages.Image{}
		_, err := newPipeline(t, config(f)).Run(t.Context(), source)
		require.ErrorContains(t, err, "the builder returned no image")
		assert.Equal(t, []string{"build"}, f.Calls())
	})
	t.Run("no checks", func(t *testing.T) {
		f := newFake(t)
		c := config(f)
		c.Verifiers = []stages.Verifier{stages.VerifierFunc(func(_ context.Context, rel stages.Release) (stages.Verification, error) {
			return stages.Verification{Image: rel.Image}, nil
		})}
		_, err := newPipeline(t, c).Run(t.Context(), source)
		require.ErrorIs(t, err, stages.ErrInconclusive)
		require.ErrorIs(t, err, stages.ErrRolledBack)
	})
}

func TestRunRefusals(t *testing.T) {
	f := newFake(t)
	c := config(f)
	c.RunID = func() string { return "same" }
	p := newPipeline(t, c)

	res, err := p.Run(t.Context(), stages.Source{})
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.Nil(t, res)

	_, err = p.Run(t.Context(), source)
	require.NoError(t, err)
	_, err = p.Run(t.Context(), source)
	require.ErrorIs(t, err, stages.ErrInvalid)
	require.ErrorContains(t, err, "same")
	c.RunID = func() string { return "" }
	_, err = newPipeline(t, c).Run(t.Context(), source)
	require.ErrorContains(t, err, "RunID returned no ID")

	require.NoError(t, p.Close())
	_, err = p.Run(t.Context(), source)
	require.ErrorIs(t, err, pipeline.ErrClosed)
	_, err = p.Recover(t.Context())
	require.ErrorIs(t, err, pipeline.ErrClosed)
}

func TestOneRunAtATime(t *testing.T) {
	f := newFake(t)
	p := newPipeline(t, config(f))
	f.on["build"] = func(ctx context.Context, _ int) error {
		res, err := p.Run(ctx, source)
		assert.ErrorIs(t, err, pipeline.ErrBusy)
		assert.Nil(t, res)
		_, err = p.Recover(ctx)
		assert.ErrorIs(t, err, pipeline.ErrBusy)
		return nil
	}
	_, err := p.Run(t.Context(), source)
	require.NoError(t, err)
}
