package environment_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/environment"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestLoadSeed(t *testing.T) {
	set, err := environment.Load("testdata/seed/environments.yaml", environment.LoadOptions{})
	require.NoError(t, err)
	staging, err := set.Resolve(environment.Branch("develop"))
	require.NoError(t, err)
	assert.Equal(t, environment.Environment{
		Name: "staging", Namespace: "stg", Branches: []string{"develop"}, ValuesFiles: []string{"testdata/seed/values-stg.yaml"},
	}, staging)
	production, err := set.Resolve(environment.Branch("main"))
	require.NoError(t, err)
	assert.Equal(t, environment.Environment{
		Name: "production", Namespace: "prod", Branches: []string{"main"}, ValuesFiles: []string{"testdata/seed/values-prod.yaml"},
		PromotesFrom: "staging", Gates: []string{"vulnerabilities", "policy"},
		Approvals: environment.Approvals{Required: 1, From: []string{"ada", "grace"}, Within: 24 * time.Hour},
	}, production)
}

// folder makes a folder with an environment file and some values files.
func folder(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "env", "sub"), 0o700))
	for name, content := range map[string]string{
		"secret.yaml": "x: 1", "env/values.yaml": "x: 1", "env/sub/values.yaml": "x: 1", "env/environments.yaml": text,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	require.NoError(t, os.Symlink("../secret.yaml", filepath.Join(dir, "env", "escape.yaml")))
	require.NoError(t, os.Symlink("sub/values.yaml", filepath.Join(dir, "env", "inside.yaml")))
	return filepath.Join(dir, "env", "environments.yaml")
}

func TestLoadRefuses(t *testing.T) {
	const head = "environments:\n  - name: a\n    namespace: a\n    branches: [a]\n"
	second := func(rest string) string { return head + "  - name: b\n    namespace: b\n" + rest }
	for name, c := range map[string]struct {
		text    string
		line    int
		problem environment.Problem
		message string
	}{
		"nothing":                 {"", 1, environment.Malformed, "empty"},
		"no environment":          {"environments: []\n", 1, environment.BadValue, "no environment"},
		"not YAML":                {"environments:\n\t- name: a\n", 2, environment.Malformed, ""},
		"a list":                  {"- a\n", 1, environment.Malformed, "fields here, not a list"},
		"two documents":           {head + "---\na: b\n", 5, environment.Malformed, "second document"},
		"an unknown field":        {head + "    branch: [x]\n", 5, environment.UnknownField, `no field "branch"`},
		"a field twice":           {head + "    branches: [x]\n", 5, environment.Duplicate, "on line 4"},
		"a field in approvals":    {head + "    approvals: {from: [x], who: 1}\n", 5, environment.UnknownField, "who"},
		"an alias":                {"environments: &e\n  - name: a\nx: *e\n", 3, environment.UnknownField, "x"},
		"an aliased value":        {head + "    context: &c x\n  - name: *c\n", 6, environment.Malformed, "an alias"},
		"null":                    {head + "    context: ~\n", 5, environment.Malformed, "nothing"},
		"a text for a list":       {head + "    tags: v1\n", 5, environment.Malformed, "a list here, not a text"},
		"a bad duration":          {head + "    approvals: {required: 1, from: [x], within: 1day}\n", 5, environment.Malformed, "1day"},
		"a bad number":            {head + "    approvals:\n      from: [x]\n      required: one\n", 7, environment.Malformed, "one"},
		"a bad pattern":           {head + "    tags:\n      - v1\n      - v[12]\n", 7, environment.BadPattern, "not supported"},
		"a bad name":              {"environments:\n  - name: A/b\n    namespace: a\n    branches: [a]\n", 2, environment.BadValue, "A/b"},
		"a bad namespace":         {"environments:\n  - name: a\n    namespace: -a\n    branches: [a]\n", 3, environment.BadValue, "-a"},
		"an unknown placeholder":  {"environments:\n  - name: a\n    namespace: x-{{.Env}}\n    branches: [a]\n", 3, environment.BadValue, "{{.PullRequest}}"},
		"a template function":     {"environments:\n  - name: a\n    namespace: x-{{lower .Branch}}\n    branches: [a]\n", 3, environment.BadValue, "{{.PullRequest}}"},
		"a placeholder of a tag":  {"environments:\n  - name: a\n    namespace: x-{{.Tag}}\n    tags: [v1]\n    branches: [a]\n", 3, environment.BadValue, "for a branch"},
		"no room for the hash":    {"environments:\n  - name: a\n    namespace: a123456789012345678901234567890123456789012345-{{.Tag}}\n    tags: [v1]\n", 3, environment.BadValue, "leaves"},
		"nothing is delivered":    {head + "  - name: b\n    namespace: b\n", 5, environment.BadValue, "nothing is ever delivered"},
		"a name twice":            {head + "  - name: a\n    namespace: b\n    branches: [b]\n", 5, environment.Duplicate, "(line 2)"},
		"a namespace twice":       {head + "  - name: b\n    namespace: a\n    branches: [b]\n", 6, environment.Duplicate, `"a" (line 3)`},
		"a pattern twice":         {second("    branches: [b, b]\n"), 7, environment.Duplicate, "twice"},
		"another's pattern":       {second("    branches:\n      - b\n      - a\n"), 9, environment.Duplicate, "already (line 4)"},
		"crossing patterns":       {"environments:\n  - {name: a, namespace: a, branches: [\"a*\"]}\n  - {name: b, namespace: b, branches: [\"*b\"]}\n", 3, environment.Overlap, `both match "ab"`},
		"no such environment":     {second("    promotesFrom: c\n"), 7, environment.BadValue, `no environment "c"`},
		"itself promoted":         {second("    promotesFrom: b\n"), 7, environment.BadValue, "leads back"},
		"too few approvers":       {head + "    approvals: {required: 2, from: [x]}\n", 5, environment.BadValue, "2 are required"},
		"approvers for nothing":   {head + "    approvals: {from: [x]}\n", 5, environment.BadValue, "required is missing"},
		"an approver twice":       {head + "    approvals: {required: 2, from: [x, x]}\n", 5, environment.Duplicate, "twice"},
		"an empty gate":           {head + "    gates: ['']\n", 5, environment.BadValue, "empty entry"},
		"a missing values file":   {head + "    values: [nope.yaml]\n", 5, environment.BadFile, "does not exist"},
		"a values file outside":   {head + "    values: [../secret.yaml]\n", 5, environment.BadFile, "outside"},
		"a detour to the outside": {head + "    values: [sub/../../secret.yaml]\n", 5, environment.BadFile, "outside"},
		"a link to the outside":   {head + "    values: [escape.yaml]\n", 5, environment.BadFile, "escape"},
		"an absolute values file": {head + "    values: [/etc/passwd]\n", 5, environment.BadFile, "absolute"},
		"a folder of values":      {head + "    values: [sub]\n", 5, environment.BadFile, "not a file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := folder(t, c.text)
			_, err := environment.Load(path, environment.LoadOptions{})
			require.ErrorIs(t, err, stages.ErrInvalid)
			var mistake *environment.ConfigError
			require.ErrorAs(t, err, &mistake)
			assert.Equal(t, c.problem, mistake.Problem, "%s", err)
			assert.Equal(t, path, mistake.File)
			assert.Equal(t, c.line, mistake.Line, "%s", err)
			assert.ErrorContains(t, err, c.message)
		})
	}
}

func TestLoadReportsAllMistakes(t *testing.T) {
	_, err := environment.Load(folder(t, "environments:\n  - name: a\n    nmespace: x\n    branchs: [x]\n"), environment.LoadOptions{})
	assert.ErrorContains(t, err, ":3: ")
	assert.ErrorContains(t, err, ":4: ")
}

func TestLoadValuesFiles(t *testing.T) {
	path := folder(t, "environments:\n  - name: a\n    namespace: a\n    branches: [a]\n    values: [values.yaml, ./sub/values.yaml, inside.yaml, /dev/null/../null]\n")
	_, err := environment.Load(path, environment.LoadOptions{AbsoluteValues: true})
	require.ErrorContains(t, err, "not a", "a device is no file")

	path = folder(t, "environments:\n  - name: a\n    namespace: a\n    branches: [a]\n    values: [values.yaml, ./sub/values.yaml, inside.yaml]\n")
	set, err := environment.Load(path, environment.LoadOptions{})
	require.NoError(t, err)
	dir := filepath.Dir(path)
	assert.Equal(t, []string{filepath.Join(dir, "values.yaml"), filepath.Join(dir, "sub/values.yaml"), filepath.Join(dir, "inside.yaml")}, set.All()[0].ValuesFiles)

	_, err = environment.Load(filepath.Join(dir, "none.yaml"), environment.LoadOptions{})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestLoadApprovals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "approvals.yaml")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write("approvals:\n  - {by: ada, at: 2026-01-02T03:04:05Z, environment: production, digest: \"" + string(image("a").Digest()) + "\"}\n" +
		"  - {by: grace, at: 2026-01-02T03:04:05Z, environment: production, denied: true, note: no, digest: \"" + string(image("a").Digest()) + "\"}\n")
	got, err := environment.LoadApprovals(path)
	require.NoError(t, err)
	require.Len(t, got, 2)
	assert.Equal(t, environment.Approval{By: "ada", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Environment: "production", Digest: image("a").Digest()}, got[0])
	assert.True(t, got[1].Denied)

	for text, want := range map[string]string{
		"approvals:\n  - {by: ada}\n":                ":2: an approval needs",
		"approvals:\n  - {by: ada, at: today}\n":     "today",
		"approvals:\n  - {by: ada, digest: x}\n":     "digest",
		"approvals:\n  - {by: ada, denied: maybe}\n": "true or false",
		"approvals:\n  - {who: ada}\n":               `no field "who"`,
	} {
		write(text)
		_, err := environment.LoadApprovals(path)
		require.ErrorIs(t, err, stages.ErrInvalid)
		assert.ErrorContains(t, err, want)
	}
}
