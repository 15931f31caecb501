package helmfile

// layer lays b over a as helmfile does with defaults, environment and overrides:
// maps are merged, null leaves what is there, and a list with nulls in it replaces
// only its other elements. The result shares no map with either.
func layer(a, b map[string]any) map[string]any {
	out := clone(a)
	for key, over := range b {
		under, exists := out[key]
		switch over := over.(type) {
		case nil:
			if !exists {
				out[key] = nil
			}
		case map[string]any:
			table, _ := under.(map[string]any)
			out[key] = layer(table, over)
		case []any:
			list, _ := under.([]any)
			out[key] = sparse(list, over)
		default:
			out[key] = over
		}
	}
	return out
}

func sparse(a, b []any) []any {
	out := cloneList(b)
	holes := false
	for i, item := range out {
		if item == nil {
			holes = true
			if i < len(a) {
				out[i] = a[i]
			}
		}
	}
	if holes && len(a) > len(out) {
		out = append(out, a[len(out):]...)
	}
	return out
}

// overlay lays b over a as Helm does with values files, and helmfile with the
// entries of one list: maps are merged and everything else is replaced, by null as
// well.
func overlay(a, b map[string]any) map[string]any {
	out := clone(a)
	for key, over := range b {
		table, isMap := over.(map[string]any)
		below, wasMap := out[key].(map[string]any)
		if isMap && wasMap {
			out[key] = overlay(below, table)
			continue
		}
		out[key] = cloneValue(over)
	}
	return out
}

func clone(m map[string]any) map[string]any {
	out := make(map[string]any, len(m))
	for key, value := range m {
		out[key] = cloneValue(value)
	}
	return out
}

func cloneValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return clone(v)
	case []any:
		return cloneList(v)
	default:
		return v
	}
}

func cloneList(list []any) []any {
	out := make([]any, len(list))
	for i, item := range list {
		out[i] = cloneValue(item)
	}
	return out
}
