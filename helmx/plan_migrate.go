package helmx

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-dev/fairlead/stages"
)

// migrate makes up for what a dry run can't show of the first server-side apply of an
// object that was written by client-side means: the deployment makes the fields that
// were written that way its own before it applies, see [kubeClient.takeOver], so that
// those which the chart no longer has, and nobody else holds, are dropped. A dry run
// of both steps forgets the first. What the API server would set in the place of a
// dropped field, such as a default, is not known.
func (t *trial) migrate() {
	if t.s.kube.apply.Mode != ServerSide || t.live == nil || t.outcome == nil {
		return
	}
	predecessors := t.s.kube.predecessors(t.target)
	writtenByUs := func(e metav1.ManagedFieldsEntry) bool {
		return predecessors.Has(e.Manager) && e.Operation == metav1.ManagedFieldsOperationUpdate && e.Subresource == ""
	}
	written := managedFields(t.live, writtenByUs)
	if len(written) == 0 {
		return
	}
	holders := managedFields(&unstructured.Unstructured{Object: t.outcome}, func(e metav1.ManagedFieldsEntry) bool { return !writtenByUs(e) })
	m := migration{}
	for _, fields := range written {
		m.drop(t.outcome, fields, holders, nil)
	}
	text := "it was written by client-side apply; its fields become those of the release"
	if len(m.dropped) > 0 {
		text += ", but for what the chart does not have and is dropped: " + strings.Join(m.dropped, ", ")
	}
	t.note(stages.NoteTakenOver, text)
}

// managedFields returns the sets of fields of the entries that pick accepts.
func managedFields(obj *unstructured.Unstructured, pick func(metav1.ManagedFieldsEntry) bool) []map[string]any {
	var out []map[string]any
	for _, entry := range obj.GetManagedFields() {
		var fields map[string]any
		if pick(entry) && entry.FieldsV1 != nil && json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields) == nil {
			out = append(out, fields)
		}
	}
	return out
}

// migration collects the paths of the fields that are dropped.
type migration struct{ dropped []string }

// drop returns v without those of the owned fields that no holder has.
func (m *migration) drop(v any, owned map[string]any, holders []map[string]any, path fieldPath) any {
	for _, name := range sortedKeys(owned) {
		within, _ := owned[name].(map[string]any)
		var next []map[string]any
		for _, h := range holders {
			if held, ok := h[name].(map[string]any); ok {
				next = append(next, held)
			}
		}
		kind, rest, _ := strings.Cut(name, ":")
		switch kind {
		case "f":
			fields, _ := v.(map[string]any)
			child, exists := fields[rest]
			at := path.to(step{field: rest})
			switch {
			case !exists:
			case len(next) == 0:
				delete(fields, rest)
				m.dropped = append(m.dropped, at.String())
			default:
				fields[rest] = m.drop(child, within, next, at)
			}
		case "k", "v":
			list, _ := v.([]any)
			i, s := locate(list, kind, rest)
			switch {
			case i < 0:
			case len(next) == 0:
				v = slices.Delete(list, i, i+1)
				m.dropped = append(m.dropped, path.to(s).String())
			default:
				list[i] = m.drop(list[i], within, next, path.to(s))
			}
		}
	}
	return v
}

// locate returns the place of a list's element that managed fields name by its keys,
// or by its value, and the step to it; -1 if there is none.
func locate(list []any, kind, name string) (int, step) {
	var want any
	if json.Unmarshal([]byte(name), &want) != nil {
		return -1, step{}
	}
	keys, _ := want.(map[string]any)
	for i, item := range list {
		element, _ := item.(map[string]any)
		if kind == "v" && reflect.DeepEqual(item, want) {
			return i, step{index: i}
		}
		if kind == "v" || element == nil {
			continue
		}
		fits, s := len(keys) > 0, step{index: i}
		for _, key := range sortedKeys(keys) {
			fits = fits && same(keys[key], element[key])
			if s.key == "" {
				s = step{key: key, value: keys[key]}
			}
		}
		if fits {
			return i, s
		}
	}
	return -1, step{}
}
