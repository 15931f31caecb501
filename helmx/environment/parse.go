package environment

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/fairlead-dev/fairlead/stages"
)

// parse reads environments. It knows the file by name only.
func parse(file string, data []byte) ([]declaration, error) {
	r := &reader{checker{file: file}}
	var out []declaration
	r.mapping(r.document(data), map[string]field{
		"environments": r.each(func(n *yaml.Node) { out = append(out, r.declaration(n)) }),
	})
	if len(r.problems) > 0 {
		return nil, errors.Join(r.problems...)
	}
	return out, nil
}

func (r *reader) declaration(n *yaml.Node) declaration {
	d := declaration{lines: map[string]int{"": n.Line}}
	list := func(name string, into *[]string) field {
		return func(n *yaml.Node) {
			d.lines[name] = n.Line
			r.each(func(n *yaml.Node) {
				d.lines[at(name, len(*into))] = n.Line
				*into = append(*into, r.text(n))
			})(n)
		}
	}
	scalar := func(name string, read field) field {
		return func(n *yaml.Node) { d.lines[name] = n.Line; read(n) }
	}
	r.mapping(n, map[string]field{
		"name":         scalar("name", func(n *yaml.Node) { d.Name = r.text(n) }),
		"namespace":    scalar("namespace", func(n *yaml.Node) { d.Namespace = r.text(n) }),
		"context":      scalar("context", func(n *yaml.Node) { d.Context = r.text(n) }),
		"promotesFrom": scalar("promotesFrom", func(n *yaml.Node) { d.PromotesFrom = r.text(n) }),
		"values":       list("values", &d.ValuesFiles),
		"branches":     list("branches", &d.Branches),
		"tags":         list("tags", &d.Tags),
		"pullRequests": list("pullRequests", &d.PullRequests),
		"gates":        list("gates", &d.Gates),
		"approvals": scalar("approvals", func(n *yaml.Node) {
			r.mapping(n, map[string]field{
				"required": scalar("approvals.required", func(n *yaml.Node) { d.Approvals.Required = r.number(n) }),
				"from":     list("approvals.from", &d.Approvals.From),
				"within":   scalar("approvals.within", func(n *yaml.Node) { d.Approvals.Within = r.duration(n) }),
			})
		}),
	})
	return d
}

// parseApprovals reads a list of approvals.
func parseApprovals(file string, data []byte) (Approved, error) {
	r := &reader{checker{file: file}}
	var out Approved
	r.mapping(r.document(data), map[string]field{
		"approvals": r.each(func(n *yaml.Node) {
			var a Approval
			r.mapping(n, map[string]field{
				"by":          func(n *yaml.Node) { a.By = r.text(n) },
				"environment": func(n *yaml.Node) { a.Environment = r.text(n) },
				"note":        func(n *yaml.Node) { a.Note = r.text(n) },
				"at":          func(n *yaml.Node) { a.At = r.moment(n) },
				"digest": func(n *yaml.Node) {
					var err error
					if a.Digest, err = stages.ParseDigest(r.text(n)); err != nil {
						r.refuse(n.Line, "", BadValue, "%s", err)
					}
				},
				"denied": func(n *yaml.Node) {
					if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Decode(&a.Denied) != nil {
						r.refuse(n.Line, "", Malformed, "denied is true or false")
					}
				},
			})
			if a.By == "" || a.Environment == "" || a.Digest == "" || a.At.IsZero() {
				r.refuse(n.Line, "", BadValue, "an approval needs by, at, digest and environment")
			}
			out = append(out, a)
		}),
	})
	if len(r.problems) > 0 {
		return nil, errors.Join(r.problems...)
	}
	return out, nil
}

// field reads the value of a field.
type field func(n *yaml.Node)

// reader reads YAML strictly and notes the line of each mistake. The library's own
// strict mode names Go types in its errors, and its nodes don't mind duplicates.
type reader struct{ checker }

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// document returns the root of the only document, or nil.
func (r *reader) document(data []byte) *yaml.Node {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		r.refuse(1, "", Malformed, "the file is empty")
		return nil
	case err != nil:
		r.syntax(err)
		return nil
	}
	switch err := decoder.Decode(&more); {
	case err == nil:
		r.refuse(more.Line, "", Malformed, "there is a second document; put everything into one")
	case !errors.Is(err, io.EOF):
		r.syntax(err)
	}
	return doc.Content[0]
}

func (r *reader) syntax(err error) {
	line := 1
	m := yamlLine.FindStringSubmatch(err.Error())
	if m != nil && m[1] != "" {
		if n, convErr := strconv.Atoi(m[1]); convErr == nil {
			line = n
		}
	}
	r.refuse(line, "", Malformed, "%s", yamlLine.ReplaceAllString(err.Error(), ""))
}

// mapping reads the fields of n. Aliases are refused with everything else that is
// no mapping: what they'd mean isn't seen where they are.
func (r *reader) mapping(n *yaml.Node, fields map[string]field) {
	if n == nil {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.refuse(n.Line, "", Malformed, "there must be fields here, not %s", shape(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		read, known := fields[key.Value]
		first, again := seen[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || !known:
			r.refuse(key.Line, "", UnknownField, "there is no field %s", quote(key.Value))
		case again:
			r.refuse(key.Line, "", Duplicate, "field %s is given on line %d already", key.Value, first)
		default:
			seen[key.Value] = key.Line
			read(value)
		}
	}
}

// each returns what reads a list with read.
func (r *reader) each(read field) field {
	return func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			r.refuse(n.Line, "", Malformed, "there must be a list here, not %s", shape(n))
			return
		}
		for _, item := range n.Content {
			read(item)
		}
	}
}

// text returns a scalar as it is written, so that a tag 1.10 stays 1.10.
func (r *reader) text(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		r.refuse(n.Line, "", Malformed, "there must be a text here, not %s", shape(n))
		return ""
	}
	return n.Value
}

func (r *reader) number(n *yaml.Node) int {
	i, err := strconv.Atoi(r.text(n))
	if err != nil {
		r.refuse(n.Line, "", Malformed, "%s is not a whole number", quote(n.Value))
	}
	return i
}

func (r *reader) duration(n *yaml.Node) time.Duration {
	d, err := time.ParseDuration(r.text(n))
	if err != nil {
		r.refuse(n.Line, "", Malformed, "%s is not a duration such as 24h or 90m", quote(n.Value))
	}
	return d
}

func (r *reader) moment(n *yaml.Node) time.Time {
	t, err := time.Parse(time.RFC3339, r.text(n))
	if err != nil {
		r.refuse(n.Line, "", Malformed, "%s is not a time such as 2006-01-02T15:04:05Z", quote(n.Value))
	}
	return t
}

func shape(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "fields"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.Tag == "!!null" || strings.TrimSpace(n.Value) == "":
		return "nothing"
	}
	return "a text"
}
