package helmfile

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

const releaseA = "releases:\n- name: a\n  namespace: ns\n  chart: ./a\n"

// refusals are helmfiles that are refused, and what the error says. None may show
// the text hunter2.
var refusals = map[string]struct{ text, says string }{
	"unknown field at the root":   {"release: []\n" + releaseA, "helmfile.yaml:1: release: is not a field"},
	"unknown field of a release":  {releaseA + "  vaules: []\n", "helmfile.yaml:5: releases[0].vaules: is not a field"},
	"field twice":                 {releaseA + "  chart: ./b\n", "helmfile.yaml:5: releases[0].chart: is there twice"},
	"hooks":                       {releaseA + "  hooks: []\n", "helmfile.yaml:5: releases[0].hooks: is not supported: it runs a command"},
	"sub-helmfiles":               {"helmfiles: [a.yaml]\n", "helmfile.yaml:1: helmfiles: is not supported"},
	"force":                       {releaseA + "  force: true\n", "releases[0].force: is not supported"},
	"wait without a verifier":     {releaseA + "  wait: true\n", "releases[0].wait: needs a verifier"},
	"removal in the foreground":   {releaseA + "  installed: false\n  cascade: foreground\n", `releases[0].cascade: "foreground" is not supported`},
	"history too short":           {releaseA + "  historyMax: 1\n", "helmfile.yaml:5: releases[0].historyMax: at least 2"},
	"not a number":                {releaseA + "  timeout: hunter2\n", "helmfile.yaml:5: releases[0].timeout: must be a whole number"},
	"not a boolean":               {releaseA + "  createNamespace: hunter2\n", "releases[0].createNamespace: must be true or false"},
	"not a list":                  {releaseA + "  values: hunter2\n", "releases[0].values: must be a list"},
	"not a map":                   {releaseA + "  labels: [hunter2]\n", "releases[0].labels: must be a map"},
	"not a string":                {releaseA + "  version: [hunter2]\n", "releases[0].version: must be a string"},
	"values that are no file":     {releaseA + "  values:\n  - [hunter2]\n", "releases[0].values[0]: must be the path of a file, or a map"},
	"values file that is missing": {releaseA + "  values:\n  - none.yaml\n", "helmfile.yaml:6: the file"},
	"values from afar":            {releaseA + "  values: ['git::https://x@y']\n", "only local files are read"},
	"secrets inline":              {releaseA + "  secrets: [{a: hunter2}]\n", "releases[0].secrets[0]: must be the path of a file"},
	"set without name":            {releaseA + "  set: [{value: hunter2}]\n", "releases[0].set[0]: has no name"},
	"set without value":           {releaseA + "  set: [{name: a, value: }]\n", "releases[0].set[0]: needs one of value"},
	"set with two":                {releaseA + "  set: [{name: a, value: hunter2, file: b}]\n", "releases[0].set[0]: needs one of value"},
	"setString of a file":         {releaseA + "  setString: [{name: a, file: b}]\n", "releases[0].setString[0].file: is not a field"},
	"vals in values":              {releaseA + "  values: [{a: {b: ref+vault://hunter2}}]\n", "releases[0].values[0]: a.b refers to a secret of vals"},
	"vals in set":                 {releaseA + "  set: [{name: a, value: ref+vault://hunter2}]\n", "releases[0].set[0]: refers to a secret of vals"},
	"vals within a text":          {releaseA + "  values: [{a: [{b: \"x ref+vault://hunter2+ y\"}]}]\n", "releases[0].values[0]: a[0].b refers to a secret of vals"},
	"vals that hide":              {releaseA + "  values: [{b: secretref+awsssm://hunter2}]\n", "releases[0].values[0]: b refers to a secret of vals"},
	"vals in set, within":         {releaseA + "  set: [{name: a, value: 'x,ref+vault://hunter2'}]\n", "releases[0].set[0]: refers to a secret of vals"},
	"vals in set's list":          {releaseA + "  set: [{name: a, values: [x, secretref+vault://hunter2]}]\n", "releases[0].set[0]: refers to a secret of vals"},
	"vals in setString":           {releaseA + "  setString: [{name: a, values: [x, ref+vault://hunter2]}]\n", "releases[0].setString[0]: refers to a secret of vals"},
	"null in set's list":          {releaseA + "  set:\n  - name: a\n    values: [hunter2, null]\n", "helmfile.yaml:7: releases[0].set[0].values[1]: must be a string, not null"},
	"map in set's list":           {releaseA + "  set:\n  - name: a\n    values:\n    - a: hunter2\n", "helmfile.yaml:8: releases[0].set[0].values[0]: must be a string"},
	"waitForJobs":                 {releaseA + "  waitForJobs: true\n", "helmfile.yaml:2: releases[0].waitForJobs: is not supported"},
	"waitForJobs by default":      {"helmDefaults: {waitForJobs: true}\n" + releaseA, "helmfile.yaml:3: releases[0].waitForJobs: is not supported"},
	"no name":                     {"releases: [{namespace: ns, chart: ./a}]", "releases[0]: has no name"},
	"no namespace":                {"releases: [{name: a, chart: ./a}]", "releases[0]: has no namespace"},
	"no chart":                    {"releases: [{name: a, namespace: ns}]", "releases[0]: has no chart"},
	"no releases":                 {"values: []", "has no releases"},
	"other context":               {releaseA + "  kubeContext: other\n", `releases[0].kubeContext: names the context "other"`},
	"other context by default":    {"helmDefaults:\n  kubeContext: other\n" + releaseA, `helmfile.yaml:2: helmDefaults: names the context "other"`},
	"unknown need":                {releaseA + "  needs: [b]\n", `ns/a needs "ns/b"`},
	"need in another context":     {releaseA + "  needs: [far/ns/b]\n", "a release in another context"},
	"cycle":                       {releaseA + "  needs: [a]\n", "ns/a needs ns/a"},
	"twice":                       {releaseA + "- {name: a, namespace: ns, chart: ./b}\n", "ns/a is in the set twice"},
	"condition":                   {releaseA + "  condition: hunter\n", "releases[0].condition: must be true, false"},
	"condition of nothing":        {releaseA + "  condition: x.enabled\n", `releases[0].condition: there is no map at "x"`},
	"unknown template":            {releaseA + "  inherit: [{template: t}]\n", `releases[0].inherit: there is no template "t"`},
	"circle of templates":         {"templates: {t: {inherit: [{template: t}]}}\n" + releaseA + "  inherit: [{template: t}]\n", "in a circle: t from t"},
	"except":                      {"templates: {t: {}}\n" + releaseA + "  inherit: [{template: t, except: [chart]}]\n", `except "chart" is not supported`},
	"merge strategy":              {"environments: {default: {mergeStrategy: fallback}}\n" + releaseA, "mergeStrategy: only override"},
	"repository without url":      {"repositories: [{name: a}]\n" + releaseA, "repositories[0]: needs a name and a url"},
	"repository with cert":        {"repositories: [{name: a, url: b, certFile: c}]\n" + releaseA, "repositories[0].certFile: is not supported"},
	"chart by git":                {"releases: [{name: a, namespace: ns, chart: 'git::https://x'}]", "releases[0].chart: only local charts"},
	"releases in two documents":   {releaseA + "---\n" + releaseA, "helmfile.yaml:7: releases: an earlier document has releases"},
	"base that is missing":        {"bases: [none.yaml]\n" + releaseA, "none.yaml does not exist"},
	"not YAML":                    {"a: [hunter2\n", "helmfile.yaml:1: did not find expected ',' or ']'"},
	"several documents of one":    {"{{ \"---\\na: hunter2\\n---\\n\" }}\nb: 1", "several documents"},
	"exec":                        {"# \n# {{ exec \"id\" (list) }}\n" + releaseA, "helmfile.yaml:2: template: exec is not supported: it runs a command"},
	"getHostByName":               {"# {{ getHostByName \"x\" }}\n" + releaseA, "asks the network"},
	"unknown function":            {"# {{ hunter }}\n" + releaseA, `function "hunter" not defined`},
	"unknown value":               {"# {{ .Values.hunter }}\n" + releaseA, `map has no entry for key "hunter"`},
	"value of a wrong kind":       {"# {{ range $x := (\"hunter2\" | upper | lower | quote) }}{{ end }}\n" + releaseA, "range can't iterate over it"},
	"value in a function's error": {"# {{ mustRegexMatch \"(hunter2\" \"x\" }}\n" + releaseA, "mustRegexMatch failed"},
	"YAML in a template":          {"# {{ fromYaml \"a: [hunter2\" }}\n" + releaseA, "the text is not YAML"},
	"tpl of no template":          {"# {{ tpl \"{{ hunter2\" . }}\n" + releaseA, "given to tpl is not a template"},
	"endless include":             {"{{ define \"x\" }}{{ include \"x\" . }}{{ end }}# {{ include \"x\" . }}\n" + releaseA, "too deep"},
	"required":                    {"# {{ required \"say what\" \"\" }}\n" + releaseA, "say what"},
	"get of nothing":              {"# {{ .Values | get \"a.b\" }}\n" + releaseA, `there is nothing at "a.b"`},
	"lines of another document":   {"values: []\n---\n# a\n" + releaseA + "  nope: 1\n", "helmfile.yaml:8: releases[0].nope"},
	"lines that have moved":       {"{{ \"a\\nb\" | nindent 2 | comment | default \"#\\n#\" }}\n" + releaseA, `function "comment" not defined`},
	"rendered lines":              {"# {{ list \"x\" \"y\" | join \"\\n# \" }}\n" + releaseA + "  nope: 1\n", "helmfile.yaml:7 (as rendered): releases[0].nope"},
}

func TestRefusals(t *testing.T) {
	for name, test := range refusals {
		t.Run(name, func(t *testing.T) {
			_, err := Load(t.Context(), write(t, test.text, nil))
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, test.says)
			assert.NotContains(t, err.Error(), "hunter2", "a value is shown")
		})
	}
}

func TestProblemsInValuesFilesNameTheFile(t *testing.T) {
	for name, test := range map[string]struct{ file, text, says string }{
		"not YAML":     {"v.yaml", "a: 1\nb: [hunter2\nc: d", "v.yaml:2: did not find expected"},
		"not a map":    {"v.yaml", "- hunter2", "v.yaml"},
		"bad template": {"v.yaml.gotmpl", "a: 1\nb: {{ .Values.none }}", `v.yaml.gotmpl:2: template: map has no entry for key "none"`},
		"bad result":   {"v.yaml.gotmpl", "a: {{ \"[hunter2\" }}", "v.yaml.gotmpl:1 (as rendered)"},
		"several":      {"v.yaml", "a: 1\n---\nb: hunter2\n", "v.yaml:2: a file of values has one document"},
		"missing env":  {"v.yaml.gotmpl", "a: {{ requiredEnv \"X\" }}", "v.yaml.gotmpl:1: template: the environment variable X is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(t.Context(), write(t, releaseA+"  values: ["+test.file+"]\n", map[string]string{test.file: test.text}))
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, test.says)
			assert.NotContains(t, err.Error(), "hunter2")
		})
	}
}

// Every field that helmfile has is either read or refused with advice; this keeps
// the tables apart.
func TestFieldsAreReadOrRefused(t *testing.T) {
	for _, m := range []map[string]string{refusedAtRoot, refusedSettings, refusedAtRelease, onlyFalse} {
		for _, name := range names(m) {
			assert.NotEmpty(t, m[name], name)
			assert.False(t, strings.HasSuffix(m[name], "."), name)
		}
	}
	for _, name := range append(names(refusedSettings), names(refusedAtRelease)...) {
		_, err := Load(t.Context(), write(t, fmt.Sprintf("%s  %s: []\n", releaseA, name), nil))
		failure, ok := errors.AsType[*FieldError](err)
		require.True(t, ok, name)
		assert.Equal(t, "releases[0]."+name, failure.Field)
		assert.Equal(t, 5, failure.Line)
	}
}
