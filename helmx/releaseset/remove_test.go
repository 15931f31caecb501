package releaseset_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
)

// leaving makes a member that is deployed and is to go.
func (c *cluster) leaving(t *testing.T, name string, needs ...string) releaseset.Member {
	t.Helper()
	m := c.member(t, name, needs...)
	_, err := c.fakes[name].Deployer.Deploy(t.Context(), stages.DeployRequest{Clearance: m.Clearance, Run: "run-0"})
	require.NoError(t, err)
	m.Remove, m.Clearance = true, stages.Clearance{}
	return m
}

func TestRemovalsComeLastAndInReverse(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.leaving(t, "old-db"), c.leaving(t, "old-web", "old-db", "db"), c.member(t, "web", "db"), c.member(t, "db"))
	assert.Equal(t, []string{"ns/db", "ns/web", "ns/old-web", "ns/old-db"}, set.Members())
	plan, err := set.Plan(t.Context(), releaseset.PlanRequest{Run: "run"})
	require.NoError(t, err)
	assert.Equal(t, 2, plan.Count().Deleted)
	assert.Contains(t, plan.Diff(), "ns/old-web (to be removed)")
	assert.Contains(t, plan.Diff(), "0 unchanged, 2 to be removed\n")

	result, err := apply(t, set)
	require.NoError(t, err)
	assert.Equal(t, []string{"ns/db", "ns/web"}, c.did("deploy"))
	assert.Equal(t, []string{"ns/old-web", "ns/old-db"}, c.did("uninstall"))
	assert.Equal(t, []string{"ns/old-db", "ns/old-web"}, c.did("forget"))
	m, _ := result.Member("ns/old-db")
	assert.Equal(t, releaseset.Removed, m.Outcome)
	assert.NotEmpty(t, m.Removal.Removed)
}

func TestRemovedMembersAreBroughtBack(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.leaving(t, "old-db"), c.leaving(t, "old-web", "old-db"), c.member(t, "web"))
	c.fakes["old-db"].onUninstall = func(context.Context) error { return errDown }
	result, err := apply(t, set)
	require.ErrorIs(t, err, errDown)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.ErrorContains(t, err, "remove ns/old-db")
	assert.Equal(t, []string{"ns/old-db", "ns/old-web", "ns/web"}, c.did("restore"))
	assert.Empty(t, c.did("forget"))
	assert.NotContains(t, outcomes(result), releaseset.Removed)
}

func TestRemovalIsHeldToItsPlan(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.leaving(t, "old"))
	plan, err := set.Plan(t.Context(), releaseset.PlanRequest{Run: "run"})
	require.NoError(t, err)
	_, err = c.fakes["old"].Deployer.Uninstall(t.Context(), "somebody")
	require.NoError(t, err)
	_, err = set.Apply(t.Context(), releaseset.ApplyRequest{Run: "run", Plan: &plan})
	require.ErrorIs(t, err, stages.ErrPlanStale)
	assert.Empty(t, c.did("uninstall"))
}

func TestRemovalsAreRefused(t *testing.T) {
	c := newCluster()
	stays, goes, image := c.member(t, "stays", "goes"), c.leaving(t, "goes"), c.leaving(t, "image")
	image.Unscanned = true
	_, err := releaseset.New(releaseset.Config{Members: []releaseset.Member{stays, goes, image}})
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.ErrorContains(t, err, "member ns/stays needs ns/goes, which is to be removed")
	assert.ErrorContains(t, err, "member ns/image: Remove stands alone")
}

func TestFailuresAreRecordedWithEveryMember(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "a"), c.member(t, "b", "a"))
	c.fakes["b"].Err = errDown
	_, err := apply(t, set)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	for name, want := range map[string]string{"a": "another release of the set failed: deploy ns/b", "b": "deploy ns/b: " + errDown.Error()} {
		said, err := c.fakes[name].Failures(t.Context())
		require.NoError(t, err)
		assert.Contains(t, said, want)
	}
}
