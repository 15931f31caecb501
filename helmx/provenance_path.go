package helmx

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/fairlead-dev/fairlead/stages"
)

// A path leads to a value by keys and, within lists, indexes in decimal.

// parsePath parses "a.b[0].c"; a dot or bracket in a key follows a backslash.
func parsePath(text string) ([]string, error) {
	var steps []string
	var key strings.Builder
	open := text != "" // Whether a key is being read, so that an empty one is noticed.
	refuse := func() ([]string, error) {
		return nil, fmt.Errorf("%w: %q is not a path such as image.tag or hosts[0].name", stages.ErrInvalid, text)
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\\':
			if i++; i == len(text) || !open {
				return refuse()
			}
			key.WriteByte(text[i])
		case '.', '[':
			if open && key.Len() == 0 && (c == '.' || i > 0) {
				return refuse()
			}
			if open && key.Len() > 0 {
				steps = append(steps, key.String())
			}
			key.Reset()
			if open = c == '.'; open {
				if i+1 == len(text) {
					return refuse()
				}
				continue
			}
			index, _, closed := strings.Cut(text[i+1:], "]")
			if n, err := strconv.Atoi(index); !closed || err != nil || n < 0 || strconv.Itoa(n) != index {
				return refuse()
			}
			steps = append(steps, index)
			i += len(index) + 1
		default:
			if !open {
				return refuse()
			}
			key.WriteByte(c)
		}
	}
	if open {
		if key.Len() == 0 {
			return refuse()
		}
		steps = append(steps, key.String())
	}
	return steps, nil
}

var pathEscapes = strings.NewReplacer(`\`, `\\`, ".", `\.`, "[", `\[`)

// formatPath writes the path to a value below root, which tells keys from indexes.
func formatPath(root any, steps []string) string {
	var text strings.Builder
	at := root
	for i, step := range steps {
		if list, ok := at.([]any); ok {
			text.WriteString("[" + step + "]")
			at, _ = child(list, step)
			continue
		}
		if i > 0 {
			text.WriteByte('.')
		}
		text.WriteString(pathEscapes.Replace(step))
		at, _ = child(at, step)
	}
	return text.String()
}

// child returns what step leads to.
func child(v any, step string) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		item, ok := v[step]
		return item, ok
	case []any:
		i, err := strconv.Atoi(step)
		if err != nil || i < 0 || i >= len(v) {
			return nil, false
		}
		return v[i], true
	}
	return nil, false
}

// lookup returns what steps lead to.
func lookup(v any, steps []string) (any, bool) {
	for _, step := range steps {
		next, ok := child(v, step)
		if !ok {
			return nil, false
		}
		v = next
	}
	return v, true
}

// walk visits all leaves below v: scalars, nulls, empty maps and empty lists.
func walk(v any, at []string, visit func(steps []string, leaf any)) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) > 0 {
			for _, key := range slices.Sorted(maps.Keys(v)) {
				walk(v[key], append(slices.Clip(at), key), visit)
			}
			return
		}
	case []any:
		if len(v) > 0 {
			for i, item := range v {
				walk(item, append(slices.Clip(at), strconv.Itoa(i)), visit)
			}
			return
		}
	}
	visit(at, v)
}

// remove deletes what steps lead to and, if prune, the maps that this leaves empty.
// Lists are values of their own to Helm: one goes as a whole.
func remove(root map[string]any, steps []string, prune bool) {
	if len(steps) == 0 {
		return
	}
	under, ok := root[steps[0]].(map[string]any)
	if !ok || len(steps) == 1 {
		delete(root, steps[0])
		return
	}
	if remove(under, steps[1:], prune); len(under) == 0 && prune {
		delete(root, steps[0])
	}
}

// lineFinder finds lines in a YAML file, which is parsed when the first is asked for.
type lineFinder struct {
	data  []byte
	parse sync.Once
	root  *yaml.Node
}

// line returns where the value at steps is set, or 0.
func (d *lineFinder) line(steps []string) int {
	if d == nil {
		return 0
	}
	d.parse.Do(func() {
		d.root = &yaml.Node{}
		if err := yaml.Unmarshal(d.data, d.root); err != nil {
			d.root = &yaml.Node{} // Helm could read it, so only the lines are lost.
		}
	})
	at, line := d.root, 0
	if at.Kind == yaml.DocumentNode && len(at.Content) > 0 {
		at = at.Content[0]
	}
	for _, step := range steps {
		if at, line = nodeChild(at, step, 0); at == nil {
			return 0
		}
	}
	return line
}

// maxAliases bounds how far aliases and merge keys are followed.
const maxAliases = 32

// nodeChild returns the node that step leads to, and the line of its key.
func nodeChild(n *yaml.Node, step string, depth int) (*yaml.Node, int) {
	if n == nil || depth > maxAliases {
		return nil, 0
	}
	switch n.Kind {
	case yaml.AliasNode:
		return nodeChild(n.Alias, step, depth+1)
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i].Line
		}
	case yaml.MappingNode:
		var merged *yaml.Node
		for i := len(n.Content) - 2; i >= 0; i -= 2 {
			key := n.Content[i]
			if key.Value == step && key.Tag != "!!merge" {
				return n.Content[i+1], key.Line
			}
			if key.Tag == "!!merge" {
				merged = n.Content[i+1]
			}
		}
		return mergedChild(merged, step, depth+1)
	}
	return nil, 0
}

// mergedChild looks where a merge key leads: to a mapping, or to several, the first
// of which that has the key wins.
func mergedChild(n *yaml.Node, step string, depth int) (*yaml.Node, int) {
	if n == nil || n.Kind != yaml.SequenceNode {
		return nodeChild(n, step, depth)
	}
	for _, from := range n.Content {
		if found, line := nodeChild(from, step, depth); found != nil {
			return found, line
		}
	}
	return nil, 0
}
