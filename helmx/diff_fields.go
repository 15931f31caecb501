package helmx

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
)

// difference is a field that has one value on one side and another, or none, on
// the other.
type difference struct {
	path     fieldPath
	from, to any
}

// fieldDifferences returns what turns from into to, in order of path. Elements of
// lists that have a name of their own are told apart by it; where those that are on
// both sides change places, the list itself differs, by the order of the names.
func fieldDifferences(from, to map[string]any) []difference {
	var out []difference
	var compare func(path fieldPath, from, to any)
	list := func(path fieldPath, from, to []any) {
		if key := listKey(from, to); key != "" {
			if before, after := order(key, from, to), order(key, to, from); !reflect.DeepEqual(before, after) {
				out = append(out, difference{path, before, after})
			}
			for _, s := range elements(key, from, to) {
				compare(path.to(s), element(from, s), element(to, s))
			}
			return
		}
		for i := range max(len(from), len(to)) {
			s := step{index: i}
			compare(path.to(s), element(from, s), element(to, s))
		}
	}
	compare = func(path fieldPath, from, to any) {
		if reflect.DeepEqual(from, to) {
			return
		}
		left, wasMap := from.(map[string]any)
		right, isMap := to.(map[string]any)
		// A map that comes or goes whole is told field by field at the top, where
		// the whole object is no answer.
		if wasMap && isMap || len(path) <= 1 && (wasMap || from == nil) && (isMap || to == nil) {
			for _, key := range slices.Sorted(maps.Keys(union(left, right))) {
				compare(path.to(step{field: key}), left[key], right[key])
			}
			return
		}
		before, wasList := from.([]any)
		after, isList := to.([]any)
		if wasList && isList {
			list(path, before, after)
			return
		}
		out = append(out, difference{path, from, to})
	}
	compare(nil, from, to)
	return out
}

func union(a, b map[string]any) map[string]bool {
	out := map[string]bool{}
	for key := range a {
		out[key] = true
	}
	for key := range b {
		out[key] = true
	}
	return out
}

// listKeys are the keys that elements of Kubernetes' lists are told apart by.
var listKeys = [...]string{"name", "containerPort", "port", "mountPath", "devicePath", "topologyKey", "key", "ip", "type", "uid"}

// listKey returns the key that tells the elements of both lists apart, or "".
func listKey(a, b []any) string {
	for _, key := range listKeys {
		if keyed(a, key) && keyed(b, key) {
			return key
		}
	}
	return ""
}

// elements returns the steps to all elements of two lists, those of b first.
func elements(key string, a, b []any) []step {
	var out []step
	for _, item := range append(slices.Clone(b), a...) {
		m, ok := item.(map[string]any)
		if !ok {
			continue
		}
		s := step{key: key, value: m[key]}
		if !slices.ContainsFunc(out, func(o step) bool { return same(o.value, s.value) }) {
			out = append(out, s)
		}
	}
	return out
}

// order returns what tells the elements apart that are in both lists, in the order of
// the first.
func order(key string, list, other []any) []any {
	var out []any
	for _, s := range elements(key, nil, list) {
		if element(other, s) != nil {
			name, _ := scalar(s.value) // It may be 80 on one side and "80" on the other.
			out = append(out, name)
		}
	}
	return out
}

func element(list []any, s step) any {
	if s.key == "" {
		if s.index < len(list) {
			return list[s.index]
		}
		return nil
	}
	for _, item := range list {
		if m, ok := item.(map[string]any); ok && same(s.value, m[s.key]) {
			return item
		}
	}
	return nil
}

// settledFields are what the API server itself keeps of an object: no difference
// in them is one of the release.
var settledFields = [...]string{"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink"}

// bare returns a copy of a live object without what the server keeps of it.
func bare(live map[string]any) map[string]any {
	if live == nil {
		return nil
	}
	out := tree.Clone(live)
	delete(out, "status")
	if metadata, ok := out["metadata"].(map[string]any); ok {
		for _, field := range settledFields {
			delete(metadata, field)
		}
	}
	return out
}

// jsonText writes a value for people; nil is empty.
func jsonText(v any) string {
	if v == nil {
		return ""
	}
	if s, ok := v.(string); ok {
		return quoteJSON(s)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(data)
}
