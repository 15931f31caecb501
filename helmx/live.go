package helmx

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"helm.sh/helm/v3/pkg/release"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
)

// drift returns in what the live objects differ from the manifest of a revision:
// objects that are missing, fields that have another value, and objects that
// revisions of own have left behind. Fields that the manifest doesn't name are not
// compared, because the API server fills them in.
func (s *session) drift(to *release.Release, own []*release.Release) ([]string, error) {
	wanted, err := parseObjects(to.Manifest, s.namespace, s.mapper)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, o := range wanted {
		live, err := s.live(o)
		if err != nil {
			return nil, s.explain(err)
		}
		if live == nil {
			out = append(out, o.id.String()+" is missing")
			continue
		}
		if live.GetDeletionTimestamp() != nil {
			out = append(out, o.id.String()+" is being deleted")
		}
		for _, difference := range o.differences(live) {
			out = append(out, o.id.String()+": "+difference)
		}
	}
	if len(own) > 0 {
		stale, err := s.leftovers(own, to)
		if err != nil {
			return nil, s.explain(err)
		}
		for _, o := range stale {
			out = append(out, o.id.String()+" of a failed revision is still there")
		}
	}
	return out, nil
}

// differences compares the fields that the manifest names with the live object,
// but for replicas that others have scaled.
func (o object) differences(live *unstructured.Unstructured) []string {
	var out []string
	for _, d := range o.deviations(live, !scaled(live)) {
		if o.isSecret() {
			out = append(out, d.path.String()+" differs")
			continue
		}
		out = append(out, fmt.Sprintf("%s is %s, should be %s", d.path, show(d.to), show(d.from)))
	}
	return out
}

// deviations returns the fields that the manifest names and the live object has
// another value in: from what should be to what is.
func (o object) deviations(live *unstructured.Unstructured, replicas bool) []difference {
	want := tree.Clone(o.content)
	for _, key := range []string{"apiVersion", "kind", "status"} {
		delete(want, key)
	}
	if metadata, ok := want["metadata"].(map[string]any); ok {
		want["metadata"] = map[string]any{"labels": metadata["labels"], "annotations": metadata["annotations"]}
	}
	if o.isSecret() {
		encodeStringData(want)
	}
	if !replicas {
		unstructured.RemoveNestedField(want, "spec", "replicas")
	}
	c := comparison{}
	c.fields(nil, want, live.Object)
	return c.found
}

// encodeStringData writes stringData into data, as the API server does.
func encodeStringData(secret map[string]any) {
	plain, _ := secret["stringData"].(map[string]any)
	delete(secret, "stringData")
	data, ok := secret["data"].(map[string]any)
	if !ok {
		data = map[string]any{}
		secret["data"] = data
	}
	for key, value := range plain {
		if text, ok := value.(string); ok {
			data[key] = base64.StdEncoding.EncodeToString([]byte(text))
		}
	}
}

// scaled reports whether replicas are in the hand of an autoscaler, or of a person
// with kubectl scale, whose value a release doesn't overrule.
func scaled(live *unstructured.Unstructured) bool {
	return slices.ContainsFunc(live.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Subresource == "scale" && f.FieldsV1 != nil && strings.Contains(f.FieldsV1.String(), `"f:replicas"`)
	})
}

// comparison collects what differs.
type comparison struct{ found []difference }

func (c *comparison) differ(path fieldPath, want, got any) {
	c.found = append(c.found, difference{path, want, got})
}

func show(v any) string {
	const limit = 200
	if v == nil {
		return "unset"
	}
	text := fmt.Sprintf("%v", v)
	if s, ok := v.(string); ok {
		text = strconv.Quote(s)
	}
	if len(text) > limit {
		text = text[:limit] + "…"
	}
	return text
}

func (c *comparison) fields(path fieldPath, want, got map[string]any) {
	for _, key := range sortedKeys(want) {
		c.value(path.to(step{field: key}), want[key], got[key])
	}
}

func (c *comparison) value(path fieldPath, want, got any) {
	switch want := want.(type) {
	case map[string]any:
		if over, ok := got.(map[string]any); ok {
			c.fields(path, want, over)
			return
		}
	case []any:
		if over, ok := got.([]any); ok {
			c.list(path, want, over)
			return
		}
	}
	if same(want, got) || !textual(path) && sameQuantity(want, got) {
		return
	}
	c.differ(path, want, got)
}

// textual reports that a field is text to whoever reads it, whatever number it may
// look like.
func textual(path fieldPath) bool {
	return slices.ContainsFunc(path, func(s step) bool {
		switch s.field {
		case "data", "stringData", "annotations", "labels", "matchLabels", "args", "command":
			return true
		case "env": // Where a variable may be of a resource, with a divisor.
			return path[len(path)-1].field == "value"
		}
		return false
	})
}

// list compares element by element. Elements that have a name of their own are
// found by it, because others, such as a service mesh's containers, may have been
// put between them. Where order matters, that of the others doesn't count.
func (c *comparison) list(path fieldPath, want, got []any) {
	if key := listKey(want, got); key != "" {
		if ordered(path) {
			should, is := order(key, want, got), order(key, got, want)
			if !reflect.DeepEqual(should, is) {
				c.differ(path, should, is)
			}
		}
		for _, s := range elements(key, nil, want) {
			if over := element(got, s); over != nil {
				c.value(path.to(s), element(want, s), over)
			} else {
				c.differ(path.to(s), element(want, s), nil)
			}
		}
		return
	}
	if len(want) != len(got) {
		c.differ(path, want, got)
		return
	}
	for i := range want {
		c.value(path.to(step{index: i}), want[i], got[i])
	}
}

// ordered reports whether what a list says depends on its order: init containers run
// one after the other, and a variable may refer to those before it.
func ordered(path fieldPath) bool {
	switch path[len(path)-1].field {
	case "containers", "initContainers", "env":
		return true
	}
	return false
}

// keyed reports whether all elements are maps with a value of their own at key.
func keyed(list []any, key string) bool {
	seen := map[string]bool{}
	for _, item := range list {
		m, ok := item.(map[string]any)
		if !ok || m[key] == nil || seen[fmt.Sprint(m[key])] {
			return false
		}
		seen[fmt.Sprint(m[key])] = true
	}
	return len(list) > 0
}

// same compares scalars as an API server would: nothing equals empty, and numbers are
// compared as numbers.
func same(want, got any) bool {
	if reflect.DeepEqual(want, got) || empty(want) && empty(got) {
		return true
	}
	if want == nil {
		return true // A null in a manifest asks for no value of its own.
	}
	a, okA := scalar(want)
	b, okB := scalar(got)
	return okA && okB && a == b
}

// sameQuantity compares quantities, whatever they are written like.
func sameQuantity(want, got any) bool {
	a, okA := scalar(want)
	b, okB := scalar(got)
	if !okA || !okB {
		return false
	}
	left, errA := resource.ParseQuantity(a)
	right, errB := resource.ParseQuantity(b)
	return errA == nil && errB == nil && left.Cmp(right) == 0
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	case bool:
		return !v
	case float64:
		return v == 0
	case int64:
		return v == 0
	}
	return false
}

func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}
