package otlp

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	labels := map[string]string{"service.name": "shop", "code": "503", "odd key": "a\"b", "empty": ""}
	for expression, want := range map[string]bool{
		`x`:                   true,
		` http.server/x-y:z `: true,
		`x{}`:                 true,
		`x{code="503"}`:       true,
		`x{code="50"}`:        false,
		`x{code!="50"}`:       true,
		`x{code=~"5.."}`:      true,
		`x{code=~"5."}`:       false,
		`x{code!~"4..|2.."}`:  true,
		`x{ code = '503' , service.name="shop", }`: true,
		`x{code="503",service.name="web"}`:         false,
		`x{"odd key"="a\x22b"}`:                    true,
		`x{'odd key'='a"b'}`:                       true,
		`x{missing=""}`:                            true,
		`x{missing!="a"}`:                          true,
		`x{empty=~".+"}`:                           false,
	} {
		s, err := parse(expression)
		require.NoError(t, err, expression)
		assert.Equal(t, want, s.matches(labels), expression)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, expression := range []string{
		"", "  ", "{a=\"b\"}", "x{", "x{a", "x{a=}", "x{a=b}", `x{a="b}`, `x{a="b"`, `x{a="b" c="d"}`, `x{a~"b"}`, `x{a=~"("}`, `x{a="\q"}`,
		`x{,}`, `x}`, `x y`, "x{a=`b`}", "x{a=\"b\n\"}", `rate(x[5m])`, `x{a=="b"}`, `1x`, `x{="b"}`,
	} {
		_, err := parse(expression)
		require.Error(t, err, expression)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"x", `x{a="b"}`, `x{"a b"!~'c|d', e=~".*"}`, `x{a="\xff\u00e9\\"}`, "x{a=\""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		s, err := parse(expression)
		if err != nil {
			require.Less(t, len(err.Error()), 2000+4*len(expression))
			return
		}
		require.NotEmpty(t, s.name)
		s.matches(map[string]string{"a": "b"})
	})
}
