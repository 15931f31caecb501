package tree

import "reflect"

// Plain copies a map like [Clone], and makes map[string]any and []any of all maps
// with strings for keys and of all lists in it, and strings of what is one by
// another name. Bytes, structs, and all other values stay as they are.
func Plain(m map[string]any) map[string]any {
	out := make(map[string]any, len(m))
	for key, value := range m {
		out[key] = plainValue(value)
	}
	return out
}

func plainValue(v any) any {
	if m, ok := v.(map[string]any); ok {
		return Plain(m)
	}
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.String:
		return r.String()
	case reflect.Map:
		if r.Type().Key().Kind() != reflect.String {
			return v
		}
		out := make(map[string]any, r.Len())
		for key, value := range r.Seq2() {
			out[key.String()] = plainValue(value.Interface())
		}
		return out
	case reflect.Slice, reflect.Array:
		if r.Type().Elem().Kind() == reflect.Uint8 {
			return v
		}
		out := make([]any, r.Len())
		for i := range out {
			out[i] = plainValue(r.Index(i).Interface())
		}
		return out
	default:
		return v
	}
}

// Encrypted reports whether values are those of a file that is encrypted with SOPS.
func Encrypted(values map[string]any) bool {
	metadata, ok := values["sops"].(map[string]any)
	return ok && metadata["mac"] != nil
}
