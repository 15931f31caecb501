package buildkit

import (
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
)

const (
	redacted = "[redacted]"

	// minLine is the shortest line of a multi-line secret that is looked for on
	// its own: shorter ones, such as "}", are no secret.
	minLine = 4
)

// redactor replaces secrets in text. Its zero value knows none.
type redactor struct {
	mu       sync.RWMutex
	needles  []string // longest first, so that none is cut in two by a shorter one
	replacer *strings.Replacer
}

// add makes secret, its base64 forms and its single lines unspeakable.
func (r *redactor) add(secret string) {
	forms := []string{clean(secret), clean(strings.TrimSpace(secret))}
	for line := range strings.Lines(secret) {
		if line = clean(strings.TrimSpace(line)); len(line) >= minLine {
			forms = append(forms, line)
		}
	}
	if len(secret) >= minLine {
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			forms = append(forms, encoding.EncodeToString([]byte(secret)))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, form := range forms {
		if form != "" && !slices.Contains(r.needles, form) {
			r.needles = append(r.needles, form)
		}
	}
	slices.SortFunc(r.needles, func(a, b string) int { return len(b) - len(a) })
	pairs := make([]string, 0, 2*len(r.needles))
	for _, needle := range r.needles {
		pairs = append(pairs, needle, redacted)
	}
	r.replacer = strings.NewReplacer(pairs...)
}

// text returns s, cleaned of control sequences, without secrets.
func (r *redactor) text(s string) string {
	s = clean(s)
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.replacer == nil {
		return s
	}
	return r.replacer.Replace(s)
}

// longest is the length of the longest text that is replaced.
func (r *redactor) longest() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.needles) == 0 {
		return 0
	}
	return len(r.needles[0])
}

// The control sequences of terminals (ECMA-48): colours, cursor movement, titles.
var controlSequence = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])`)

// clean makes s safe to print on one line of a terminal, line ends excepted.
func clean(s string) string {
	if strings.ContainsRune(s, '\x1b') {
		s = controlSequence.ReplaceAllString(s, "")
	}
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\t' || c == '\n':
			return c
		case unicode.IsControl(c):
			return -1
		}
		return c
	}, s)
}
