package sops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// yamlIndent is what sops writes.
const yamlIndent = 4

var yamlLine = regexp.MustCompile(`line (\d+):`)

// readYAML parses a stream of documents, each a mapping or empty. Comments take
// the places among the entries that sops gives them, because some rules of what
// is encrypted go by them.
func readYAML(data []byte) ([]mapping, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var docs []mapping
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return docs, nil
		} else if err != nil {
			// The cause may quote the file; only the line is safe.
			bad := &syntaxError{reason: "it is not YAML"}
			if found := yamlLine.FindStringSubmatch(err.Error()); found != nil {
				bad.line, _ = strconv.Atoi(found[1])
			}
			return nil, bad
		}
		m := mapping{}.with(doc.HeadComment, false).with(doc.LineComment, false)
		for _, n := range doc.Content {
			inner, err := readYAMLDocument(n)
			if err != nil {
				return nil, err
			}
			m = append(m, inner...)
		}
		docs = append(docs, m.with(doc.FootComment, false))
	}
}

func readYAMLDocument(n *yaml.Node) (mapping, error) {
	switch {
	case n.Kind == yaml.MappingNode:
		return readYAMLMapping(n, true, 0)
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return mapping{}.with(n.HeadComment, false).with(n.LineComment, false).with(n.FootComment, false), nil
	default:
		return nil, &syntaxError{line: n.Line, reason: "a document is not a mapping"}
	}
}

// with appends the lines of a comment.
func (m mapping) with(text string, inline bool) mapping {
	for _, c := range commentLines(text, inline) {
		m = append(m, entry{comment: c})
	}
	return m
}

func (s sequence) with(text string, inline bool) sequence {
	for _, c := range commentLines(text, inline) {
		s = append(s, c)
	}
	return s
}

func commentLines(text string, inline bool) []*comment {
	var out []*comment
	for line := range strings.SplitSeq(text, "\n") {
		if line != "" {
			out = append(out, &comment{text: line[1:], inline: inline})
		}
	}
	return out
}

// readYAMLMapping takes the comments of the node itself along if own is set;
// otherwise the caller has placed them.
func readYAMLMapping(n *yaml.Node, own bool, depth int) (mapping, error) {
	m := mapping{}
	if own {
		m = m.with(n.HeadComment, false).with(n.LineComment, false)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name, err := readYAMLScalar(key)
		text, isString := name.(string)
		if err != nil || !isString {
			return nil, &syntaxError{line: key.Line, reason: "a key is not a string"}
		}
		if seen[text] {
			return nil, &syntaxError{line: key.Line, reason: "a key occurs twice in one mapping"}
		}
		seen[text] = true
		leaf := value.Kind == yaml.ScalarNode
		m = m.with(key.HeadComment, false).with(key.LineComment, false)
		if leaf {
			m = m.with(value.HeadComment, false).with(value.LineComment, true)
		}
		v, err := readYAMLValue(value, true, depth+1)
		if err != nil {
			return nil, err
		}
		m = append(m, entry{key: text, value: v})
		if leaf {
			m = m.with(value.FootComment, false)
		}
		m = m.with(key.FootComment, false)
	}
	if own {
		m = m.with(n.FootComment, false)
	}
	return m, nil
}

func readYAMLValue(n *yaml.Node, own bool, depth int) (any, error) {
	if depth > maxDepth {
		return nil, &syntaxError{line: n.Line, reason: "it nests too deeply"}
	}
	switch n.Kind {
	case yaml.MappingNode:
		return readYAMLMapping(n, own, depth)
	case yaml.SequenceNode:
		s := sequence{}
		if own {
			s = s.with(n.HeadComment, false).with(n.LineComment, false)
		}
		for _, item := range n.Content {
			s = s.with(item.HeadComment, false).with(item.LineComment, true)
			v, err := readYAMLValue(item, false, depth+1)
			if err != nil {
				return nil, err
			}
			s = append(s, v).with(item.FootComment, false)
		}
		if own {
			s = s.with(n.FootComment, false)
		}
		return s, nil
	case yaml.ScalarNode:
		return readYAMLScalar(n)
	default:
		// An alias, which sops resolves when it encrypts.
		return nil, &syntaxError{line: n.Line, reason: "it has an alias, which sops never writes"}
	}
}

func readYAMLScalar(n *yaml.Node) (any, error) {
	if n.Kind != yaml.ScalarNode {
		return nil, &syntaxError{line: n.Line, reason: "a scalar is expected"}
	}
	var v any
	err := n.Decode(&v)
	switch v.(type) {
	case nil, string, int, float64, bool, time.Time:
		if err == nil {
			return v, nil
		}
	}
	return nil, &syntaxError{line: n.Line, reason: "a scalar does not fit its type"}
}

func writeYAML(docs []mapping) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(yamlIndent)
	for _, doc := range docs {
		n, err := yamlNode(doc)
		if err != nil {
			return nil, err
		}
		if err := enc.Encode(&yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{n}}); err != nil {
			return nil, fmt.Errorf("writing YAML: %w", err)
		}
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	return out.Bytes(), nil
}

func yamlNode(v any) (*yaml.Node, error) {
	switch v := v.(type) {
	case mapping:
		n := &yaml.Node{Kind: yaml.MappingNode}
		pending := placer{container: n}
		for _, e := range v {
			if e.comment != nil {
				pending.add(e.comment)
				continue
			}
			key, err := yamlNode(e.key)
			if err != nil {
				return nil, err
			}
			value, err := yamlNode(e.value)
			if err != nil {
				return nil, err
			}
			pending.place(key, value)
			n.Content = append(n.Content, key, value)
		}
		pending.finish()
		return n, nil
	case sequence:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		pending := placer{container: n}
		for _, item := range v {
			if c, ok := item.(*comment); ok {
				pending.add(c)
				continue
			}
			value, err := yamlNode(item)
			if err != nil {
				return nil, err
			}
			pending.place(value, value)
			n.Content = append(n.Content, value)
		}
		pending.finish()
		return n, nil
	default:
		n := &yaml.Node{}
		if err := n.Encode(v); err != nil {
			return nil, errTyped // the cause may quote the value
		}
		return n, nil
	}
}

// placer hangs comments on the nodes that follow them, as sops does.
type placer struct {
	container  *yaml.Node
	last       *yaml.Node
	head, line []string
}

func (p *placer) add(c *comment) {
	if c.inline {
		p.line = append(p.line, c.text)
	} else {
		p.head = append(p.head, c.text)
	}
}

func (p *placer) place(key, value *yaml.Node) {
	// Comments before the first entry belong to the container.
	on := key
	if p.last == nil {
		on = p.container
	}
	on.HeadComment = commentText(p.head, on.HeadComment)
	value.LineComment = commentText(p.line, value.LineComment)
	p.head, p.line, p.last = nil, nil, key
}

func (p *placer) finish() {
	rest := append(p.head, p.line...)
	switch {
	case len(rest) == 0:
	case p.last == nil:
		p.container.HeadComment = commentText(rest, p.container.HeadComment)
	case p.last.FootComment != "":
		p.last.FootComment += "\n" + commentText(rest, "")
	default:
		p.last.FootComment = commentText(rest, "")
	}
}

func commentText(lines []string, after string) string {
	if len(lines) == 0 {
		return after
	}
	text := "#" + strings.Join(lines, "\n#")
	if after != "" {
		text += "\n" + after
	}
	return text
}
