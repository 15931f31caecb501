package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/environment"
	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestPromotion delivers a branch to staging, and the very image from there to
// production, once it is approved.
func TestPromotion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := labtest.Context(t)
	set, err := environment.New(
		environment.Environment{Name: "staging", Namespace: w.namespace(t), Branches: []string{"develop"}, ValuesFiles: []string{chartDir + "/values-stg.yaml"}},
		environment.Environment{
			Name: "production", Namespace: w.namespace(t), Branches: []string{"main"}, PromotesFrom: "staging",
			Approvals: environment.Approvals{Required: 1, From: []string{"ada"}},
		},
	)
	require.NoError(t, err)
	staging, err := set.Resolve(environment.Branch("develop"))
	require.NoError(t, err)
	production, err := set.Resolve(environment.Branch("main"))
	require.NoError(t, err)
	open := func(e environment.Environment) *environment.Deployer {
		d, err := environment.NewDeployer(e, helmx.Config{
			Chart: chartDir, Release: release,
			Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
			Kubernetes: helmx.Kubernetes{REST: w.rest},
		})
		require.NoError(t, err)
		return d
	}

	toStaging := w.delivery(t, staging.Namespace)
	toStaging.Deployer = open(staging)
	staged, err := run(t, toStaging, source("1.0.0"))
	require.NoError(t, err)
	w.requireRunning(t, staging.Namespace, staged.Image)

	running := open(staging)
	t.Cleanup(func() { assert.NoError(t, running.Close()) })
	promotion, err := environment.NewPromotion(environment.PromotionConfig{
		From: staging, To: production, Source: running, Verifier: w.verifiers(t, w.rest)[0],
	})
	require.NoError(t, err)
	_, err = promotion.Build(ctx, source("2.0.0"))
	require.ErrorContains(t, err, "asked for was commit")

	deliver := func(approvals environment.Approved) (*pipeline.Result, error) {
		gate, err := environment.NewApprovalGate(environment.ApprovalGateConfig{Environment: production, Approver: approvals})
		require.NoError(t, err)
		toProduction := w.delivery(t, production.Namespace)
		toProduction.Builder, toProduction.Deployer = promotion, open(production)
		toProduction.PlanGates = append(toProduction.PlanGates, gate)
		return run(t, toProduction, source("1.0.0"))
	}
	result, err := deliver(nil)
	require.ErrorIs(t, err, stages.ErrInconclusive)
	assert.Equal(t, pipeline.OutcomeUntouched, result.Outcome)
	result, err = deliver(environment.Approved{{
		By: "ada", At: result.Started, Environment: "production", Digest: staged.Image.Digest(),
	}})
	require.NoError(t, err)
	assert.Equal(t, staged.Image, result.Image)
	w.requireRunning(t, production.Namespace, staged.Image)
}
