package tree

// Overlay lays b over a as Helm does with values files: maps are merged, and
// everything else is replaced, by null as well. The result shares no map or list with
// either.
func Overlay(a, b map[string]any) map[string]any {
	out := Clone(a)
	for key, over := range b {
		table, isMap := over.(map[string]any)
		below, wasMap := out[key].(map[string]any)
		if isMap && wasMap {
			out[key] = Overlay(below, table)
			continue
		}
		out[key] = CloneValue(over)
	}
	return out
}

// Clone copies a map with all maps and lists in it. That of nil is empty.
func Clone(m map[string]any) map[string]any {
	out := make(map[string]any, len(m))
	for key, value := range m {
		out[key] = CloneValue(value)
	}
	return out
}

// CloneList copies a list with all maps and lists in it. That of nil is empty.
func CloneList(list []any) []any {
	out := make([]any, len(list))
	for i, item := range list {
		out[i] = CloneValue(item)
	}
	return out
}

// CloneValue copies maps and lists, and returns anything else as it is.
func CloneValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return Clone(v)
	case []any:
		return CloneList(v)
	default:
		return v
	}
}

// EachString visits the strings among values.
func EachString(v any, visit func(string)) {
	switch v := v.(type) {
	case string:
		visit(v)
	case map[string]any:
		for _, item := range v {
			EachString(item, visit)
		}
	case []any:
		for _, item := range v {
			EachString(item, visit)
		}
	}
}
