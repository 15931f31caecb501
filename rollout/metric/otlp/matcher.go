package otlp

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// selector is a parsed expression.
type selector struct {
	name     string
	matchers []matcher
}

// matcher is a condition on one attribute.
type matcher struct {
	key     string
	value   string
	pattern *regexp.Regexp // in place of value
	negated bool
}

func (m matcher) matches(labels map[string]string) bool {
	got := labels[m.key]
	if m.pattern != nil {
		return m.pattern.MatchString(got) != m.negated
	}
	return (got == m.value) != m.negated
}

func (s selector) matches(labels map[string]string) bool {
	for _, m := range s.matchers {
		if !m.matches(labels) {
			return false
		}
	}
	return true
}

// parse reads an expression; see the package comment.
func parse(expression string) (selector, error) {
	p := &parser{rest: expression}
	p.space()
	s := selector{name: p.name()}
	if s.name == "" {
		return selector{}, p.wrong("a metric's name")
	}
	p.space()
	if p.take("{") {
		if err := p.matchers(&s); err != nil {
			return selector{}, err
		}
	}
	p.space()
	if p.rest != "" {
		return selector{}, p.wrong("the end")
	}
	return s, nil
}

type parser struct{ rest string }

func (p *parser) matchers(s *selector) error {
	for {
		p.space()
		if p.take("}") {
			return nil
		}
		m, err := p.matcher()
		if err != nil {
			return err
		}
		s.matchers = append(s.matchers, m)
		p.space()
		if !p.take(",") && !strings.HasPrefix(p.rest, "}") {
			return p.wrong("a comma or a closing brace")
		}
	}
}

func (p *parser) matcher() (matcher, error) {
	var m matcher
	if m.key = p.name(); m.key == "" {
		key, err := p.quoted("an attribute's name")
		if err != nil {
			return m, err
		}
		m.key = key
	}
	p.space()
	isPattern := false
	switch {
	case p.take("=~"):
		isPattern = true
	case p.take("!~"):
		isPattern, m.negated = true, true
	case p.take("!="):
		m.negated = true
	case !p.take("="):
		return m, p.wrong("one of = != =~ !~")
	}
	p.space()
	value, err := p.quoted("a value in quotes")
	if err != nil {
		return m, err
	}
	m.value = value
	if isPattern {
		if m.pattern, err = regexp.Compile("^(?:" + value + ")$"); err != nil {
			return m, fmt.Errorf("regular expression of %s: %w", m.key, err)
		}
	}
	return m, nil
}

// name takes letters, digits and what OpenTelemetry allows in names beside them.
func (p *parser) name() string {
	n := 0
	for n < len(p.rest) {
		c := p.rest[n]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		inner := c >= '0' && c <= '9' || c == '.' || c == '-' || c == '/' || c == ':'
		if !letter && (n == 0 || !inner) {
			break
		}
		n++
	}
	name := p.rest[:n]
	p.rest = p.rest[n:]
	return name
}

// quoted takes a string in double or single quotes.
func (p *parser) quoted(what string) (string, error) {
	if p.rest == "" || p.rest[0] != '"' && p.rest[0] != '\'' {
		return "", p.wrong(what)
	}
	quote := p.rest[0]
	var out strings.Builder
	for rest := p.rest[1:]; rest != ""; {
		if rest[0] == quote {
			p.rest = rest[1:]
			return out.String(), nil
		}
		r, multibyte, tail, err := strconv.UnquoteChar(rest, quote)
		if err != nil || rest[0] == '\n' {
			return "", p.wrong(what)
		}
		if r < utf8.RuneSelf || !multibyte {
			out.WriteByte(byte(r))
		} else {
			out.WriteRune(r)
		}
		rest = tail
	}
	return "", errors.New("a string has no end")
}

func (p *parser) space() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

func (p *parser) take(token string) bool {
	after, ok := strings.CutPrefix(p.rest, token)
	p.rest = after
	return ok
}

func (p *parser) wrong(wanted string) error {
	const shown = 40
	if p.rest == "" {
		return fmt.Errorf("%s is expected, but there is nothing more", wanted)
	}
	return fmt.Errorf("%s is expected at %q", wanted, p.rest[:min(shown, len(p.rest))])
}
