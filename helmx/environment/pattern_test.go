package environment

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustPattern(t testing.TB, text string) pattern {
	t.Helper()
	p, err := parsePattern(text)
	require.NoError(t, err)
	return p
}

func TestPatternMatches(t *testing.T) {
	for text, names := range map[string]struct{ yes, no []string }{
		"main":         {[]string{"main"}, []string{"Main", "main ", "main/x", "mai", ""}},
		"release/*":    {[]string{"release/1", "release/", "release/-x"}, []string{"release", "release/1/2"}},
		"release/**":   {[]string{"release/1", "release/1/2"}, []string{"release"}},
		"**":           {[]string{"", "a", "a/b", "../../x", "$(x)", "\xff"}, nil},
		"*":            {[]string{"a", "-x"}, []string{"a/b"}},
		"v*.*":         {[]string{"v1.2", "v.", "v1.2.3"}, []string{"v1", "v1/2.3"}},
		"**/hotfix-*":  {[]string{"a/hotfix-1", "a/b/hotfix-1"}, []string{"hotfix-1", "a/hotfix-1/x"}},
		"기능/*":         {[]string{"기능/로그인"}, []string{"기능/로그인/x"}},
		"a*a*a":        {[]string{"aaa", "abaca", "aaaaaaa"}, []string{"aa", "abab"}},
		"dependabot/*": {nil, []string{"dependabot/npm/x"}},
	} {
		p := mustPattern(t, text)
		for _, name := range names.yes {
			assert.True(t, p.matches(name), "%q and %q", text, name)
		}
		for _, name := range names.no {
			assert.False(t, p.matches(name), "%q and %q", text, name)
		}
	}
}

func TestPatternRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "empty",
		"feature/[ab]":           "not supported",
		"v?":                     "not supported",
		"!main":                  "not supported",
		"^main$":                 "not supported",
		"a b":                    "not supported",
		"a\\b":                   "not supported",
		"a\nb":                   "not supported",
		"refs/heads/main":        "leave out",
		"/main":                  "can't match",
		"main/":                  "can't match",
		"a//b":                   "can't match",
		"../main":                "can't match",
		"a***b":                  "no '***'",
		"\xff":                   "not UTF-8",
		strings.Repeat("a", 256): "longer than 255",
	} {
		_, err := parsePattern(text)
		assert.ErrorContains(t, err, want, "%q", text)
	}
	mustPattern(t, strings.Repeat("a", maxPattern))
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		p, q    string
		want    relation
		witness string
	}{
		{"main", "main", equal, "main"},
		{"main", "develop", disjoint, ""},
		{"main", "mainline", disjoint, ""},
		{"main", "m*", narrower, "main"},
		{"m*", "main", wider, "main"},
		{"*", "**", narrower, ""},
		{"release/*", "**", narrower, "release/"},
		{"release/*", "release/**", narrower, "release/"},
		{"a*", "*b", crossing, "ab"},
		{"a*b", "a*", narrower, "ab"},
		{"*/x", "y/*", crossing, "y/x"},
		{"release/*", "*-fix", disjoint, ""},
		{"release/*", "**-fix", crossing, "release/-fix"},
		{"**a**", "**", narrower, "a"},
		{"기능/*", "기*", disjoint, ""},
		{"기능/*", "기**", narrower, "기능/"},
	} {
		got, witness := compare(mustPattern(t, c.p), mustPattern(t, c.q))
		assert.Equal(t, c.want, got, "%s and %s", c.p, c.q)
		assert.Equal(t, c.witness, witness, "%s and %s", c.p, c.q)
	}
}

func TestCompareGivesUp(t *testing.T) {
	many := mustPattern(t, "**"+strings.Repeat("a*b**", 40))
	other := mustPattern(t, "**"+strings.Repeat("b*a**", 40))
	got, _ := compare(many, other)
	assert.Equal(t, unknown, got)
}

// FuzzCompare checks what compare says against the names that are matched.
func FuzzCompare(f *testing.F) {
	f.Add("a*", "*b", "ab")
	f.Add("release/**", "**/x", "release/1/x")
	f.Fuzz(func(t *testing.T, first, second, name string) {
		p, err := parsePattern(first)
		q, otherErr := parsePattern(second)
		if err != nil || otherErr != nil {
			return
		}
		rel, witness := compare(p, q)
		mirror, _ := compare(q, p)
		inP, inQ := p.matches(name), q.matches(name)
		switch rel {
		case disjoint:
			assert.False(t, inP && inQ)
		case equal:
			assert.Equal(t, inP, inQ)
		case narrower:
			assert.True(t, !inP || inQ)
			assert.Equal(t, wider, mirror)
		case wider:
			assert.True(t, !inQ || inP)
			assert.Equal(t, narrower, mirror)
		case crossing:
			assert.Equal(t, crossing, mirror)
		case unknown:
			return
		}
		if rel != disjoint {
			assert.True(t, p.matches(witness) && q.matches(witness), "%q", witness)
		}
	})
}
