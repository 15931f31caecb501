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
	assert.Contains(t, plan.Diff(), "+ image: "+plan.Members[1].Plan.Image.String()+"\n")
	assert.Contains(t, plan.Diff(), "Plan of ns/web: 1 added, 0 changed, 0 removed\n")
	assert.Contains(t, plan.Diff(), "Plan of 2 releases: 1 to create, 0 to update, 0 to delete; 1 unchanged\n")
	assert.NotContains(t, plan.Diff(), "ns/db")
	for _, m := range plan.Members {
		assert.Nil(t, m.Plan.Manifests, "a large set's don't fit into memory")
	}
	assert.Empty(t, c.did("checkpoint"), "a plan changes nothing")
	assert.Zero(t, c.open)

	data, err := json.Marshal(plan)
	require.NoError(t, err)
	assert.Contains(t, string(data), `"member":"ns/web"`)
}

func TestDiffHidesNothing(t *testing.T) {
	web := stages.Object{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "ns", Name: "web"}
	evil := stages.Object{APIVersion: "v1", Kind: "ConfigMap", Namespace: "ns", Name: "x\x1b[2J"}
	plan := releaseset.Plan{Members: []releaseset.MemberPlan{
		{Member: "ns/web", Plan: stages.Plan{Changes: []stages.Change{
			{Action: stages.Update, Object: web, Diff: "-a\n+b\x1b[8m"},
			{Action: stages.Delete, Object: web},
			{Action: stages.Create, Object: evil, Refusal: &stages.Refusal{Reason: "Forbidden", Message: "quota"}},
			{Action: stages.Recreate, Object: web, Dangers: []stages.Danger{{Class: "downtime", Why: "its pods stop"}}},
			{Action: stages.Adopt, Object: web},
		}}},
		{Member: "ns/db", Plan: stages.Plan{
			Drift:   []stages.Drift{{Object: web, Missing: true}},
			Dangers: []stages.Danger{{Class: stages.DangerHook, Object: web, Why: "a hook deletes it"}},
			Notes:   []stages.Note{{Kind: "lookup", Message: "read the cluster"}},
		}},
		{Member: "ns/quiet"},
	}}
	assert.Equal(t, releaseset.Count{
		Created: 1, Updated: 1, Deleted: 1, Recreated: 1, Adopted: 1, Refused: 1, Drifted: 1, Dangers: 2,
	}, plan.Count())
	text := plan.Diff()
	for _, says := range []string{
		"ns, web, Deployment (apps) has changed:\n-a\n+b", "has been removed", "can't be changed in place", "is to be adopted",
		"would be refused (Forbidden): quota", "danger (downtime): its pods stop", "has drifted:\n~ it is gone",
		"a hook deletes it", "note (lookup): read the cluster", "Plan of ns/web: ", "Plan of ns/db: ",
		"Plan of 3 releases: 1 to create, 1 to update, 1 to delete, 1 to recreate, 1 to adopt, 1 refused, 1 drifted, 2 dangers; 2 unchanged\n",
	} {
		assert.Contains(t, text, says)
	}
	assert.NotContains(t, text, "\x1b")
	assert.NotContains(t, text, "quiet")
}

func TestApplyIsHeldToItsPlan(t *testing.T) {
	plan := func(digests ...string) *releaseset.Plan {
		p := &releaseset.Plan{}
		for i, id := range []string{"ns/db", "ns/web"} {
			p.Members = append(p.Members, releaseset.MemberPlan{Member: id, Plan: stages.Plan{Digest: digests[i]}})
		}
		return p
	}
	for name, test := range map[string]struct {
		plan    *releaseset.Plan
		class   error
		deploys int
	}{
		"as planned":       {plan("ns/db@1", "ns/web@1"), nil, 2},
		"an image moved":   {plan("ns/db@1", "ns/web@0"), stages.ErrPlanStale, 2},
		"a vendor moved":   {plan("ns/db@0", "ns/web@1"), stages.ErrPlanStale, 1},
		"without a digest": {plan("ns/db@1", ""), stages.ErrInvalid, 0},
		"of another set":   {&releaseset.Plan{}, stages.ErrInvalid, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster()
			db := c.member(t, "db")
			db.Unscanned, db.Clearance = true, stages.Clearance{}
			_, err := newSet(t, 1, db, c.member(t, "web", "db")).Apply(t.Context(), releaseset.ApplyRequest{Run: "run", Plan: test.plan})
			require.ErrorIs(t, err, test.class)
			assert.Len(t, c.did("deploy"), test.deploys)
			if test.class != nil {
				assert.Empty(t, c.fakes["db"].state(t))
			}
		})
	}
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

// TestMembersArePlannedWithWhatOthersDefine: only what is not as it will be is worth
// planning anew, and what comes of that may be more of it.
func TestMembersArePlannedWithWhatOthersDefine(t *testing.T) {
	box := stages.Kind{APIVersion: "example.com/v1", Kind: "Box", Resource: "boxes", Namespaced: true, Pending: true}
	lid := stages.Kind{APIVersion: "example.com/v1", Kind: "Lid", Resource: "lids", Pending: true}
	old := stages.Kind{APIVersion: "example.com/v1", Kind: "Crate", Resource: "crates"}
	c := newCluster()
	set := newSet(t, 1, c.member(t, "kinds"), c.member(t, "gated", "kinds"), c.member(t, "things", "gated"), c.member(t, "old"), c.member(t, "apart", "old"))
	var seen []stages.Kind
	for name, defines := range map[string]func([]stages.Kind) []stages.Kind{
		"kinds": func([]stages.Kind) []stages.Kind { return []stages.Kind{box} },
		"gated": func(before []stages.Kind) []stages.Kind {
			if len(before) == 0 {
				return nil
			}
			return []stages.Kind{lid}
		},
		"things": func(before []stages.Kind) []stages.Kind { seen = before; return nil },
		"old":    func([]stages.Kind) []stages.Kind { return []stages.Kind{old} },
		"apart":  func([]stages.Kind) []stages.Kind { return nil },
	} {
		c.fakes[name].defines = defines
	}
	_, err := set.Plan(t.Context(), releaseset.PlanRequest{Run: "run-1"})
	require.NoError(t, err)
	assert.ElementsMatch(t, []stages.Kind{box, lid}, seen)
	times := map[string]int{}
	for _, id := range c.did("plan") {
		times[id]++
	}
	assert.Equal(t, map[string]int{"ns/kinds": 1, "ns/gated": 2, "ns/things": 3, "ns/old": 1, "ns/apart": 1}, times)
}

// TestMembersThatFailWithoutWhatOthersDefine are planned once that is known.
func TestMembersThatFailWithoutWhatOthersDefine(t *testing.T) {
	box := stages.Kind{APIVersion: "example.com/v1", Kind: "Box", Resource: "boxes", Namespaced: true, Pending: true}
	c := newCluster()
	set := newSet(t, 1, c.member(t, "kinds"), c.member(t, "gated", "kinds"), c.member(t, "broken", "kinds"))
	c.fakes["kinds"].defines = func([]stages.Kind) []stages.Kind { return []stages.Kind{box} }
	needs := func(n int) func(before []stages.Kind) []stages.Kind {
		return func(before []stages.Kind) []stages.Kind {
			if len(before) < n {
				panic("it asks for more kinds")
			}
			return nil
		}
	}
	c.fakes["gated"].defines, c.fakes["broken"].defines = needs(1), needs(1)
	_, err := set.Plan(t.Context(), releaseset.PlanRequest{Run: "run-1"})
	require.NoError(t, err)

	c.fakes["broken"].defines = needs(2)
	_, err = set.Plan(t.Context(), releaseset.PlanRequest{Run: "run-1"})
	failure, ok := errors.AsType[*releaseset.MemberError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, "ns/broken", failure.Member)
	assert.NotContains(t, err.Error(), "ns/gated")
}
