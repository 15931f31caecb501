package helmx_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestLayersHideWhatWasEncrypted has secrets whose names don't tell that they are.
func TestLayersHideWhatWasEncrypted(t *testing.T) {
	a := newAPIServer(t, "shop")
	cfg := leaky(t, map[string]string{"map.yaml": configMap + "  a: {{ .Values.stripe.key }}\n  b: {{ .Values.greeting }}\n"})(a, nil)
	cfg.Values = helmx.Values{
		Layers: []helmx.Layer{
			{Name: "helmfile.yaml:7", Values: map[string]any{"greeting": "hello canary-of-the-environment"}},
			{Name: "s.enc.yaml", Values: map[string]any{"stripe": map[string]any{"key": "canary-sk-live"}}, Source: []byte("stripe:\n  key: ENC[x]\n"), Encrypted: true},
		},
		Hide: []string{"canary-of-the-environment"},
	}
	p := plan(t, open(t, cfg), "a")
	text := printPlan(p)
	assert.NotContains(t, text, "canary")
	assert.Contains(t, text, "hello **REDACTED**")
	assert.Equal(t, 2, strings.Count(string(p.Manifests), "**REDACTED**"))
}

func TestLayersAreTraced(t *testing.T) {
	a := newAPIServer(t, "shop")
	cfg := digestConfig(a)
	cfg.Values = helmx.Values{Layers: []helmx.Layer{
		{Name: "base.yaml", Values: map[string]any{"message": 1}, Source: []byte("# first\nmessage: 1\n")},
		{Name: "helmfile.yaml:7", Values: map[string]any{"extra": 1}},
	}}
	_, err := open(t, cfg).Plan(t.Context(), stages.PlanRequest{Image: image("a")})
	require.ErrorIs(t, err, stages.ErrInvalid)
	require.ErrorContains(t, err, "base.yaml:2: message")

	cfg.Values.Layers[0].Values = map[string]any{"message": "fine"}
	d := open(t, cfg)
	for path, want := range map[string]string{"message": "base.yaml:2", "extra": "helmfile.yaml:7"} {
		found, err := d.Provenance(path)
		require.NoError(t, err)
		require.Len(t, found, 1)
		assert.Equal(t, want, found[0].Origin.String())
	}
}
