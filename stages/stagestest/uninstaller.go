package stagestest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// TestUninstaller checks that a deployer keeps the contract of
// [stages.Uninstaller].
func TestUninstaller(t *testing.T, newHarness func(*testing.T) DeployerHarness) {
	runChecks(t, newHarness, uninstallerChecks)
}

var uninstallerChecks = []check[DeployerHarness]{
	{"removes what was deployed", uninstalled(func(t T, h DeployerHarness, u stages.Uninstaller) {
		h.deploy(t, h.First, "run-1")
		rel := h.deploy(t, h.Second, "run-2")
		removal := uninstall(t, u, "run-3")
		h.requireState(t, "")
		assert.Equal(t, rel.Namespace+"/"+rel.Name, removal.Release)
		assert.NotEmpty(t, removal.Removed, "what is gone must be named")
		assert.Empty(t, removal.Kept, "nothing of the harness is to be kept")
	})},
	{"a release that isn't there is no error", uninstalled(func(t T, h DeployerHarness, u stages.Uninstaller) {
		assert.Empty(t, uninstall(t, u, "run-1").Removed)
		h.deploy(t, h.First, "run-2")
		uninstall(t, u, "run-3")
		assert.Empty(t, uninstall(t, u, "run-3").Removed, "it was gone")
		h.requireState(t, "")
	})},
	{"what was removed can be deployed again", uninstalled(func(t T, h DeployerHarness, u stages.Uninstaller) {
		h.deploy(t, h.First, "run-1")
		before := h.state(t)
		uninstall(t, u, "run-2")
		rel := h.deploy(t, h.First, "run-3")
		assert.Zero(t, rel.Previous)
		h.requireState(t, before)
	})},
	{"is done under the lock of its run", uninstalled(func(t T, h DeployerHarness, u stages.Uninstaller) {
		locker, ok := u.(stages.Locker)
		if !ok {
			return
		}
		h.deploy(t, h.First, "run-1")
		unlock, err := locker.Lock(t.Context(), "run-2")
		require.NoError(t, err)
		uninstall(t, u, "run-2")
		require.NoError(t, unlock(t.Context()))
		h.requireState(t, "")
	})},
	{"uninstall stops when cancelled", uninstalled(func(t T, h DeployerHarness, u stages.Uninstaller) {
		h.deploy(t, h.First, "run-1")
		before := h.state(t)
		requireCancelled(t, func(ctx context.Context) error {
			_, err := u.Uninstall(ctx, "run-2")
			return err
		})
		h.requireState(t, before)
	})},
}

func uninstalled(run func(t T, h DeployerHarness, u stages.Uninstaller)) func(T, DeployerHarness) {
	return func(t T, h DeployerHarness) {
		u, ok := h.Deployer.(stages.Uninstaller)
		require.True(t, ok, "%T is no stages.Uninstaller", h.Deployer)
		run(t, h, u)
	}
}

func uninstall(t T, u stages.Uninstaller, run string) stages.Removal {
	removal, err := u.Uninstall(t.Context(), run)
	require.NoError(t, err)
	assert.NotEmpty(t, removal.Release)
	return removal
}
