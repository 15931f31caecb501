package stagestest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/fairlead-dev/fairlead/stages"
)

// recorder is a T that remembers whether a check failed on it.
type recorder struct {
	ctx    context.Context
	failed bool
}

type failNow struct{}

func (r *recorder) Errorf(string, ...any)    { r.failed = true }
func (r *recorder) FailNow()                 { r.failed = true; panic(failNow{}) }
func (r *recorder) Context() context.Context { return r.ctx }

// failing returns the names of the checks that h does not pass.
func failing[H any](t *testing.T, checks []check[H], newHarness func() H) []string {
	var names []string
	for _, c := range checks {
		r := &recorder{ctx: t.Context()}
		func() {
			defer func() {
				if p := recover(); p != nil && p != any(failNow{}) {
					panic(p)
				}
			}()
			c.run(r, newHarness())
		}()
		if r.failed {
			names = append(names, c.name)
		}
	}
	return names
}

// Each implementation breaks one rule of the contract, which exactly the checks
// named must notice.
func TestBrokenImplementationsFail(t *testing.T) {
	good, bad, missing := Image("good"), Image("bad"), Image("missing")

	builder := func(b stages.BuilderFunc) []string {
		return failing(t, builderChecks, func() BuilderHarness {
			return BuilderHarness{Builder: b, Source: stages.Source{Dir: ".", Revision: "v1"}, Broken: stages.Source{Dir: "broken"}}
		})
	}
	fakeBuild := func(ctx context.Context, src stages.Source) (stages.Image, error) {
		if src.Dir == "broken" {
			return stages.Image{}, stages.Permanent(errors.New("does not compile"))
		}
		return (&Builder{}).Build(ctx, src)
	}
	assert.Empty(t, builder(fakeBuild))
	assert.Contains(t, builder(func(ctx context.Context, src stages.Source) (stages.Image, error) {
		_, err := fakeBuild(ctx, src)
		return stages.Image{}, err
	}), "returns an image")
	assert.Equal(t, []string{"stops when cancelled"}, builder(func(ctx context.Context, src stages.Source) (stages.Image, error) {
		return fakeBuild(context.WithoutCancel(ctx), src)
	}))
	assert.Equal(t, []string{"refuses a source without a directory", "refuses a malformed tag"},
		builder(func(ctx context.Context, src stages.Source) (stages.Image, error) {
			if src.Dir != "broken" {
				src = stages.Source{Dir: ".", Revision: src.Revision}
			}
			return fakeBuild(ctx, src)
		}))
	assert.Equal(t, []string{"a broken source fails for good"}, builder(func(ctx context.Context, src stages.Source) (stages.Image, error) {
		img, err := fakeBuild(ctx, src)
		if src.Dir == "broken" {
			err = errors.New("try again")
		}
		return img, err
	}))

	scanner := func(s stages.ScannerFunc) []string {
		return failing(t, scannerChecks, func() ScannerHarness { return ScannerHarness{Scanner: s, Image: good, Missing: missing} })
	}
	fakeScan := func(ctx context.Context, img stages.Image) (stages.Report, error) {
		if img == missing {
			return stages.Report{}, errors.New("not found")
		}
		return (&Scanner{}).Scan(ctx, img)
	}
	assert.Empty(t, scanner(fakeScan))
	assert.Equal(t, []string{"reports on the image it was given", "is safe for concurrent use"},
		scanner(func(ctx context.Context, img stages.Image) (stages.Report, error) {
			report, err := fakeScan(ctx, img)
			if err == nil {
				report.Image = bad
			}
			return report, err
		}))
	assert.Equal(t, []string{"orders findings worst first"}, scanner(func(ctx context.Context, img stages.Image) (stages.Report, error) {
		report, err := fakeScan(ctx, img)
		if err == nil {
			report.Findings = []stages.Finding{{ID: "a", Severity: stages.SeverityLow}, {ID: "b", Severity: stages.SeverityHigh}}
		}
		return report, err
	}))
	assert.Equal(t, []string{"fails on a missing image"}, scanner((&Scanner{}).Scan))

	signer := func(wrap func(*Signer) (stages.Signer, stages.SignatureVerifier)) []string {
		return failing(t, signerChecks, func() SignerHarness {
			store := &SignatureStore{}
			s, v := wrap(&Signer{Key: "ours", Store: store})
			return SignerHarness{Signer: s, Verifier: v, Stranger: &Signer{Key: "theirs", Store: store}, Image: good}
		})
	}
	assert.Empty(t, signer(func(s *Signer) (stages.Signer, stages.SignatureVerifier) { return s, s }))
	assert.Equal(t, []string{"an unsigned image does not verify", "a signature is of one image only", "refuses no image", "stops when cancelled"},
		signer(func(s *Signer) (stages.Signer, stages.SignatureVerifier) {
			return s, stages.SignatureVerifierFunc(func(_ context.Context, img stages.Image) (stages.Signature, error) {
				return s.signature(img), nil
			})
		}))
	assert.Equal(t, []string{"a signature is of one image only"}, signer(func(s *Signer) (stages.Signer, stages.SignatureVerifier) {
		return s, stages.SignatureVerifierFunc(func(ctx context.Context, img stages.Image) (stages.Signature, error) {
			if err := errors.Join(ready(ctx, nil), requireImage(img)); err != nil {
				return stages.Signature{}, err
			}
			store := s.store()
			store.mu.Lock()
			defer store.mu.Unlock()
			for signed := range store.signed { // whichever it is
				if signed.Repository() == img.Repository() {
					return s.signature(img), nil
				}
			}
			return stages.Signature{}, stages.ErrSignature
		})
	}))
	assert.Contains(t, signer(func(s *Signer) (stages.Signer, stages.SignatureVerifier) {
		return stages.SignerFunc(func(ctx context.Context, img stages.Image) (stages.Signature, error) {
			return s.signature(img), ready(ctx, requireImage(img))
		}), s
	}), "what is signed verifies")

	verifier := func(v stages.VerifierFunc) []string {
		return failing(t, verifierChecks, func() VerifierHarness {
			return VerifierHarness{Verifier: v, Good: stages.Release{Image: good}, Bad: stages.Release{Image: bad}}
		})
	}
	assert.Empty(t, verifier((&Verifier{Bad: bad}).Verify))
	assert.Equal(t, []string{"a bad release fails with evidence"}, verifier((&Verifier{}).Verify))
	assert.Contains(t, verifier(func(ctx context.Context, rel stages.Release) (stages.Verification, error) {
		v, err := (&Verifier{Bad: bad}).Verify(ctx, rel)
		v.Checks = nil
		return v, err
	}), "a good release verifies")

	restored := func(v restoreVerifierFunc) []string {
		return failing(t, verifierChecks, func() VerifierHarness {
			named := stages.Release{Image: good, Name: "fake", Namespace: "default"}
			return VerifierHarness{Verifier: v, Good: named, Bad: stages.Release{Image: bad}}
		})
	}
	assert.Empty(t, restored((&Verifier{Bad: bad}).VerifyRestored))
	assert.Equal(t, []string{"a restored release that doesn't run fails with evidence"},
		restored(func(_ context.Context, rel stages.Release) (stages.Verification, error) {
			return stages.Verification{Image: rel.Image, Checks: []stages.Check{{Name: "yes"}}}, nil
		}))
	assert.Equal(t, []string{"a restored release verifies"}, restored((&Verifier{Bad: bad}).Verify))

	gate := func(g stages.GateFunc[int]) []string {
		return failing(t, gateChecks[int](), func() GateHarness[int] { return GateHarness[int]{Gate: g, Good: 1, Bad: -1} })
	}
	assert.Equal(t, []string{"refuses what is bad, with reasons", "no data is never a pass", "stops when cancelled"},
		gate(func(context.Context, int) (stages.Decision, error) {
			return stages.Decision{Gate: "yes", Verdict: stages.Pass}, nil
		}))
	series := func(series stages.Gate[int]) []string {
		return failing(t, gateChecks[int](), func() GateHarness[int] {
			return GateHarness[int]{Gate: seriesGate{bySign, series}, Good: 1, Bad: -1}
		})
	}
	assert.Empty(t, series(bySign))
	assert.Equal(t, []string{"decides alike in a series"}, series(stages.GateFunc[int](func(context.Context, int) (stages.Decision, error) {
		return stages.Decision{Gate: "yes", Verdict: stages.Pass}, nil
	})))
	assert.Equal(t, []string{"decides alike in a series"}, series(nil))
	assert.Contains(t, gate(func(_ context.Context, n int) (stages.Decision, error) {
		return stages.Decision{}, fmt.Errorf("refused %d", n)
	}), "refuses what is bad, with reasons")
}

// bySign passes positive numbers and refuses negative ones.
var bySign stages.Gate[int] = stages.GateFunc[int](func(ctx context.Context, n int) (stages.Decision, error) {
	d := stages.Decision{Gate: "sign"}
	switch {
	case n > 0:
		d.Verdict = stages.Pass
	case n < 0:
		d.Verdict, d.Reasons = stages.Fail, []stages.Reason{{Rule: "negative", Message: "must be positive"}}
	}
	return d, context.Cause(ctx)
})

// seriesGate begins series of a kind of its own.
type seriesGate struct {
	stages.Gate[int]
	series stages.Gate[int]
}

func (g seriesGate) Series(int) stages.Gate[int] { return g.series }

// restoreVerifierFunc is a verifier that verifies restored releases in its own way.
type restoreVerifierFunc func(ctx context.Context, rel stages.Release) (stages.Verification, error)

func (restoreVerifierFunc) Verify(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	return (&Verifier{Bad: Image("bad")}).Verify(ctx, rel)
}

func (f restoreVerifierFunc) VerifyRestored(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	return f(ctx, rel)
}

// brokenDeployer breaks the rules that its fields name.
type brokenDeployer struct {
	*Deployer
	deploysUncleared, planDeploys, ignoresPlan, restoresOthers, restoresNothing, ignoresCancel bool
	uninstallsNothing, uninstallsOnce, uninstallsCancelled, recordsNothing, recordsOthers      bool
	tellsTheUndone, tellsOnce                                                                  bool
}

func (d brokenDeployer) Uninstall(ctx context.Context, run string) (stages.Removal, error) {
	if d.uninstallsCancelled {
		ctx = context.WithoutCancel(ctx)
	}
	state, _ := d.State(ctx)
	switch {
	case d.uninstallsNothing:
		return stages.Removal{Release: "default/fake", Removed: []stages.Object{fakeObject}}, ready(ctx, nil)
	case d.uninstallsOnce && state == "":
		return stages.Removal{}, errors.New("not found")
	}
	return d.Deployer.Uninstall(ctx, run)
}

func (d brokenDeployer) RecordFailure(ctx context.Context, run string, cause error) error {
	switch {
	case d.recordsNothing:
		return ready(ctx, nil)
	case d.recordsOthers:
		run = d.current().run
	}
	return d.Deployer.RecordFailure(ctx, run, cause)
}

func (d brokenDeployer) Deploy(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	if d.ignoresCancel {
		ctx = context.WithoutCancel(ctx)
	}
	if d.ignoresPlan {
		req.Plan = ""
	}
	if d.deploysUncleared && req.Clearance.Check() != nil {
		req.Clearance, _ = stages.BypassGates(Image("any"), "broken")
	}
	return d.Deployer.Deploy(ctx, req)
}

func (d brokenDeployer) Plan(ctx context.Context, req stages.PlanRequest) (stages.Plan, error) {
	plan, err := d.Deployer.Plan(ctx, req)
	if d.planDeploys && err == nil {
		clearance, _ := stages.BypassGates(req.Image, "broken")
		_, err = d.Deployer.Deploy(ctx, stages.DeployRequest{Clearance: clearance, Run: req.Run})
	}
	return plan, err
}

func (d brokenDeployer) Restore(ctx context.Context, run string, cp stages.Checkpoint) (stages.Restoration, error) {
	if d.restoresNothing {
		return stages.Restoration{Subject: cp.Subject, Outcome: stages.Restored, Message: "done"}, ready(ctx, nil)
	}
	if d.restoresOthers {
		d.mu.Lock()
		for i := range d.history {
			d.history[i].run = run
		}
		d.mu.Unlock()
	}
	undone := d.current().release(0)
	restored, err := d.Deployer.Restore(ctx, run, cp)
	switch {
	case d.tellsTheUndone && restored.Outcome == stages.Restored:
		restored.Release = &undone
	case d.tellsOnce && restored.Outcome == stages.Unchanged:
		restored.Release = nil
	}
	return restored, err
}

func (d brokenDeployer) Checkpoint(ctx context.Context, req stages.CheckpointRequest) (stages.Checkpoint, error) {
	cp, err := d.Deployer.Checkpoint(ctx, req)
	if d.restoresNothing {
		cp.State = json.RawMessage(`{}`)
	}
	return cp, err
}

func TestBrokenDeployersFail(t *testing.T) {
	for name, test := range map[string]struct {
		broken brokenDeployer
		want   []string
	}{
		"sound":              {broken: brokenDeployer{}},
		"deploys uncleared":  {brokenDeployer{deploysUncleared: true}, []string{"refuses what is not cleared"}},
		"ignores the cancel": {brokenDeployer{ignoresCancel: true}, []string{"stops when cancelled"}},
		"plan deploys":       {brokenDeployer{planDeploys: true}, []string{"planning changes nothing"}},
		"ignores the plan":   {brokenDeployer{ignoresPlan: true}, []string{"a deployment is bound to its plan"}},
		"restores others'":   {brokenDeployer{restoresOthers: true}, []string{"restoring does not undo somebody else's work"}},
		"tells what was undone": {brokenDeployer{tellsTheUndone: true}, []string{
			"restoring a failed install leaves nothing", "restoring a failed upgrade brings the release back",
		}},
		"tells only once": {brokenDeployer{tellsOnce: true}, []string{"restoring a failed upgrade brings the release back"}},
		"restores nothing": {brokenDeployer{restoresNothing: true}, []string{
			"restoring a failed install leaves nothing", "restoring a failed upgrade brings the release back",
			"restoring what never happened changes nothing", "restoring does not undo somebody else's work",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, failing(t, deployerChecks, func() DeployerHarness {
				d := test.broken
				d.Deployer = &Deployer{}
				return DeployerHarness{Deployer: d, First: Image("v1"), Second: Image("v2"), State: d.State}
			}))
		})
	}
}

func TestBrokenUninstallersAndRecordersFail(t *testing.T) {
	for name, test := range map[string]struct {
		broken brokenDeployer
		want   []string
	}{
		"sound": {broken: brokenDeployer{}},
		"uninstalls nothing": {brokenDeployer{uninstallsNothing: true}, []string{
			"removes what was deployed", "a release that isn't there is no error", "what was removed can be deployed again",
		}},
		"uninstalls once":                   {brokenDeployer{uninstallsOnce: true}, []string{"a release that isn't there is no error"}},
		"uninstalls in spite of the cancel": {brokenDeployer{uninstallsCancelled: true}, []string{"uninstall stops when cancelled"}},
		"records nothing": {brokenDeployer{recordsNothing: true}, []string{
			"changes nothing but the record", "the record outlives the restore",
		}},
		"records at others' releases": {brokenDeployer{recordsOthers: true}, []string{"a run that has released nothing is no error"}},
	} {
		t.Run(name, func(t *testing.T) {
			harness := func() FailureRecorderHarness {
				d := test.broken
				d.Deployer = &Deployer{}
				return FailureRecorderHarness{DeployerHarness{Deployer: d, First: Image("v1"), Second: Image("v2"), State: d.State}, d.Failures}
			}
			got := failing(t, uninstallerChecks, func() DeployerHarness { return harness().DeployerHarness })
			assert.Equal(t, test.want, append(got, failing(t, failureRecorderChecks, harness)...))
		})
	}
}
