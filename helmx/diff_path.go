package helmx

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// step leads from a value to one within it: to the field of a map, or to the
// element of a list, by index or by the value of a key.
type step struct {
	field string
	// key and value tell a list's element from the others; index is the place of
	// one that has no such key. Both only where field is empty.
	key   string
	value any
	index int
}

// fieldPath leads from an object to one of its fields.
type fieldPath []step

// plainField needs no quotes in a path.
var plainField = regexp.MustCompile(`^[A-Za-z_$][A-Za-z0-9_$-]*$`)

// String writes the path as in spec.containers[name=web].args[0].
func (p fieldPath) String() string {
	var out strings.Builder
	for _, s := range p {
		switch {
		case s.field != "" && plainField.MatchString(s.field):
			if out.Len() > 0 {
				out.WriteByte('.')
			}
			out.WriteString(s.field)
		case s.field != "":
			fmt.Fprintf(&out, "[%s]", quoteJSON(s.field))
		case s.key != "":
			fmt.Fprintf(&out, "[%s=%v]", s.key, s.value)
		default:
			fmt.Fprintf(&out, "[%d]", s.index)
		}
	}
	return out.String()
}

// masked returns p without known secrets among what elements of lists are told by.
func (p fieldPath) masked(v veil) fieldPath {
	out := slices.Clone(p)
	for i, s := range out {
		if text, ok := s.value.(string); ok && !plain(s.key) {
			out[i].value = v.scalar(text)
		}
	}
	return out
}

// to returns the path of a field. Paths share no memory with those that are made
// from them.
func (p fieldPath) to(s step) fieldPath { return append(p[:len(p):len(p)], s) }

// owner returns the field manager that holds a live field, if it is not the one
// that releases are written by. Of several, that of a subresource goes first,
// because it stands for a controller.
func owner(live *unstructured.Unstructured, path fieldPath) string {
	var found string
	for _, entry := range live.GetManagedFields() {
		if entry.FieldsV1 == nil || entry.Manager == fieldManager && entry.Subresource == "" {
			continue
		}
		var fields map[string]any
		if json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields) != nil || !holds(fields, path) {
			continue
		}
		if entry.Subresource != "" {
			return managerName(entry)
		}
		found = managerName(entry)
	}
	return found
}

func managerName(entry metav1.ManagedFieldsEntry) string {
	if entry.Subresource != "" {
		return entry.Manager + "/" + entry.Subresource
	}
	return entry.Manager
}

// holds reports whether a set of managed fields has the one at path, or one that
// contains it, or one within it.
func holds(fields map[string]any, path fieldPath) bool {
	if len(path) == 0 || len(fields) == 0 {
		return true // Whatever is within, or a leaf: held as a whole.
	}
	s := path[0]
	if s.field != "" {
		next, ok := fields["f:"+s.field].(map[string]any)
		return ok && holds(next, path[1:])
	}
	for name, v := range fields {
		next, ok := v.(map[string]any)
		if !ok {
			continue
		}
		if text, isKey := strings.CutPrefix(name, "k:"); isKey && s.key != "" {
			var keys map[string]any
			if json.Unmarshal([]byte(text), &keys) == nil && same(s.value, keys[s.key]) && holds(next, path[1:]) {
				return true
			}
		}
	}
	return false
}
