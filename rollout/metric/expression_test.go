package metric

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

func TestExpression(t *testing.T) {
	img, err := stages.ParseImage("ghcr.io/acme/shop@sha256:" + strings.Repeat("ab", 32))
	require.NoError(t, err)
	rel := stages.Release{Image: img, Name: "shop.web", Namespace: "prod", Revision: 7, Previous: 6}
	vars := Vars{"code": "5..", "metric": "http_requests_total", "hostile": `x"} or vector(1) #` + "\n'\\`"}
	for text, want := range map[string]string{
		`up{job="{{.Release}}"}`:                   `up{job="shop.web"}`,
		`up{job=~"{{regex .Release}}-.*"}`:         `up{job=~"shop\\.web-.*"}`,
		`up{ns='{{.Namespace}}'}`:                  `up{ns='prod'}`,
		`rate(x[{{.Window}}])`:                     `rate(x[95s])`,
		`x{r="{{.Revision}}"} > {{.Previous}}`:     `x{r="7"} > 6`,
		`x{i="{{.Image}}",d="{{.Digest}}"}`:        `x{i="` + img.String() + `",d="` + img.Digest().String() + `"}`,
		`{{.Vars.metric}}{code=~"{{.Vars.code}}"}`: `http_requests_total{code=~"5.."}`,
		`x{a="{{.Vars.hostile}}"}`:                 `x{a="x\x22} or vector(1) #\n\x27\\` + "`" + `"}`,
		`x{a='{{.Vars.hostile}}'}`:                 `x{a='x\x22} or vector(1) #\n\x27\\` + "`" + `'}`,
		`x # about it's "release
		+ y{a="{{.Release}}"}`: "x # about it's \"release\n\t\t+ y{a=\"shop.web\"}",
		`x{a="\"{{.Release}}"}`:                          `x{a="\"shop.web"}`,
		`{{if eq .Namespace "prod"}}a{{else}}b{{end}}`:   `a`,
		`{{with index .Vars "code"}}x{c="{{.}}"}{{end}}`: `x{c="5.."}`,
	} {
		e, err := newExpression("Expression", text, vars)
		require.NoError(t, err, text)
		got, err := e.render(rel, 95*time.Second)
		require.NoError(t, err, text)
		assert.Equal(t, want, got)
	}
}

func TestExpressionRefuses(t *testing.T) {
	vars := Vars{"hostile": `1]) or vector(1`}
	for name, text := range map[string]string{
		"nothing":                   "  ",
		"a broken template":         "{{.Release",
		"an unknown field":          `up{job="{{.Relase}}"}`,
		"an unknown variable":       `up{job="{{.Vars.nope}}"}`,
		"a name outside of quotes":  `{{.Release}}_total`,
		"a value outside of quotes": `rate(x[{{.Vars.hostile}}])`,
		"a name in a raw string":    "up{job=`{{.Release}}`}",
		"a name in a comment":       "up # {{.Namespace}}",
		"a name after a backslash":  `up{job="\{{.Release}}"}`,
		"an image outside":          `x == {{.Image}}`,
		"a function that unquotes":  `up{job="{{printf "%s" .Release}}"}`,
		"another one":               `up{job="{{html .Release}}"}`,
		"a cut value":               `up{job="{{slice .Release.String 0 2}}"}`,
		"control characters":        "up\x00",
	} {
		_, err := newExpression("Expression", text, vars)
		require.ErrorIs(t, err, stages.ErrInvalid, name)
	}
}

func FuzzExpressionKeepsValuesInTheirPlace(f *testing.F) {
	f.Add(`x{a="`, `"}`, `"} or vector(1) #`)
	f.Add(`x{a='`, `'}`, "'\n\\")
	f.Add("x{a=`", "`}", "`")
	f.Add("x # ", "\n+ y", "\nvector(1)")
	f.Add("rate(x[", "])", "5m]) or (y")
	f.Fuzz(func(t *testing.T, before, after, hostile string) {
		if strings.ContainsAny(before+after, "{}\x00\x01") {
			before, after = strings.Trim(before, "{}\x00\x01"), strings.Trim(after, "{}\x00\x01")
		}
		if strings.Contains(before+after, "{{") || strings.ContainsAny(before+after, "\x00\x01") {
			t.Skip()
		}
		e, err := newExpression("Expression", before+`{{.Vars.v}}`+after, Vars{"v": hostile})
		if err != nil {
			return
		}
		got, err := e.render(stages.Release{}, time.Minute)
		require.NoError(t, err)
		// Whatever the value is, the text after it must be read as it is with a
		// harmless one: strings and comments end where they ended before.
		value := strings.TrimSuffix(strings.TrimPrefix(got, before), after)
		require.Equal(t, place(before+"v"+after, len(before)+1), place(got, len(before)+len(value)))
	})
}

// place returns what the text is inside of at an offset, by a reading of its own.
func place(text string, offset int) string {
	in := ""
	for i := 0; i < offset && i < len(text); i++ {
		c := text[i]
		switch {
		case in == "":
			if strings.IndexByte("\"'`#", c) >= 0 {
				in = string(c)
			}
		case in == "#":
			if c == '\n' {
				in = ""
			}
		case c == '\\' && in != "`":
			i++
		case string(c) == in:
			in = ""
		}
	}
	return in
}
