package pipeline_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// BenchmarkRun is what the engine itself costs: a run whose stages do nothing.
func BenchmarkRun(b *testing.B) {
	p, err := pipeline.New(pipeline.Config{
		Name:    "bench",
		Builder: &stagestest.Builder{}, Scanner: &stagestest.Scanner{}, Signer: &stagestest.Signer{},
		Deployer: &stagestest.Deployer{}, Verifiers: []stages.Verifier{&stagestest.Verifier{}},
		ScanGates: []stages.Gate[stages.Report]{stages.GateFunc[stages.Report](
			func(context.Context, stages.Report) (stages.Decision, error) {
				return stages.Decision{Gate: "any", Verdict: stages.Pass}, nil
			})},
	})
	require.NoError(b, err)
	for b.Loop() {
		_, err := p.Run(b.Context(), stages.Source{Dir: ".", Revision: "v1"})
		require.NoError(b, err)
	}
}
