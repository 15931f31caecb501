package helmx

import (
	"fmt"
	"reflect"
	"strings"

	"sigs.k8s.io/yaml"
)

// lastApplied is where kubectl apply keeps a copy of the whole object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// masked returns content with the values of a Secret replaced, copying what it
// changes. Where other is the same object at another time, a value that differs
// between the two is marked by tag, so that a difference still shows.
func (o object) masked(other map[string]any, tag string) map[string]any {
	if !o.isSecret() {
		return o.content
	}
	out := copyMap(o.content)
	for _, field := range []string{"data", "stringData"} {
		values, ok := out[field].(map[string]any)
		if !ok {
			if out[field] != nil {
				out[field] = Redacted
			}
			continue
		}
		before, _ := other[field].(map[string]any)
		for key, value := range values {
			values[key] = Redacted
			if was, known := before[key]; known && !reflect.DeepEqual(was, value) {
				values[key] = Redacted + " " + tag
			}
		}
	}
	if metadata, ok := out["metadata"].(map[string]any); ok {
		if annotations, ok := metadata["annotations"].(map[string]any); ok && annotations[lastApplied] != nil {
			annotations[lastApplied] = Redacted
		}
	}
	return out
}

// maskManifest returns the YAML stream of a manifest with the values of Secrets
// replaced, those in lists included. Documents without a Secret stay as rendered.
func maskManifest(manifest, namespace string) (string, error) {
	docs, err := parseDocuments(manifest)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, doc := range docs {
		text := doc.text
		objects, err := doc.objects(namespace, nil)
		if err != nil {
			return "", err
		}
		for _, o := range objects {
			if !o.isSecret() {
				continue
			}
			if text, err = maskedText(doc); err != nil {
				return "", err
			}
			break
		}
		fmt.Fprintf(&out, "---\n%s\n", text)
	}
	return out.String(), nil
}

// maskedText renders a document anew, without its comments, which may hold a
// secret as well as its values.
func maskedText(doc document) (string, error) {
	data, err := yaml.Marshal(maskTree(doc.content))
	if err != nil {
		return "", fmt.Errorf("render the masked %s: %w", doc.template, err)
	}
	return "# Source: " + doc.template + "\n" + strings.TrimSpace(string(data)), nil
}

func maskTree(content map[string]any) map[string]any {
	items, ok := content["items"].([]any)
	if !ok {
		apiVersion, _ := content["apiVersion"].(string)
		kind, _ := content["kind"].(string)
		o := object{content: content}
		o.id.APIVersion, o.id.Kind = apiVersion, kind
		return o.masked(nil, "")
	}
	out := copyMap(content)
	list := make([]any, len(items))
	for i, item := range items {
		list[i] = item
		if m, ok := item.(map[string]any); ok {
			list[i] = maskTree(m)
		}
	}
	out["items"] = list
	return out
}
