package metric

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/fairlead-dev/fairlead/stages"
)

// Vars are values of the caller's own for an expression, as {{.Vars.name}}.
type Vars map[string]string

// term is what an expression's template may insert. How it is written depends on
// where it stands.
type term string

// A term leaves the template between these two, so that its place is known.
const (
	valueBegins = '\x00'
	valueEnds   = '\x01'
)

// String marks the term for the renderer.
func (v term) String() string { return string(valueBegins) + string(v) + string(valueEnds) }

// fields are what a template sees.
type fields struct {
	Release   term
	Namespace term
	Revision  term
	Previous  term
	Image     term
	Digest    term
	Window    term
	Vars      map[string]term
}

// expression is a checked template.
type expression struct {
	text string
	tmpl *template.Template
	vars map[string]term
}

// errTemplate classes an expression that can't be filled in with a release.
var errTemplate = errors.New("bad template")

// errMarked refuses the functions that would take a value out of its marks.
func errMarked(...any) (string, error) {
	return "", errors.New("this function is not available in an expression")
}

var templateFuncs = template.FuncMap{
	"regex": func(v term) term { return term(regexp.QuoteMeta(string(v))) },
	"print": errMarked, "printf": errMarked, "println": errMarked,
	"html": errMarked, "js": errMarked, "urlquery": errMarked, "call": errMarked,
}

// newExpression parses text and renders it once, so that what it doesn't have
// and what stands in the wrong place is refused before anything is asked.
func newExpression(what, text string, vars Vars) (*expression, error) {
	if strings.TrimSpace(text) == "" {
		return nil, fmt.Errorf("%w: %s is required", stages.ErrInvalid, what)
	}
	if strings.ContainsAny(text, string(valueBegins)+string(valueEnds)) {
		return nil, fmt.Errorf("%w: %s contains control characters", stages.ErrInvalid, what)
	}
	tmpl, err := template.New(what).Option("missingkey=error").Funcs(templateFuncs).Parse(text)
	if err != nil {
		return nil, errors.Join(stages.ErrInvalid, fmt.Errorf("parse %s: %w", what, err))
	}
	e := &expression{text: text, tmpl: tmpl, vars: make(map[string]term, len(vars))}
	for name, value := range vars {
		e.vars[name] = term(value)
	}
	rel, err := trialRelease()
	if err != nil {
		return nil, err
	}
	if _, err := e.render(rel, time.Minute); err != nil {
		return nil, errors.Join(stages.ErrInvalid, err)
	}
	return e, nil
}

// trialRelease has names that only a quoted string can hold.
func trialRelease() (stages.Release, error) {
	img, err := stages.ParseImage("registry.example/trial@sha256:" + strings.Repeat("0", 64))
	if err != nil {
		return stages.Release{}, err
	}
	const name = `trial"'` + "`"
	return stages.Release{Image: img, Name: name, Namespace: name, Revision: 2, Previous: 1}, nil
}

// usesWindow reports whether the expression depends on the window.
func (e *expression) usesWindow() bool {
	rel, err := trialRelease()
	if err != nil {
		return false
	}
	one, err1 := e.render(rel, time.Minute)
	two, err2 := e.render(rel, time.Hour)
	return err1 == nil && err2 == nil && one != two
}

func (e *expression) render(rel stages.Release, window time.Duration) (string, error) {
	var out strings.Builder
	err := e.tmpl.Execute(&out, fields{
		Release: term(rel.Name), Namespace: term(rel.Namespace),
		Revision: term(strconv.Itoa(rel.Revision)), Previous: term(strconv.Itoa(rel.Previous)),
		Image: term(rel.Image.String()), Digest: term(rel.Image.Digest().String()),
		Window: term(prometheusDuration(window)), Vars: e.vars,
	})
	if err != nil {
		return "", errors.Join(errTemplate, fmt.Errorf("fill in %s: %w", short(e.text), err))
	}
	text, err := placeValues(out.String())
	if err != nil {
		return "", errors.Join(errTemplate, fmt.Errorf("fill in %s: %w", short(e.text), err))
	}
	return text, nil
}

// prometheusDuration writes d in whole seconds, at least one.
func prometheusDuration(d time.Duration) string {
	return strconv.FormatInt(max(1, int64(d/time.Second)), 10) + "s"
}

// bare is what may stand outside of a quoted string: one identifier or number.
var bare = regexp.MustCompile(`^[A-Za-z0-9_:.]+$`)

// placeValues writes each marked value as its place demands: escaped inside a
// string in double or single quotes, unchanged elsewhere if it is one word, and
// not at all if it could become part of the expression.
func placeValues(marked string) (string, error) {
	var out strings.Builder
	quote := rune(0) // the string that the text is in; '#' for a comment
	escaped := false
	for rest := marked; rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		if r == valueBegins {
			value, after, ok := strings.Cut(rest[size:], string(valueEnds))
			if !ok {
				return "", errors.New("a value was cut")
			}
			if escaped {
				return "", errors.New("a value can't follow a backslash")
			}
			text, err := placeValue(value, quote)
			if err != nil {
				return "", err
			}
			out.WriteString(text)
			rest = after
			continue
		}
		if r == valueEnds {
			return "", errors.New("a value was cut")
		}
		out.WriteString(rest[:size])
		rest = rest[size:]
		quote, escaped = nextPlace(r, quote, escaped)
	}
	return out.String(), nil
}

// nextPlace follows the strings and comments of an expression.
func nextPlace(r, quote rune, escaped bool) (rune, bool) {
	switch {
	case escaped:
		return quote, false
	case quote == 0 && (r == '"' || r == '\'' || r == '`' || r == '#'):
		return r, false
	case quote == '#' && r == '\n', quote != 0 && quote != '#' && r == quote:
		return 0, false
	case (quote == '"' || quote == '\'') && r == '\\':
		return quote, true
	}
	return quote, false
}

func placeValue(value string, quote rune) (string, error) {
	switch {
	case strings.ContainsAny(value, string(valueBegins)+string(valueEnds)):
		return "", errors.New("a value contains control characters")
	case quote == '"' || quote == '\'':
		return escape(value), nil
	case value == "" || bare.MatchString(value):
		return value, nil
	}
	return "", fmt.Errorf("the value %s may only stand in a string in double quotes", short(value))
}

// escape writes s for either kind of quoted string, in escapes that PromQL and
// Go share.
func escape(s string) string {
	quoted := strconv.QuoteToASCII(s)
	inner := strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `\x22`)
	return strings.ReplaceAll(inner, `'`, `\x27`)
}
