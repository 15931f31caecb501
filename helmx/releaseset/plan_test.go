package releaseset_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestPlanOfTheWholeSet(t *testing.T) {
	c := newCluster()
	db := c.member(t, "db")
	db.Unscanned, db.Clearance = true, stages.Clearance{}
	set := newSet(t, 2, c.member(t, "web", "db"), db)
	plan, err := set.Plan(t.Context(), releaseset.PlanRequest{Run: "run-1"})
	require.NoError(t, err)
	require.Len(t, plan.Members, 2)
	assert.Equal(t, "ns/db", plan.Members[0].Member, "in an order to apply")
	assert.Equal(t, []string{"ns/db"}, plan.Members[1].Needs)
	assert.Equal(t, releaseset.Count{Created: 1}, plan.Count())
	assert.Equal(t, `# release ns/web: 1 to create, 0 to update, 0 to delete
+ image: `+plan.Members[1].Plan.Image.String()+`
# 2 releases: 1 to create, 0 to update, 0 to delete; 1 unchanged
`, plan.Diff())
	assert.Empty(t, c.did("checkpoint"), "a plan changes nothing")
	assert.Zero(t, c.open)

	data, err := json.Marshal(plan)
	require.NoError(t, err)
	assert.Contains(t, string(data), `"member":"ns/web"`)
}

func TestDiffOfEveryAction(t *testing.T) {
	web := stages.Object{Kind: "Deployment", Namespace: "ns", Name: "web"}
	plan := releaseset.Plan{Members: []releaseset.MemberPlan{{Member: "ns/web", Plan: stages.Plan{Changes: []stages.Change{
		{Action: stages.Update, Object: web, Diff: "-a\n+b"}, {Action: stages.Delete, Object: web}, {Action: stages.Create, Object: web},
	}}}}}
	assert.Equal(t, `# release ns/web: 1 to create, 1 to update, 1 to delete
-a
+b
# delete Deployment ns/web
# create Deployment ns/web
# 1 releases: 1 to create, 1 to update, 1 to delete; 0 unchanged
`, plan.Diff())
}

func TestPlanReportsEveryFailure(t *testing.T) {
	c := newCluster()
	set := newSet(t, 2, c.member(t, "a"), c.member(t, "b"), c.member(t, "c"))
	errA, errC := errors.New("no chart"), errors.New("no values")
	c.fakes["a"].onOpen = func() error { return errA }
	c.fakes["c"].onOpen = func() error { return errC }
	_, err := set.Plan(t.Context(), releaseset.PlanRequest{})
	require.ErrorIs(t, err, errA)
	require.ErrorIs(t, err, errC)
	failure, ok := errors.AsType[*releaseset.MemberError](err)
	require.True(t, ok)
	assert.Equal(t, "ns/a", failure.Member)
}
