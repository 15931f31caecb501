package environment

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxPattern is the longest pattern, in bytes: one position less than a positions
// can tell apart.
const maxPattern = 255

// pattern is a parsed pattern. It works on bytes, which comes to the same as
// characters, because UTF-8 never has a '/' within one.
type pattern struct {
	text   string
	tokens []token
}

// token is one byte, or a wildcard.
type token struct {
	wild wildcard
	char byte
}

type wildcard int

const (
	literal  wildcard = iota
	segment           // * matches any text without '/'.
	anything          // ** matches any text.
)

// parsePattern refuses what can't be in the name of a branch, and with it the
// wildcards that other tools have: nobody shall believe that they work here.
func parsePattern(text string) (pattern, error) {
	p := pattern{text: text}
	switch {
	case text == "":
		return p, errors.New("a pattern is empty")
	case len(text) > maxPattern:
		return p, fmt.Errorf("pattern %s is longer than %d bytes", quote(text), maxPattern)
	case !utf8.ValidString(text):
		return p, fmt.Errorf("pattern %s is not UTF-8", quote(text))
	case strings.HasPrefix(text, "refs/"):
		return p, fmt.Errorf("pattern %s: leave out refs/heads/ and refs/tags/", quote(text))
	case strings.HasPrefix(text, "/"), strings.HasSuffix(text, "/"), strings.Contains(text, "//"), strings.Contains(text, ".."):
		return p, fmt.Errorf("pattern %s can't match: names have no '/' at either end, no '//' and no '..'", quote(text))
	case strings.Contains(text, "***"):
		return p, fmt.Errorf("pattern %s: '*' stands for text without '/', '**' for any text, and there is no '***'", quote(text))
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case strings.IndexByte("?[]{}\\!^~: ", c) >= 0, c < ' ', c == 0x7f:
			return p, fmt.Errorf("pattern %s: %q is not supported; the wildcards are '*' for text without '/' and '**' for any text", quote(text), c)
		case strings.HasPrefix(text[i:], "**"):
			p.tokens = append(p.tokens, token{wild: anything})
			i++
		case c == '*':
			p.tokens = append(p.tokens, token{wild: segment})
		default:
			p.tokens = append(p.tokens, token{char: c})
		}
	}
	return p, nil
}

// matches reports whether p matches all of name.
func (p pattern) matches(name string) bool {
	at := p.start()
	for i := 0; i < len(name) && at != (positions{}); i++ {
		at = p.step(at, name[i])
	}
	return p.accepts(at)
}

// positions is a set of places in a pattern: before token 0 to after the last.
type positions [(maxPattern + 1) / 64]uint64

func (s *positions) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *positions) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (p pattern) start() positions {
	var s positions
	p.enter(&s, 0)
	return s
}

func (p pattern) accepts(s positions) bool { return s.has(len(p.tokens)) }

// step returns where p can be after c.
func (p pattern) step(from positions, c byte) positions {
	var to positions
	for i, t := range p.tokens {
		switch {
		case !from.has(i):
		case t.wild == literal && t.char == c:
			p.enter(&to, i+1)
		case t.wild == anything, t.wild == segment && c != '/':
			p.enter(&to, i)
		}
	}
	return to
}

// enter adds place i, and the ones after it that are reached for nothing because
// a wildcard matches no text as well.
func (p pattern) enter(s *positions, i int) {
	s.add(i)
	for ; i < len(p.tokens) && p.tokens[i].wild != literal; i++ {
		s.add(i + 1)
	}
}
