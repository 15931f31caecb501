package releaseset_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func TestNewRefuses(t *testing.T) {
	c := newCluster()
	with := func(change func(*releaseset.Member)) []releaseset.Member {
		m := c.member(t, "a")
		change(&m)
		return []releaseset.Member{m}
	}
	for name, test := range map[string]struct {
		members []releaseset.Member
		says    string
	}{
		"nothing":              {nil, "no members"},
		"no name":              {with(func(m *releaseset.Member) { m.Name = "" }), "Namespace and Name are required"},
		"no namespace":         {with(func(m *releaseset.Member) { m.Namespace = "" }), "Namespace and Name are required"},
		"no deployer":          {with(func(m *releaseset.Member) { m.Open = nil }), "either Open or Deployer"},
		"two deployers":        {with(func(m *releaseset.Member) { m.Deployer = &fake{} }), "either Open or Deployer"},
		"no image":             {with(func(m *releaseset.Member) { m.Clearance = stages.Clearance{} }), "needs Unscanned"},
		"image and no image":   {with(func(m *releaseset.Member) { m.Unscanned = true }), "drop it or the Image"},
		"another's clearance":  {with(func(m *releaseset.Member) { m.Image = stagestest.Image("v1") }), "not for"},
		"unknown need":         {[]releaseset.Member{c.member(t, "a", "b")}, `ns/a needs "b"`},
		"need in other ns":     {[]releaseset.Member{c.member(t, "a", "other/b"), c.member(t, "b")}, `ns/a needs "other/b"`},
		"twice":                {[]releaseset.Member{c.member(t, "a"), c.member(t, "a")}, "ns/a is in the set twice"},
		"needs itself":         {[]releaseset.Member{c.member(t, "a", "a")}, "ns/a needs ns/a"},
		"cycle behind a chain": {[]releaseset.Member{c.member(t, "a", "b"), c.member(t, "b", "c"), c.member(t, "c", "d"), c.member(t, "d", "ns/b")}, "ns/b needs ns/c needs ns/d needs ns/b"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := releaseset.New(releaseset.Config{Members: test.members})
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, test.says)
		})
	}
	for _, cfg := range []releaseset.Config{{Concurrency: -1}, {RollbackTimeout: -1}} {
		cfg.Members = []releaseset.Member{c.member(t, "a")}
		_, err := releaseset.New(cfg)
		require.ErrorIs(t, err, stages.ErrInvalid)
	}
}

func TestProblemsOfTheGraphAreTyped(t *testing.T) {
	c := newCluster()
	_, err := releaseset.New(releaseset.Config{Members: []releaseset.Member{
		c.member(t, "a", "b"), c.member(t, "b", "a"), c.member(t, "b"), c.member(t, "c", "nobody"),
	}})
	cycle, ok := errors.AsType[*releaseset.CycleError](err)
	require.True(t, ok)
	assert.Equal(t, []string{"ns/a", "ns/b", "ns/a"}, cycle.Members)
	need, ok := errors.AsType[*releaseset.NeedError](err)
	require.True(t, ok)
	assert.Equal(t, releaseset.NeedError{Member: "ns/c", Need: "nobody"}, *need)
	duplicate, ok := errors.AsType[*releaseset.DuplicateError](err)
	require.True(t, ok)
	assert.Equal(t, "ns/b", duplicate.Member)
}

func TestMembersAreOrdered(t *testing.T) {
	c := newCluster()
	set := newSet(t, 1, c.member(t, "web", "api", "cache"), c.member(t, "api", "ns/db"), c.member(t, "cache"), c.member(t, "db"))
	assert.Equal(t, []string{"ns/cache", "ns/db", "ns/api", "ns/web"}, set.Members())
}

func TestSelect(t *testing.T) {
	c := newCluster()
	web, api, db := c.member(t, "web", "api"), c.member(t, "api", "db"), c.member(t, "db")
	web.Labels = map[string]string{"tier": "front", "app": "shop"}
	api.Labels = map[string]string{"tier": "back", "app": "shop"}
	set := newSet(t, 1, web, api, db)
	for name, test := range map[string]struct {
		sel  releaseset.Selection
		want []string
	}{
		"all":                  {releaseset.Selection{}, []string{"ns/db", "ns/api", "ns/web"}},
		"one label":            {releaseset.Selection{Selectors: []string{"tier=front"}}, []string{"ns/web"}},
		"both labels":          {releaseset.Selection{Selectors: []string{"app=shop,tier!=front"}}, []string{"ns/api"}},
		"either":               {releaseset.Selection{Selectors: []string{"tier=front", "name=db"}}, []string{"ns/web", "ns/db"}},
		"label that is absent": {releaseset.Selection{Selectors: []string{"tier!=back"}}, []string{"ns/db", "ns/web"}},
		"implied":              {releaseset.Selection{Selectors: []string{"namespace=ns,name!=web,name!=api"}}, []string{"ns/db"}},
		"with needs":           {releaseset.Selection{Selectors: []string{"name=web"}, IncludeNeeds: true}, []string{"ns/db", "ns/api", "ns/web"}},
	} {
		t.Run(name, func(t *testing.T) {
			chosen, err := set.Select(test.sel)
			require.NoError(t, err)
			assert.ElementsMatch(t, test.want, chosen.Members())
			result, err := chosen.Apply(t.Context(), releaseset.ApplyRequest{Run: name})
			require.NoError(t, err)
			assert.Len(t, result.Members, len(test.want))
		})
	}
	for _, selectors := range [][]string{{"tier"}, {""}, {"a=b,"}, {"a==b"}, {"name=nobody"}} {
		_, err := set.Select(releaseset.Selection{Selectors: selectors})
		require.ErrorIs(t, err, stages.ErrInvalid, "%q", selectors)
	}
}

func TestSelectKeepsTheOrderThroughWhatIsLeftOut(t *testing.T) {
	c := newCluster()
	set := newSet(t, 4, c.member(t, "web", "api", "auth"), c.member(t, "api", "queue"), c.member(t, "auth", "queue"), c.member(t, "queue", "db"), c.member(t, "db"))
	chosen, err := set.Select(releaseset.Selection{Selectors: []string{"name=web", "name=db"}})
	require.NoError(t, err)
	assert.Equal(t, []string{"ns/db", "ns/web"}, chosen.Members())
	plan, err := chosen.Plan(t.Context(), releaseset.PlanRequest{Run: "run"})
	require.NoError(t, err)
	assert.Equal(t, []string{"ns/db"}, plan.Members[1].Needs, "once, though there are two ways")
	assert.Equal(t, []string{"ns/db", "ns/queue", "ns/api", "ns/auth", "ns/web"}, set.Members(), "the whole set is as before")
}

func FuzzParseSelector(f *testing.F) {
	for _, seed := range []string{"a=b", "a!=b,c=d", "a", "=", "a=b=c", "!=", "a.b/c=d-e"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := releaseset.ParseSelector(text)
		if err != nil {
			require.ErrorIs(t, err, stages.ErrInvalid)
			return
		}
		s.Matches(map[string]string{"a": "b"})
	})
}
