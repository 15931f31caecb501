package pipeline_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// The smallest pipeline, with a function for each stage.
func Example() {
	image, err := stages.ParseImage("registry.example.com/shop@sha256:" + strings.Repeat("5", 64))
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := pipeline.New(pipeline.Config{
		Name: "shop",
		Builder: stages.BuilderFunc(func(context.Context, stages.Source) (stages.Image, error) {
			return image, nil
		}),
		Scanner: stages.ScannerFunc(func(_ context.Context, img stages.Image) (stages.Report, error) {
			return stages.Report{Image: img, Scanner: "example", Packages: 12}, nil
		}),
		ScanGates: []stages.Gate[stages.Report]{
			stages.GateFunc[stages.Report](func(_ context.Context, r stages.Report) (stages.Decision, error) {
				if len(r.Findings) > 0 {
					return stages.Decision{Gate: "no-findings", Verdict: stages.Fail}, nil
				}
				return stages.Decision{Gate: "no-findings", Verdict: stages.Pass}, nil
			}),
		},
		Signer: stages.SignerFunc(func(_ context.Context, img stages.Image) (stages.Signature, error) {
			return stages.Signature{Image: img}, nil
		}),
		SignatureVerifier: stages.SignatureVerifierFunc(func(_ context.Context, img stages.Image) (stages.Signature, error) {
			return stages.Signature{Image: img}, nil
		}),
		Deployer: stages.DeployerFunc(func(_ context.Context, req stages.DeployRequest) (stages.Release, error) {
			if err := req.Clearance.Check(); err != nil {
				return stages.Release{}, err
			}
			return stages.Release{Image: req.Clearance.Image(), Namespace: "shop", Name: "shop", Revision: 1}, nil
		}),
		Verifiers: []stages.Verifier{
			stages.VerifierFunc(func(_ context.Context, rel stages.Release) (stages.Verification, error) {
				return stages.Verification{Image: rel.Image, Checks: []stages.Check{{Name: "rollout Deployment shop/shop"}}}, nil
			}),
		},
		Observers: []pipeline.Observer{pipeline.ObserverFunc(func(e pipeline.Event) {
			if e.Kind == pipeline.KindStageDone {
				fmt.Println(e.Stage, "done")
			}
		})},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = p.Close() }()

	result, err := p.Run(context.Background(), stages.Source{Dir: "."})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Outcome, result.Image.Digest().Short())
	// Output:
	// build done
	// scan done
	// scan-gate done
	// sign done
	// verify-signature done
	// deploy done
	// verify done
	// released 555555555555
}
