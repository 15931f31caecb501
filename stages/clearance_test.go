package stages_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/internal/seal"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func soundGrounds() stages.Grounds {
	img := stagestest.Image("v1")
	return stages.Grounds{
		Image:     img,
		Report:    stages.Report{Image: img},
		Decisions: []stages.Decision{{Gate: "scan", Verdict: stages.Pass}},
		Signature: stages.Signature{Image: img, KeyID: "k"},
	}
}

func TestClear(t *testing.T) {
	c, err := stages.Clear(seal.New(), soundGrounds())
	require.NoError(t, err)
	require.NoError(t, c.Check())
	assert.Equal(t, stagestest.Image("v1"), c.Image())
	assert.Empty(t, c.Bypass())
}

func TestClearRefuses(t *testing.T) {
	other := stagestest.Image("v2")
	for name, test := range map[string]struct {
		seal  seal.Seal
		spoil func(*stages.Grounds)
		class error
	}{
		"a seal conjured up":  {seal.Seal{}, func(*stages.Grounds) {}, stages.ErrNotCleared},
		"no image":            {seal.New(), func(g *stages.Grounds) { g.Image = stages.Image{} }, stages.ErrNotCleared},
		"another's report":    {seal.New(), func(g *stages.Grounds) { g.Report.Image = other }, stages.ErrSubjectMismatch},
		"no report":           {seal.New(), func(g *stages.Grounds) { g.Report = stages.Report{} }, stages.ErrSubjectMismatch},
		"another's signature": {seal.New(), func(g *stages.Grounds) { g.Signature.Image = other }, stages.ErrSubjectMismatch},
		"no signature":        {seal.New(), func(g *stages.Grounds) { g.Signature = stages.Signature{} }, stages.ErrSubjectMismatch},
		"no decision":         {seal.New(), func(g *stages.Grounds) { g.Decisions = nil }, stages.ErrNotCleared},
		"a refusal":           {seal.New(), func(g *stages.Grounds) { g.Decisions[0].Verdict = stages.Fail }, stages.ErrNotCleared},
		"no verdict":          {seal.New(), func(g *stages.Grounds) { g.Decisions[0].Verdict = 0 }, stages.ErrNotCleared},
	} {
		t.Run(name, func(t *testing.T) {
			g := soundGrounds()
			test.spoil(&g)
			c, err := stages.Clear(test.seal, g)
			require.ErrorIs(t, err, test.class)
			require.ErrorIs(t, err, stages.ErrNotCleared)
			require.ErrorIs(t, c.Check(), stages.ErrNotCleared)
		})
	}
}

func TestBypassGatesIsOnTheRecord(t *testing.T) {
	img := stagestest.Image("v1")
	c, err := stages.BypassGates(img, " hotfix 4711, approved by dana ")
	require.NoError(t, err)
	require.NoError(t, c.Check())
	assert.Equal(t, "hotfix 4711, approved by dana", c.Bypass())
	data, err := json.Marshal(c)
	require.NoError(t, err)
	assert.JSONEq(t, `{"image":"`+img.String()+`","bypass":"hotfix 4711, approved by dana"}`, string(data))

	_, err = stages.BypassGates(img, " \t")
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = stages.BypassGates(stages.Image{}, "why")
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func TestZeroClearanceClearsNothing(t *testing.T) {
	var c stages.Clearance
	require.ErrorIs(t, c.Check(), stages.ErrNotCleared)
	assert.True(t, c.Image().IsZero())
	assert.Empty(t, c.Bypass())
}
