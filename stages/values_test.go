package stages_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

func TestPermanent(t *testing.T) {
	plain := errors.New("connection reset")
	assert.False(t, stages.IsPermanent(plain))
	assert.False(t, stages.IsPermanent(nil))
	assert.NoError(t, stages.Permanent(nil))

	marked := fmt.Errorf("build: %w", stages.Permanent(plain))
	assert.True(t, stages.IsPermanent(marked))
	assert.ErrorIs(t, marked, plain)
	assert.Equal(t, "build: connection reset", marked.Error())

	assert.True(t, stages.IsPermanent(fmt.Errorf("x: %w", stages.ErrInvalid)))
	assert.False(t, stages.IsPermanent(fmt.Errorf("x: %w", stages.ErrIndeterminate)))
}

func TestVerdictZeroIsInconclusive(t *testing.T) {
	var d stages.Decision
	assert.Equal(t, stages.Inconclusive, d.Verdict)
	for _, v := range []stages.Verdict{stages.Inconclusive, stages.Pass, stages.Fail} {
		data, err := json.Marshal(v)
		require.NoError(t, err)
		var got stages.Verdict
		require.NoError(t, json.Unmarshal(data, &got))
		assert.Equal(t, v, got)
	}
	var v stages.Verdict
	assert.ErrorIs(t, json.Unmarshal([]byte(`"maybe"`), &v), stages.ErrInvalid)
	_, err := json.Marshal(stages.Verdict(7))
	assert.Error(t, err)
	assert.Equal(t, "verdict(7)", stages.Verdict(7).String())
}

func TestSeverity(t *testing.T) {
	assert.Greater(t, stages.SeverityCritical, stages.SeverityHigh)
	got, err := stages.ParseSeverity("high")
	require.NoError(t, err)
	assert.Equal(t, stages.SeverityHigh, got)
	_, err = stages.ParseSeverity("dire")
	require.ErrorIs(t, err, stages.ErrInvalid)

	data, err := json.Marshal(stages.Finding{ID: "CVE-1", Severity: stages.SeverityLow})
	require.NoError(t, err)
	var f stages.Finding
	require.NoError(t, json.Unmarshal(data, &f))
	assert.Equal(t, stages.SeverityLow, f.Severity)
}

func TestSource(t *testing.T) {
	src := stages.Source{Dir: ".", Tags: []string{"v1"}, BuildArgs: map[string]string{"A": "1"}}
	require.NoError(t, src.Validate())
	clone := src.Clone()
	clone.Tags[0], clone.BuildArgs["A"] = "v2", "2"
	assert.Equal(t, "v1", src.Tags[0])
	assert.Equal(t, "1", src.BuildArgs["A"])
	require.ErrorIs(t, stages.Source{}.Validate(), stages.ErrInvalid)
	require.ErrorIs(t, stages.Source{Dir: ".", Tags: []string{"a/b"}}.Validate(), stages.ErrInvalid)
}

type withEvidence struct{ error }

func (withEvidence) Evidence() []stages.Evidence {
	return []stages.Evidence{{Subject: "pod a/b", Reason: "OOMKilled"}}
}

func TestEvidenceOf(t *testing.T) {
	err := errors.Join(errors.New("other"), fmt.Errorf("verify: %w", withEvidence{errors.New("down")}))
	require.Len(t, stages.EvidenceOf(err), 1)
	assert.Equal(t, "OOMKilled", stages.EvidenceOf(err)[0].Reason)
	assert.Empty(t, stages.EvidenceOf(errors.New("bare")))
}

func TestProgress(t *testing.T) {
	stages.ReportProgress(t.Context(), stages.Progress{Message: "nobody listens"})
	var got []stages.Progress
	ctx := stages.WithProgress(context.Background(), func(p stages.Progress) { got = append(got, p) })
	stages.ReportProgress(ctx, stages.Progress{ID: "1", Message: "pulling"})
	assert.Equal(t, []stages.Progress{{ID: "1", Message: "pulling"}}, got)
}

func TestObjectString(t *testing.T) {
	assert.Equal(t, "Deployment shop/web", stages.Object{Kind: "Deployment", Namespace: "shop", Name: "web"}.String())
	assert.Equal(t, "Namespace shop", stages.Object{Kind: "Namespace", Name: "shop"}.String())
}
