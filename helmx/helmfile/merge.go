package helmfile

import "github.com/fairlead-dev/fairlead/helmx/internal/tree"

// layer lays b over a as helmfile does with defaults, environment and overrides:
// maps are merged, null leaves what is there, and a list with nulls in it replaces
// only its other elements. The result shares no map with either.
func layer(a, b map[string]any) map[string]any {
	out := tree.Clone(a)
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
	out := tree.CloneList(b)
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
