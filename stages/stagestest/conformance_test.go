package stagestest_test

import (
	"testing"

	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func TestFakesConform(t *testing.T) {
	t.Run("Builder", func(t *testing.T) {
		stagestest.TestBuilder(t, func(*testing.T) stagestest.BuilderHarness {
			return stagestest.BuilderHarness{
				Builder: &stagestest.Builder{},
				Source:  stages.Source{Dir: ".", Revision: "v1"},
			}
		})
	})
	t.Run("Scanner", func(t *testing.T) {
		stagestest.TestScanner(t, func(*testing.T) stagestest.ScannerHarness {
			return stagestest.ScannerHarness{
				Scanner: stages.ScannerFunc(scanAllBut(stagestest.Image("missing"))),
				Image:   stagestest.Image("v1"),
				Missing: stagestest.Image("missing"),
			}
		})
	})
	t.Run("Signer", func(t *testing.T) {
		stagestest.TestSigner(t, func(*testing.T) stagestest.SignerHarness {
			store := &stagestest.SignatureStore{}
			signer := &stagestest.Signer{Key: "ours", Store: store}
			return stagestest.SignerHarness{
				Signer: signer, Verifier: signer,
				Stranger: &stagestest.Signer{Key: "theirs", Store: store},
				Image:    stagestest.Image("v1"),
			}
		})
	})
	t.Run("Deployer", func(t *testing.T) {
		stagestest.TestDeployer(t, func(*testing.T) stagestest.DeployerHarness { return fakeDeployer().DeployerHarness })
	})
	t.Run("Uninstaller", func(t *testing.T) {
		stagestest.TestUninstaller(t, func(*testing.T) stagestest.DeployerHarness { return fakeDeployer().DeployerHarness })
	})
	t.Run("FailureRecorder", func(t *testing.T) {
		stagestest.TestFailureRecorder(t, func(*testing.T) stagestest.FailureRecorderHarness { return fakeDeployer() })
	})
	t.Run("Verifier", func(t *testing.T) {
		stagestest.TestVerifier(t, func(*testing.T) stagestest.VerifierHarness {
			bad := stagestest.Image("bad")
			return stagestest.VerifierHarness{
				Verifier: &stagestest.Verifier{Bad: bad},
				Good:     stages.Release{Image: stagestest.Image("good"), Name: "shop", Namespace: "shop"},
				Bad:      stages.Release{Image: bad, Name: "shop", Namespace: "shop"},
			}
		})
	})
	t.Run("Gate", func(t *testing.T) {
		stagestest.TestGate(t, func(*testing.T) stagestest.GateHarness[int] {
			return stagestest.GateHarness[int]{Gate: stages.GateFunc[int](decideSign), Good: 1, Bad: -1}
		})
	})
}

func fakeDeployer() stagestest.FailureRecorderHarness {
	d := &stagestest.Deployer{}
	return stagestest.FailureRecorderHarness{
		DeployerHarness: stagestest.DeployerHarness{
			Deployer: d, First: stagestest.Image("v1"), Second: stagestest.Image("v2"), State: d.State,
		},
		Recorded: d.Failures,
	}
}
