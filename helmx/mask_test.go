package helmx_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// leaky is a chart that puts values where they don't belong.
func leaky(t *testing.T, templates map[string]string) func(*apiServer, map[string]any) helmx.Config {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	file("Chart.yaml", "apiVersion: v2\nname: leaky\nversion: 1.0.0\n")
	deployment, err := os.ReadFile("testdata/digest/templates/deployment.yaml")
	require.NoError(t, err)
	values, err := os.ReadFile("testdata/digest/values.yaml")
	require.NoError(t, err)
	file("values.yaml", string(values))
	file("templates/deployment.yaml", string(deployment))
	for name, text := range templates {
		file("templates/"+name, text)
	}
	return func(a *apiServer, values map[string]any) helmx.Config {
		cfg := digestConfig(a)
		cfg.Chart, cfg.Values = dir, helmx.Values{Map: values}
		return cfg
	}
}

func printPlan(p stages.Plan) string {
	var fields strings.Builder
	for _, c := range p.Changes {
		fmt.Fprintf(&fields, "%+v\n", c.Fields)
	}
	return string(p.Manifests) + printChanges(p) + fields.String() + fmt.Sprintf("%+v", p.Notes)
}

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: leak}\ndata:\n"

// What is rotated may still be valid when its plan is read.
func TestFormerSecretsAreMasked(t *testing.T) {
	a := newAPIServer(t, "shop")
	config := leaky(t, map[string]string{
		"map.yaml":  configMap + "  conf: {{ printf \"pw=%s\" .Values.db.password | quote }}\n  hook: {{ .Values.hook | quote }}\n",
		"hook.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: hook, annotations: {helm.sh/hook: pre-upgrade}}\nstringData: {x: {{ .Values.hook | quote }}}\n",
	})
	values := func(n string) map[string]any {
		return map[string]any{"db": map[string]any{"password": "canary-pw-" + n}, "hook": "canary-hook-" + n}
	}
	deploy(t, open(t, config(a, values("1"))), "run-1", "a")
	text := printPlan(plan(t, open(t, config(a, values("2"))), "b"))
	assert.Contains(t, text, "**REDACTED** (before)")
	assert.NotContains(t, text, "canary")

	cfg := config(a, nil)
	removal, err := open(t, helmx.Config{RemoveOnly: true, Release: cfg.Release, Namespace: cfg.Namespace, Kubernetes: cfg.Kubernetes}).PlanRemoval(t.Context(), "run-2")
	require.NoError(t, err)
	assert.NotEmpty(t, removal.Changes)
	assert.NotContains(t, printPlan(removal), "canary")
}

func TestSecretsAreMaskedInEveryForm(t *testing.T) {
	a := newAPIServer(t, "shop")
	config := leaky(t, map[string]string{
		"secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {pw: {{ .Values.pw | quote }}, one: {{ .Values.one | quote }}}\n",
		"map.yaml": configMap + "  conf: {{ dict \"x\" .Values.pw | toJson | quote }}\n  name: {{ .Values.pw | quote }}\n" +
			"  file: |\n    deep:\n      pw: |\n{{ .Values.pw | indent 8 }}\n      other: 1\n",
		"set.yaml": "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: set}\nspec:\n  selector: {matchLabels: {app: set}}\n  template:\n" +
			"    metadata: {labels: {app: set}}\n    spec: {containers: [], tolerations: [{key: {{ .Values.one | quote }}, value: {{ .Values.n | quote }}}]}\n",
	})
	values := func(n string) map[string]any {
		return map[string]any{"pw": "first \"canary\" <1>\n\n  second-canary", "one": "canary-of-one", "n": n}
	}
	deploy(t, open(t, config(a, values("1"))), "run-1", "a")
	text := printPlan(plan(t, open(t, config(a, values("2"))), "b"))
	assert.Contains(t, text, "tolerations[key=**REDACTED**].value")
	assert.Contains(t, text, "other: 1")
	assert.NotContains(t, text, "canary")
}

func TestTypedValuesAreMasked(t *testing.T) {
	config := leaky(t, map[string]string{"map.yaml": configMap + "  conf: {{ .Values.auth.password | quote }}\n  kept: {{ .Values.image.digest | quote }}\n"})
	a := newAPIServer(t, "shop")
	p := plan(t, open(t, config(a, map[string]any{"auth": map[string]string{"password": "canary-typed"}})), "a")
	assert.NotContains(t, printPlan(p), "canary")
}
