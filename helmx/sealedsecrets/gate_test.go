package sealedsecrets_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/sealedsecrets"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestGate(t *testing.T) {
	sealed := string(read(t, "kubeseal-strict.yaml"))
	const config = "# Source: shop/config.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop}\n---\n"
	open := strings.Replace(sealed, "    password: ", "    password: canary!", 1)
	elsewhere := strings.Replace(sealed, "  namespace: prod\n", "", 1)
	for name, tc := range map[string]struct {
		manifests string
		says      []string
	}{
		"none":                      {config, nil},
		"nothing":                   {"", nil},
		"sealed":                    {config + sealed, nil},
		"sealed, for the release's": {elsewhere, nil},
		"of somebody else's kind":   {"apiVersion: example.com/v1\nkind: SealedSecret\nmetadata: {name: shop}\n", nil},
		"one in clear text":         {config + open + "---\n" + sealed, []string{"SealedSecret prod/shop", "it is not base64"}},
		"in a list":                 {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {name: shop}}\n", []string{"SealedSecret staging/shop", "spec: it is required"}},
		"of another version":        {strings.Replace(sealed, "v1alpha1", "v9", 1), []string{"SealedSecret prod/shop", "v1alpha1"}},
	} {
		t.Run(name, func(t *testing.T) {
			decision, err := sealedsecrets.Gate().Decide(t.Context(), stages.Plan{Release: "staging/shop", Manifests: []byte(tc.manifests)})
			require.NoError(t, err)
			if tc.says == nil {
				assert.Equal(t, stages.Decision{Gate: "sealed secrets", Verdict: stages.Pass}, decision)
				return
			}
			assert.Equal(t, stages.Fail, decision.Verdict)
			require.Len(t, decision.Reasons, 1)
			assert.Equal(t, tc.says[0], decision.Reasons[0].Subject)
			assert.Contains(t, decision.Reasons[0].Message, tc.says[1])
			assert.NotContains(t, decision.Reasons[0].Message, "canary")
		})
	}
}

func TestGateDoesNotDecideWhatItCantRead(t *testing.T) {
	decision, err := sealedsecrets.Gate().Decide(t.Context(), stages.Plan{Release: "staging/shop", Manifests: []byte("[canary")})
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.NotContains(t, err.Error(), "canary")
	assert.Equal(t, stages.Inconclusive, decision.Verdict)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = sealedsecrets.Gate().Decide(ctx, stages.Plan{Release: "staging/shop"})
	require.ErrorIs(t, err, context.Canceled)
}
