package environment_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-dev/fairlead/helmx/environment"
	"github.com/fairlead-dev/fairlead/stages"
)

// hostile are names that somebody may give to a branch.
var hostile = []string{
	"feature/login", "feature-login", "Feature-Login", "feature_login", "-x", "--help", "../../etc/passwd", "a..b",
	"$(touch /tmp/x)", "`id`", "a;b", "a b", "브랜치/로그인", "\xff\xfe", "a\x00b", "a\nb", "{{.Branch}}", "refs/heads/main",
	strings.Repeat("a", 250), strings.Repeat("a", 251), strings.Repeat("/", 250), "a.b", "a-b",
}

func newSet(t *testing.T, environments ...environment.Environment) *environment.Set {
	t.Helper()
	set, err := environment.New(environments...)
	require.NoError(t, err)
	return set
}

func branches(name string, patterns ...string) environment.Environment {
	return environment.Environment{Name: name, Namespace: name, Branches: patterns}
}

func TestResolveTakesTheNarrowestPattern(t *testing.T) {
	set := newSet(t,
		branches("everything", "**"), branches("release", "release/*", "hotfix/**"),
		branches("old", "release/1.*"), branches("first", "release/1.0"),
		environment.Environment{Name: "tagged", Namespace: "tagged", Tags: []string{"v*"}},
		environment.Environment{Name: "pulls", Namespace: "pr-{{.PullRequest}}", PullRequests: []string{"main"}},
	)
	for _, c := range []struct {
		ref  environment.Ref
		want string
	}{
		{environment.Branch("main"), "everything"},
		{environment.Branch("release/2.0"), "release"},
		{environment.Branch("release/2.0/x"), "everything"},
		{environment.Branch("release/1.1"), "old"},
		{environment.Branch("release/1.0"), "first"},
		{environment.Tag("v1"), "tagged"},
		{environment.PullRequest(7, "main"), "pulls"},
	} {
		got, err := set.Resolve(c.ref)
		require.NoError(t, err)
		assert.Equal(t, c.want, got.Name, "%s", c.ref)
	}
	got, err := set.Resolve(environment.PullRequest(7, "main"))
	require.NoError(t, err)
	assert.Equal(t, "pr-7", got.Namespace)

	for _, ref := range []environment.Ref{environment.Tag("main"), environment.PullRequest(7, "develop")} {
		_, err := set.Resolve(ref)
		require.ErrorIs(t, err, environment.ErrNoEnvironment, "%s", ref)
	}
	for _, ref := range []environment.Ref{{}, environment.Branch(""), environment.PullRequest(0, "main"), environment.Tag(strings.Repeat("x", 2000))} {
		_, err := set.Resolve(ref)
		require.ErrorIs(t, err, stages.ErrInvalid, "%s", ref)
	}
}

func TestClaimsOfOneEnvironmentMayCross(t *testing.T) {
	set := newSet(t, branches("both", "a*", "*b"), branches("rest", "**"))
	got, err := set.Resolve(environment.Branch("ab"))
	require.NoError(t, err)
	assert.Equal(t, "both", got.Name)
}

func TestNamesFromHostileBranches(t *testing.T) {
	set := newSet(t, environment.Environment{Name: "feature", Namespace: "feature-{{.Branch}}-x", Branches: []string{"**"}},
		environment.Environment{Name: "tags", Namespace: "feature-{{ .Tag }}-x", Tags: []string{"**"}})
	namespaces, labels := map[string]bool{}, map[string]bool{}
	for _, name := range hostile {
		for _, ref := range []environment.Ref{environment.Branch(name), environment.Tag(name)} {
			e, err := set.Resolve(ref)
			require.NoError(t, err)
			assert.Empty(t, validation.IsDNS1123Label(e.Namespace), "%q", e.Namespace)
			assert.Empty(t, validation.IsValidLabelValue(ref.Label()), "%q", ref.Label())
			namespaces[e.Namespace], labels[ref.Label()] = true, true
		}
	}
	assert.Len(t, namespaces, 2*len(hostile))
	assert.Len(t, labels, 2*len(hostile))
}

func TestResolveNeverLeavesItsEnvironment(t *testing.T) {
	set := newSet(t, branches("pr-7", "main"),
		environment.Environment{Name: "pulls", Namespace: "pr-{{.PullRequest}}", PullRequests: []string{"**"}})
	_, err := set.Resolve(environment.PullRequest(7, "main"))
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.ErrorContains(t, err, "environment pr-7")
}

func TestSetIsImmutable(t *testing.T) {
	declared := branches("main", "main")
	declared.ValuesFiles = []string{"a"}
	set := newSet(t, declared)
	declared.ValuesFiles[0] = "changed"
	got, ok := set.Get("main")
	require.True(t, ok)
	got.ValuesFiles[0] = "changed"
	set.All()[0].Branches[0] = "changed"
	resolved, err := set.Resolve(environment.Branch("main"))
	require.NoError(t, err)
	assert.Equal(t, []string{"a"}, resolved.ValuesFiles)
	_, ok = set.Get("other")
	assert.False(t, ok)
}

func TestParseRef(t *testing.T) {
	ref, err := environment.ParseRef("refs/heads/refs/tags/x")
	require.NoError(t, err)
	assert.Equal(t, environment.Branch("refs/tags/x"), ref)
	assert.Equal(t, `branch "refs/tags/x"`, ref.String())
	ref, err = environment.ParseRef("refs/tags/v1")
	require.NoError(t, err)
	assert.Equal(t, environment.KindTag, ref.Kind())
	for _, text := range []string{"", "main", "refs/heads/", "refs/pull/7/merge", "refs/tags"} {
		_, err := environment.ParseRef(text)
		assert.ErrorIs(t, err, stages.ErrInvalid, "%q", text)
	}
}
