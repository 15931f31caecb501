package stagestest

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// DeployerHarness is a deployer, with images to try it on and an eye on the
// cluster.
type DeployerHarness struct {
	// Deployer is the implementation. If it is a [stages.Planner] or a
	// [stages.Compensator], those contracts are checked too.
	Deployer stages.Deployer
	// First and Second are different images that can be deployed, one after the
	// other. Nothing is deployed yet.
	First, Second stages.Image
	// State describes what is deployed. Equal strings mean equal states; "" means
	// that nothing is.
	State func(ctx context.Context) (string, error)
}

// TestDeployer checks that an implementation keeps the contract of
// [stages.Deployer], and those of [stages.Planner] and [stages.Compensator] if
// it has these abilities.
func TestDeployer(t *testing.T, newHarness func(*testing.T) DeployerHarness) {
	runChecks(t, newHarness, deployerChecks)
}

var deployerChecks = []check[DeployerHarness]{
	{"refuses what is not cleared", func(t T, h DeployerHarness) {
		_, err := h.Deployer.Deploy(t.Context(), stages.DeployRequest{Run: "run-1"})
		require.Error(t, err)
		assert.ErrorIs(t, err, stages.ErrNotCleared)
		assert.True(t, stages.IsPermanent(err))
		h.requireState(t, "")
	}},
	{"stops when cancelled", func(t T, h DeployerHarness) {
		requireCancelled(t, func(ctx context.Context) error {
			_, err := h.Deployer.Deploy(ctx, request(t, h.First, "run-1"))
			return err
		})
		h.requireState(t, "")
	}},
	{"installs and upgrades", func(t T, h DeployerHarness) {
		first := h.deploy(t, h.First, "run-1")
		assert.Equal(t, 1, first.Revision)
		assert.Zero(t, first.Previous)
		installed := h.state(t)
		assert.NotEmpty(t, installed)
		second := h.deploy(t, h.Second, "run-2")
		assert.Greater(t, second.Revision, first.Revision)
		assert.Equal(t, first.Revision, second.Previous)
		assert.NotEqual(t, installed, h.state(t))
	}},
	{"planning changes nothing", func(t T, h DeployerHarness) {
		planner, ok := h.Deployer.(stages.Planner)
		if !ok {
			return
		}
		plan, err := planner.Plan(t.Context(), stages.PlanRequest{Image: h.First, Run: "run-1"})
		require.NoError(t, err)
		assert.Equal(t, h.First, plan.Image, "the plan must be about the image that was asked for")
		assert.NotEmpty(t, plan.Manifests)
		assert.NotEmpty(t, plan.Changes, "a first install changes something")
		h.requireState(t, "")
		_, err = planner.Plan(t.Context(), stages.PlanRequest{Run: "run-1"})
		requireInvalid(t, err, "a plan without an image")
		requireCancelled(t, func(ctx context.Context) error {
			_, err := planner.Plan(ctx, stages.PlanRequest{Image: h.First, Run: "run-1"})
			return err
		})
		require.NoError(t, inParallel(func() error {
			_, err := planner.Plan(t.Context(), stages.PlanRequest{Image: h.First, Run: "run-1"})
			return err
		}))
	}},
	{"planning what is deployed finds no change", func(t T, h DeployerHarness) {
		planner, ok := h.Deployer.(stages.Planner)
		if !ok {
			return
		}
		h.deploy(t, h.First, "run-1")
		plan, err := planner.Plan(t.Context(), stages.PlanRequest{Image: h.First, Run: "run-2"})
		require.NoError(t, err)
		assert.Empty(t, plan.Changes)
	}},
	{"a deployment is bound to its plan", func(t T, h DeployerHarness) {
		planner, ok := h.Deployer.(stages.Planner)
		if !ok {
			return
		}
		plan := func(img stages.Image, run string) string {
			p, err := planner.Plan(t.Context(), stages.PlanRequest{Image: img, Run: run})
			require.NoError(t, err)
			return p.Digest
		}
		bound := request(t, h.First, "run-1")
		if bound.Plan = plan(h.First, "run-1"); bound.Plan == "" {
			return
		}
		_, err := h.Deployer.Deploy(t.Context(), bound)
		require.NoError(t, err, "nothing has moved since the plan")
		bound = request(t, h.First, "run-2")
		bound.Plan = plan(h.First, "run-2")
		h.deploy(t, h.Second, "run-3")
		before := h.state(t)
		_, err = h.Deployer.Deploy(t.Context(), bound)
		require.ErrorIs(t, err, stages.ErrPlanStale)
		h.requireState(t, before)
	}},
	{"restoring a failed install leaves nothing", compensated(func(t T, h DeployerHarness, c stages.Compensator) {
		cp := checkpoint(t, c, h.First, "run-1")
		h.deploy(t, h.First, "run-1")
		requireNothingRuns(t, restore(t, c, "run-1", cp, stages.Restored))
		h.requireState(t, "")
		requireNothingRuns(t, restore(t, c, "run-1", cp, stages.Unchanged))
		h.requireState(t, "")
	})},
	{"restoring a failed upgrade brings the release back", compensated(func(t T, h DeployerHarness, c stages.Compensator) {
		first := h.deploy(t, h.First, "run-1")
		before := h.state(t)
		cp := checkpoint(t, c, h.Second, "run-2")
		h.deploy(t, h.Second, "run-2")
		restored := restore(t, c, "run-2", cp, stages.Restored)
		requireRelease(t, first, restored)
		h.requireState(t, before)
		again := restore(t, c, "run-2", cp, stages.Unchanged)
		assert.Equal(t, restored.Release == nil, again.Release == nil, "a restore that is repeated tells the same release")
		requireRelease(t, first, again)
		h.requireState(t, before)
	})},
	{"restoring what never happened changes nothing", compensated(func(t T, h DeployerHarness, c stages.Compensator) {
		cp := checkpoint(t, c, h.First, "run-1")
		requireNothingRuns(t, restore(t, c, "run-1", cp, stages.Unchanged))
		h.requireState(t, "")
		h.deploy(t, h.First, "run-1")
		before := h.state(t)
		cp = checkpoint(t, c, h.Second, "run-2")
		requireNothingRuns(t, restore(t, c, "run-2", cp, stages.Unchanged))
		h.requireState(t, before)
	})},
	{"restoring does not undo somebody else's work", compensated(func(t T, h DeployerHarness, c stages.Compensator) {
		h.deploy(t, h.First, "run-1")
		cp := checkpoint(t, c, h.Second, "run-2")
		h.deploy(t, h.Second, "run-2")
		h.deploy(t, h.First, "run-3")
		after := h.state(t)
		restore(t, c, "run-2", cp, stages.Impossible)
		h.requireState(t, after)
	})},
	{"restore stops when cancelled", compensated(func(t T, h DeployerHarness, c stages.Compensator) {
		cp := checkpoint(t, c, h.First, "run-1")
		h.deploy(t, h.First, "run-1")
		before := h.state(t)
		requireCancelled(t, func(ctx context.Context) error {
			_, err := c.Restore(ctx, "run-1", cp)
			return err
		})
		h.requireState(t, before)
	})},
}

func compensated(run func(t T, h DeployerHarness, c stages.Compensator)) func(T, DeployerHarness) {
	return func(t T, h DeployerHarness) {
		if c, ok := h.Deployer.(stages.Compensator); ok {
			run(t, h, c)
		}
	}
}

func (h DeployerHarness) state(t T) string {
	s, err := h.State(t.Context())
	require.NoError(t, err)
	return s
}

func (h DeployerHarness) requireState(t T, want string) {
	require.Equal(t, want, h.state(t), "the state of the cluster")
}

func (h DeployerHarness) deploy(t T, img stages.Image, run string) stages.Release {
	rel, err := h.Deployer.Deploy(t.Context(), request(t, img, run))
	require.NoError(t, err)
	assert.Equal(t, img, rel.Image, "the release must be of the cleared image")
	assert.NotEmpty(t, rel.Name)
	assert.NotEmpty(t, rel.Objects)
	return rel
}

func request(t T, img stages.Image, run string) stages.DeployRequest {
	clearance, err := stages.BypassGates(img, "conformance test")
	require.NoError(t, err)
	return stages.DeployRequest{Clearance: clearance, Run: run}
}

// checkpoint takes a checkpoint and sends it through JSON, as a journal does.
func checkpoint(t T, c stages.Compensator, img stages.Image, run string) stages.Checkpoint {
	cp, err := c.Checkpoint(t.Context(), stages.CheckpointRequest{Run: run, Image: img})
	require.NoError(t, err)
	assert.NotEmpty(t, cp.Subject)
	data, err := json.Marshal(cp)
	require.NoError(t, err)
	var read stages.Checkpoint
	require.NoError(t, json.Unmarshal(data, &read))
	return read
}

func restore(t T, c stages.Compensator, run string, cp stages.Checkpoint, want stages.RestoreOutcome) stages.Restoration {
	got, err := c.Restore(t.Context(), run, cp)
	require.NoError(t, err)
	require.Equal(t, want, got.Outcome, got.Message)
	assert.Equal(t, cp.Subject, got.Subject)
	assert.NotEmpty(t, got.Message)
	return got
}

func requireNothingRuns(t T, restored stages.Restoration) {
	require.Nil(t, restored.Release, "nothing was brought back")
}

// requireRelease checks that a restore which tells what it has brought back tells
// the truth.
func requireRelease(t T, want stages.Release, restored stages.Restoration) {
	got := restored.Release
	if got == nil {
		return
	}
	assert.Equal(t, want.Namespace+"/"+want.Name, got.Namespace+"/"+got.Name)
	assert.ElementsMatch(t, want.Objects, got.Objects)
	if !got.Image.IsZero() {
		assert.Equal(t, want.Image, got.Image)
	}
}
