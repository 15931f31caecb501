package sops

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// metadataPrefix marks the metadata among the variables of a dotenv file.
const metadataPrefix = "sops_"

func readDotenv(data []byte) ([]mapping, error) {
	out := mapping{}
	seen := map[string]bool{}
	number := 0
	for text := range bytes.SplitSeq(data, []byte("\n")) {
		number++
		line := string(text)
		if line == "" {
			continue
		}
		if after, ok := strings.CutPrefix(line, "#"); ok {
			out = append(out, entry{comment: &comment{text: after}})
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, &syntaxError{line: number, reason: "it has neither = nor #"}
		}
		if seen[key] {
			return nil, &syntaxError{line: number, reason: "a variable is set twice"}
		}
		seen[key] = true
		out = append(out, entry{key: key, value: strings.ReplaceAll(value, `\n`, "\n")})
	}
	return []mapping{out}, nil
}

func writeDotenv(docs []mapping) ([]byte, error) {
	var out bytes.Buffer
	for _, e := range docs[0] {
		if e.comment != nil {
			fmt.Fprintf(&out, "#%s\n", e.comment.text)
			continue
		}
		fmt.Fprintf(&out, "%s=%s\n", e.key, dotenvValue(e.value))
	}
	return out.Bytes(), nil
}

func dotenvValue(v any) string {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "\n", `\n`)
	case float64:
		text := strconv.FormatFloat(v, 'G', -1, 64)
		if !strings.ContainsAny(text, ".E") {
			return strconv.FormatFloat(v, 'f', 1, 64)
		}
		return text
	case time.Time:
		return v.Format(time.RFC3339)
	default:
		return fmt.Sprint(v)
	}
}

// takeFlat removes the metadata from the variables of a dotenv file, and returns
// it with the nesting that the names spell out: pgp__list_0__map_fp.
func takeFlat(m mapping) (rest mapping, meta map[string]any, err error) {
	root := &node{}
	for _, e := range m {
		name, ok := strings.CutPrefix(e.key, metadataPrefix)
		if e.comment != nil || !ok {
			rest = append(rest, e)
			continue
		}
		if strings.Count(name, "__") > 32 || !root.place("__map_"+name, e.value) {
			return nil, nil, &syntaxError{reason: "its metadata contradicts itself"}
		}
	}
	if root.children == nil {
		return rest, nil, nil
	}
	value, ok := root.build()
	if !ok {
		return nil, nil, &syntaxError{reason: "its metadata contradicts itself"}
	}
	meta, _ = value.(map[string]any)
	return rest, meta, nil
}

// node is a value, or children by "__map_key" or "__list_0".
type node struct {
	value    any
	children map[string]*node
}

func (n *node) place(name string, value any) bool {
	for name != "" {
		end := len(name)
		for _, separator := range []string{"__map_", "__list_"} {
			if i := strings.Index(name[1:], separator); i >= 0 {
				end = min(end, i+1)
			}
		}
		if n.children == nil {
			n.children = map[string]*node{}
		}
		next := n.children[name[:end]]
		if next == nil {
			next = &node{}
			n.children[name[:end]] = next
		}
		n, name = next, name[end:]
	}
	if n.value != nil || n.children != nil {
		return false
	}
	n.value = value
	return true
}

func (n *node) build() (any, bool) {
	if n.children == nil {
		return n.value, true
	}
	if n.value != nil {
		return nil, false
	}
	fields, list := map[string]any{}, make([]any, len(n.children))
	for name, child := range n.children {
		value, ok := child.build()
		if !ok {
			return nil, false
		}
		if key, isMap := strings.CutPrefix(name, "__map_"); isMap {
			fields[key] = value
			continue
		}
		i, err := strconv.Atoi(strings.TrimPrefix(name, "__list_"))
		if err != nil || i < 0 || i >= len(list) || list[i] != nil {
			return nil, false
		}
		list[i] = value
	}
	switch len(fields) {
	case 0:
		return list, true
	case len(n.children):
		return fields, true
	default:
		return nil, false
	}
}
