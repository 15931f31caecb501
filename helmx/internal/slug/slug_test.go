package slug_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-dev/fairlead/helmx/internal/slug"
)

func TestOf(t *testing.T) {
	for text, begins := range map[string]string{
		"main":                   "main-",
		"feature/Login Form":     "feature-login-form-",
		"--x":                    "x-",
		"../../etc":              "etc-",
		"$(rm -rf /)":            "rm-rf-",
		"":                       "",
		"브랜치":                    "",
		strings.Repeat("a", 300): strings.Repeat("a", 63-1-slug.HashLength) + "-",
	} {
		got := slug.Of(63, text, text)
		assert.True(t, strings.HasPrefix(got, begins), "%q becomes %q", text, got)
		assert.Len(t, got, len(begins)+slug.HashLength)
		assert.Empty(t, validation.IsDNS1123Label(got))
	}
}

func TestIdentityDecides(t *testing.T) {
	seen := map[string]bool{}
	for _, identity := range [][]string{{"a/b"}, {"a-b"}, {"A-B"}, {"a", "b"}, {"a", "", "b"}, {"ab"}, {"", "ab"}, {}} {
		seen[slug.Of(63, "a-b", identity...)] = true
	}
	assert.Len(t, seen, 8)
}

func FuzzOf(f *testing.F) {
	f.Add("feature/x", 63)
	f.Add("\xff", 13)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = slug.HashLength + min(max(limit, 0), 50)
		got := slug.Of(limit, text, text)
		if len(got) > limit || len(validation.IsDNS1123Label(got)) > 0 {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}
