package helmfile

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	yaml "go.yaml.in/yaml/v3"
)

// place is where a document is: the file, and how its lines map to the file's.
type place struct {
	file string
	// first is the line of the file that the document begins with, minus one.
	first int
	// shifted is set if rendering has changed the number of lines.
	shifted bool
}

func (p place) error(line int, field, format string, args ...any) *FieldError {
	e := &FieldError{File: p.file, Field: field, Problem: fmt.Sprintf(format, args...), Rendered: p.shifted && line > 0}
	if line > 0 {
		e.Line = line
		if !p.shifted {
			e.Line += p.first
		}
	}
	return e
}

// at names a line of the document.
func (p place) at(n int) string {
	if p.shifted {
		return p.file
	}
	return fmt.Sprintf("%s:%d", p.file, p.first+n)
}

// reader turns YAML nodes into Go values, and collects what is wrong with them. It
// names fields, never values.
type reader struct {
	place
	problems []error
}

func (r *reader) refuse(n *yaml.Node, field, format string, args ...any) {
	r.problems = append(r.problems, r.error(n.Line, field, format, args...))
}

// known tells what to do with each field that an object may have.
type known map[string]func(n *yaml.Node, field string)

// object reads a map. Fields that are refused have an advice.
func (r *reader) object(n *yaml.Node, field string, fields known, refused map[string]string) {
	for _, p := range r.pairs(n, field, 0) {
		at := strings.TrimPrefix(field+"."+p.key.Value, ".")
		read, ok := fields[p.key.Value]
		advice, isRefused := refused[p.key.Value]
		switch {
		case ok:
			read(p.value, at)
		case isRefused:
			r.refuse(p.key, at, "is not supported: %s", advice)
		default:
			r.refuse(p.key, at, "is not a field of a helmfile that is known here; mind the spelling, or drop it")
		}
	}
}

type pair struct{ key, value *yaml.Node }

// pairs returns the fields of a map, with those that it merges from others.
func (r *reader) pairs(n *yaml.Node, field string, depth int) []pair {
	const deepest = 20
	n = target(n)
	switch {
	case isNull(n):
		return nil
	case n.Kind != yaml.MappingNode:
		r.refuse(n, field, "must be a map")
		return nil
	case depth > deepest:
		r.refuse(n, field, "merges maps too deep")
		return nil
	}
	var own, merged []pair
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Tag == "!!merge":
			sources := []*yaml.Node{value}
			if t := target(value); t.Kind == yaml.SequenceNode {
				sources = t.Content
			}
			for _, source := range sources {
				merged = append(merged, r.pairs(source, field, depth+1)...)
			}
		case key.Kind != yaml.ScalarNode:
			r.refuse(key, field, "has a field whose name is not a string")
		case seen[key.Value]:
			r.refuse(key, field+"."+key.Value, "is there twice")
		default:
			seen[key.Value] = true
			own = append(own, pair{key, value})
		}
	}
	for _, p := range merged {
		if !seen[p.key.Value] {
			seen[p.key.Value] = true
			own = append(own, p)
		}
	}
	return own
}

func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// text reads a string; numbers and booleans are taken as they are written.
func (r *reader) text(n *yaml.Node, field string) string {
	n = target(n)
	switch {
	case isNull(n):
		return ""
	case n.Kind != yaml.ScalarNode:
		r.refuse(n, field, "must be a string")
		return ""
	}
	return n.Value
}

func (r *reader) boolean(n *yaml.Node, field string) bool {
	var v bool
	if t := target(n); t.Kind != yaml.ScalarNode || t.Decode(&v) != nil {
		r.refuse(n, field, "must be true or false")
	}
	return v
}

func (r *reader) integer(n *yaml.Node, field string) int {
	v, err := strconv.Atoi(target(n).Value)
	if err != nil || v < 0 || v > math.MaxInt32 {
		r.refuse(n, field, "must be a whole number, not negative and at most %d", math.MaxInt32)
	}
	return v
}

func (r *reader) list(n *yaml.Node, field string) []*yaml.Node {
	n = target(n)
	switch {
	case isNull(n):
		return nil
	case n.Kind != yaml.SequenceNode:
		r.refuse(n, field, "must be a list")
		return nil
	}
	return n.Content
}

func (r *reader) texts(n *yaml.Node, field string) []string {
	var out []string
	for i, item := range r.list(n, field) {
		at := fmt.Sprintf("%s[%d]", field, i)
		if isNull(target(item)) {
			r.refuse(item, at, "must be a string, not null")
		}
		out = append(out, r.text(item, at))
	}
	return out
}

func (r *reader) textMap(n *yaml.Node, field string) map[string]string {
	out := map[string]string{}
	for _, p := range r.pairs(n, field, 0) {
		out[p.key.Value] = r.text(p.value, field+"."+p.key.Value)
	}
	return out
}

// mapping reads free-form values, with the types that templates see.
func (r *reader) mapping(n *yaml.Node, field string) map[string]any {
	out := map[string]any{}
	if err := n.Decode(&out); err != nil {
		r.refuse(n, field, "can't be read: %s", yamlProblem(err))
	}
	return out
}

var (
	// A value that is quoted may hold the same quotes.
	quoted = regexp.MustCompile("(?s)`.*`|\"(?:[^\"\\\\]|\\\\.)*\"|'[^']*'")
	// mapKey begins what the parsers say of a key that is no text, which goes on with
	// the key, or the value, as Go writes it.
	mapKey   = regexp.MustCompile(`(?s)((?:invalid|unsupported) map key).*`)
	yamlLine = regexp.MustCompile(`line (\d+):? *`)
)

// unquote takes out what is quoted, unless it is punctuation.
func unquote(text string) string {
	return quoted.ReplaceAllStringFunc(text, func(q string) string {
		if strings.ContainsFunc(q, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
			return "…"
		}
		return q
	})
}

// yamlProblem is what a YAML parser says without what it quotes, which may be a
// value.
func yamlProblem(err error) string {
	text := err.Error()
	for _, noise := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: ", "yaml: unmarshal errors:\n", "yaml: "} {
		text = strings.ReplaceAll(text, noise, "")
	}
	text = mapKey.ReplaceAllString(text, "$1; a key must be a text, a number, true or false")
	return strings.Join(strings.Fields(unquote(text)), " ")
}

// values reads a file of values into m. Of several documents Helm reads the first and
// drops the others, which nobody means.
func (p place) values(text []byte, unmarshal func([]byte, any) error, m *map[string]any) error {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var n yaml.Node
	for first := true; decoder.Decode(&n) == nil; first = false {
		if !first && !isNull(n.Content[0]) {
			return p.error(n.Line, "", "a file of values has one document; Helm would drop this one")
		}
	}
	if err := unmarshal(text, m); err != nil {
		return p.yamlError(err)
	}
	return nil
}

// yamlError places what a YAML parser says.
func (p place) yamlError(err error) *FieldError {
	text := yamlProblem(err)
	line := 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1]) // Digits, and 0 does no harm.
		text = strings.Replace(text, m[0], "", 1)
	}
	return p.error(line, "", "%s", text)
}
