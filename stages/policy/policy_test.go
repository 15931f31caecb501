package policy

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	stagestest.TestGate(t, func(t *testing.T) stagestest.GateHarness[stages.Plan] {
		return stagestest.GateHarness[stages.Plan]{
			Gate:  newGate(t, Config{Modules: []fs.FS{Baseline()}}),
			Good:  planOf(t, "good.yaml"),
			Bad:   planOf(t, "bad.yaml"),
			Empty: plan("# nothing\n---\n"),
		}
	})
}

func TestBaselineNamesRuleSubjectAndRemedy(t *testing.T) {
	bad := planOf(t, "bad.yaml")
	bad.Changes = []stages.Change{{Object: stages.Object{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "prod", Name: "shop"}}}
	d, err := newGate(t, Config{Modules: []fs.FS{Baseline()}}).Decide(t.Context(), bad)
	require.NoError(t, err)
	assert.Equal(t, stages.Fail, d.Verdict)
	assert.Equal(t, "policy", d.Gate)
	require.Len(t, d.Reasons, 8)
	assert.Equal(t, stages.Reason{
		Rule:    "main.deny_latest_tag",
		Subject: "Deployment prod/shop",
		Message: `container "shop" uses image "yourname/yourapp:latest", which changes under your feet: give it a tag other than latest, or better a digest`,
	}, d.Reasons[0])
}

func TestDecide(t *testing.T) {
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: shop, namespace: prod}\n"
	const list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n- {apiVersion: v1, kind: Service, metadata: {name: b}}\n"
	one := func(rule, message string) []stages.Reason {
		return []stages.Reason{{Rule: rule, Subject: "Service prod/shop", Message: message}}
	}
	for name, tc := range map[string]struct {
		rego     string
		config   Config
		stream   string
		verdict  stages.Verdict
		reasons  []stages.Reason
		warnings []stages.Reason
	}{
		"no rule holds":         {rego: `deny contains "x" if input.kind == "Pod"`, verdict: stages.Pass},
		"deny":                  {rego: `deny contains "x" if input.kind == "Service"`, verdict: stages.Fail, reasons: one("main.deny", "x")},
		"deny with a name":      {rego: `deny_ports contains "x"`, verdict: stages.Fail, reasons: one("main.deny_ports", "x")},
		"violation":             {rego: `violation contains {"msg": "x"}`, verdict: stages.Fail, reasons: one("main.violation", "x")},
		"warn":                  {rego: `warn contains "x"`, verdict: stages.Pass, warnings: one("main.warn", "x")},
		"warn with a name":      {rego: `warn_ports contains "x"`, verdict: stages.Pass, warnings: one("main.warn_ports", "x")},
		"object with metadata":  {rego: `deny contains {"msg": "x", "url": "https://a", "n": [1]}`, verdict: stages.Fail, reasons: one("main.deny", "x (n=[1], url=https://a)")},
		"plain rule that holds": {rego: `deny if input.kind == "Service"`, verdict: stages.Fail, reasons: one("main.deny", "the rule's condition holds; it gives no message")},
		"plain rule, undefined": {rego: `deny if input.kind == "Pod"`, verdict: stages.Pass},
		"plain rule, default":   {rego: "default deny := false\ndeny if input.kind == \"Pod\"", verdict: stages.Pass},
		"plain rule, message":   {rego: `deny := "x" if input.kind == "Service"`, verdict: stages.Fail, reasons: one("main.deny", "x")},
		"messages are ordered":  {rego: `deny contains m if some m in {"b", "a"}`, verdict: stages.Fail, reasons: append(one("main.deny", "a"), one("main.deny", "b")...)},
		"other names are not":   {rego: "deny contains \"x\" if helper\nhelper := false\ndenying contains \"y\"\nwarning := \"z\"", verdict: stages.Pass},
		"data":                  {rego: `deny contains data.message`, config: Config{Data: map[string]any{"message": "x"}}, verdict: stages.Fail, reasons: one("main.deny", "x")},
		"v0 syntax":             {rego: `deny[msg] { msg := input.kind }`, config: Config{RegoV0: true}, verdict: stages.Fail, reasons: one("main.deny", "Service")},
		"gate's name":           {rego: `deny if false`, config: Config{Name: "rules"}, verdict: stages.Pass},
		"no object":             {rego: `deny contains "x"`, stream: "---\n# only a comment\n", reasons: []stages.Reason{{Rule: "manifests", Subject: "release prod/shop", Message: "the plan renders no object, so there was nothing to judge; check the chart and its values"}}},
		"an empty list":         {rego: `deny contains "x"`, stream: "apiVersion: v1\nkind: List\nitems: []\n", reasons: []stages.Reason{{Rule: "manifests", Subject: "release prod/shop", Message: "the plan renders no object, so there was nothing to judge; check the chart and its values"}}},
		"a list's items": {rego: `deny contains "x"`, stream: list, verdict: stages.Fail, reasons: []stages.Reason{
			{Rule: "main.deny", Subject: "Service a", Message: "x"}, {Rule: "main.deny", Subject: "Service b", Message: "x"},
		}},
		"YAML 1.1 booleans": {rego: `deny contains "x" if input.on == true`, stream: service + "on: yes\n", verdict: stages.Pass},
		"yes is true":       {rego: `deny contains "x" if input.privileged == true`, stream: service + "privileged: yes\n", verdict: stages.Fail, reasons: one("main.deny", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			tc.config.Modules = []fs.FS{files(tc.rego)}
			if tc.stream == "" {
				tc.stream = service
			}
			d, err := newGate(t, tc.config).Decide(t.Context(), plan(tc.stream))
			require.NoError(t, err)
			if tc.config.Name == "" {
				tc.config.Name = "policy"
			}
			assert.Equal(t, stages.Decision{Gate: tc.config.Name, Verdict: tc.verdict, Reasons: tc.reasons, Warnings: tc.warnings}, d)
		})
	}
}

func TestDecideErrorsAreNeverAPass(t *testing.T) {
	for name, tc := range map[string]struct {
		rego string
		plan stages.Plan
		is   error
		says string
	}{
		"failing function": {rego: `deny contains "x" if to_number(input.kind) == 1`, is: ErrRule, says: "policy.rego:2"},
		"conflict":         {rego: "deny := \"a\" if input.kind\ndeny := \"b\" if input.kind", is: ErrRule, says: "rule main.deny on Service shop"},
		"number":           {rego: `deny contains 1`, is: ErrRule, says: "neither a string nor an object"},
		"object, no msg":   {rego: `deny contains {"message": "x"}`, is: ErrRule, says: `{"message":"x"}`},
		"map":              {rego: `deny := {"x": true}`, is: ErrRule, says: "neither a string nor an object"},
		"malformed stream": {rego: `deny contains "x"`, plan: plan("a: [\n"), is: ErrManifests, says: "document 1"},
		"no image":         {rego: `deny contains "x"`, plan: stages.Plan{Manifests: []byte("a: 1")}, is: stages.ErrInvalid, says: "no image"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.plan.Manifests == nil {
				tc.plan = plan("apiVersion: v1\nkind: Service\nmetadata: {name: shop}\n")
			}
			d, err := newGate(t, Config{Modules: []fs.FS{files(tc.rego)}}).Decide(t.Context(), tc.plan)
			require.ErrorIs(t, err, tc.is)
			assert.ErrorContains(t, err, tc.says)
			assert.True(t, stages.IsPermanent(err))
			assert.Equal(t, stages.Inconclusive, d.Verdict)
		})
	}
}

func TestDecideStopsARuleThatRuns(t *testing.T) {
	gate := newGate(t, Config{Modules: []fs.FS{files(`deny contains "x" if {
		some a in numbers.range(1, 100000)
		some b in numbers.range(1, 100000)
		a + b < 0
	}`)}})
	cause := assert.AnError
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cause)
	defer cancel()
	started := time.Now()
	_, err := gate.Decide(ctx, planOf(t, "good.yaml"))
	require.ErrorIs(t, err, cause)
	assert.False(t, stages.IsPermanent(err))
	assert.Less(t, time.Since(started), 10*time.Second)
}

func TestNewRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		config Config
		says   []string
	}{
		"nothing":           {says: []string{"no .rego file", "policy.Baseline()"}},
		"empty folder":      {config: Config{Dirs: []string{t.TempDir()}}, says: []string{"no .rego file"}},
		"missing folder":    {config: Config{Dirs: []string{"does-not-exist"}}, says: []string{"reading policies in does-not-exist"}},
		"nil files":         {config: Config{Modules: []fs.FS{nil}}, says: []string{"Modules[0] is nil"}},
		"only tests":        {config: Config{Modules: []fs.FS{fstest.MapFS{"a_test.rego": {Data: []byte("package main\ndeny contains \"x\"")}}}}, says: []string{"no .rego file"}},
		"no rule":           {config: Config{Modules: []fs.FS{files(`helper := 1`)}}, says: []string{"package main has no deny, violation or warn rule"}},
		"wrong package":     {config: Config{Modules: []fs.FS{files(`deny contains "x"`)}, Packages: []string{"k8s"}}, says: []string{"package k8s has no", "found are main"}},
		"syntax":            {config: Config{Modules: []fs.FS{files("\ndeny contains x if {")}}, says: []string{"policy.rego:3", "rego_parse_error"}},
		"unknown function":  {config: Config{Modules: []fs.FS{files(`deny contains "x" if f(1)`)}}, says: []string{"policy.rego:2", "undefined function"}},
		"all mistakes":      {config: Config{Modules: []fs.FS{fstest.MapFS{"a.rego": {Data: []byte("package")}, "b.rego": {Data: []byte("package")}}}}, says: []string{"a.rego:1", "b.rego:1"}},
		"v0 without a word": {config: Config{Modules: []fs.FS{files(`deny[msg] { msg := "x" }`)}}, says: []string{"policy.rego:2", "Config.RegoV0"}},
		"object rule":       {config: Config{Modules: []fs.FS{files(`deny[msg] if msg := "x"`)}}, says: []string{"policy.rego:2", "deny contains msg if"}},
		"function rule":     {config: Config{Modules: []fs.FS{files(`deny_it(x) if x == 1`)}}, says: []string{"policy.rego:2", "deny_it contains msg if"}},
		"network":           {config: Config{Modules: []fs.FS{files(`deny contains "x" if http.send({"method": "get", "url": "http://a"}).status_code == 1`)}}, says: []string{"policy.rego:2", "Config.AllowHosts"}},
		"name resolution":   {config: Config{Modules: []fs.FS{files(`deny contains "x" if net.lookup_ip_addr("a")`)}}, says: []string{"Config.AllowHosts"}},
		"process":           {config: Config{Modules: []fs.FS{files(`deny contains "x" if opa.runtime().env.HOME`)}}, says: []string{"undefined function opa.runtime"}},
		"process, always":   {config: Config{AllowHosts: []string{"a"}, Modules: []fs.FS{files(`deny contains "x" if opa.runtime().env.HOME`)}}, says: []string{"undefined function opa.runtime"}},
		"data":              {config: Config{Data: map[string]any{"f": func() {}}, Modules: []fs.FS{files(`deny contains "x"`)}}, says: []string{"JSON"}},
		"negative limit":    {config: Config{MaxBytes: -1, Modules: []fs.FS{files(`deny contains "x"`)}}, says: []string{"negative"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(tc.config)
			require.ErrorIs(t, err, stages.ErrInvalid)
			for _, part := range tc.says {
				assert.ErrorContains(t, err, part)
			}
		})
	}
}

func TestSeveralSources(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sub", "policy.rego"), []byte("package team.rules\ndeny contains data.lib.message"), 0o600))
	gate := newGate(t, Config{
		Modules: []fs.FS{
			fstest.MapFS{"policy.rego": {Data: []byte("package main\ndeny_a contains \"a\"")}},
			fstest.MapFS{"policy.rego": {Data: []byte("package main\ndeny_b contains \"b\"")}},
			fstest.MapFS{"lib.rego": {Data: []byte("package lib\nmessage := \"c\"")}},
		},
		Dirs:     []string{dir},
		Packages: []string{"main", "team.rules", "main"},
	})
	d, err := gate.Decide(t.Context(), plan("apiVersion: v1\nkind: Service\n"))
	require.NoError(t, err)
	var rules []string
	for _, r := range d.Reasons {
		assert.Equal(t, "Service (unnamed)", r.Subject)
		rules = append(rules, r.Rule)
	}
	assert.Equal(t, []string{"main.deny_a", "main.deny_b", "team.rules.deny"}, rules)
}

func TestDataIsCopied(t *testing.T) {
	data := map[string]any{"names": []string{"x"}}
	gate := newGate(t, Config{Data: data, Modules: []fs.FS{files(`deny contains "x" if input.kind in data.names`)}})
	data["names"] = []string{"Service"}
	d, err := gate.Decide(t.Context(), plan("apiVersion: v1\nkind: Service\n"))
	require.NoError(t, err)
	assert.Equal(t, stages.Pass, d.Verdict)
}

func newGate(t *testing.T, config Config) *Gate {
	t.Helper()
	gate, err := New(config)
	require.NoError(t, err)
	return gate
}

// files returns a policy of package main, whose rules begin in line 2.
func files(rules string) fs.FS {
	return fstest.MapFS{"policy.rego": {Data: []byte("package main\n" + rules)}}
}

func plan(stream string) stages.Plan {
	return stages.Plan{Image: stagestest.Image("shop"), Release: "prod/shop", Manifests: []byte(stream)}
}

func planOf(t *testing.T, name string) stages.Plan {
	t.Helper()
	stream, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return plan(string(stream))
}
