package helmx

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/release"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/stages"
)

// object is one Kubernetes object of a manifest, in the shape of its JSON.
type object struct {
	id      stages.Object
	content map[string]any
	// template is the chart file that it was rendered from, where known.
	template string
}

// identity is what makes two objects the same one for Helm: not the version.
type identity struct{ group, kind, namespace, name string }

func (o object) identity() identity {
	return identity{o.gvk().Group, o.id.Kind, o.id.Namespace, o.id.Name}
}

func (o object) gvk() schema.GroupVersionKind {
	return schema.FromAPIVersionAndKind(o.id.APIVersion, o.id.Kind)
}

func (o object) isSecret() bool { return o.id.Kind == "Secret" && o.gvk().Group == "" }

// kept reports whether Helm leaves the object in place when its release no longer
// has it.
func (o object) kept() bool {
	metadata, _ := o.content["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	policy, _ := annotations["helm.sh/resource-policy"].(string)
	return strings.EqualFold(strings.TrimSpace(policy), "keep")
}

var sourceComment = regexp.MustCompile(`(?m)^# Source: (.*)$`)

// document is one YAML document of a manifest, which may be a list of objects.
type document struct {
	text     string
	template string
	content  map[string]any
}

// parseDocuments splits a manifest. A document that isn't an object, or that has
// a key twice, is refused with the name of its template.
func parseDocuments(manifest string) ([]document, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifest)))
	var docs []document
	for {
		raw, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("split the manifest: %s", yamlProblem(err))
		}
		doc := document{text: strings.TrimSpace(string(raw)), template: "the manifest"}
		if m := sourceComment.FindStringSubmatch(doc.text); m != nil {
			doc.template = strings.TrimSpace(m[1])
		}
		if err := yaml.UnmarshalStrict(raw, &doc.content); err != nil {
			return nil, fmt.Errorf("rendered %s", atLine(doc.template, err))
		}
		if len(doc.content) > 0 {
			docs = append(docs, doc)
		}
	}
}

// parseObjects returns the objects of a manifest in order, lists flattened,
// namespaces defaulted. A nil mapper takes every kind for namespaced.
func parseObjects(manifest, namespace string, mapper meta.RESTMapper) ([]object, error) {
	docs, err := parseDocuments(manifest)
	if err != nil {
		return nil, err
	}
	defined := kinds{}
	for _, doc := range docs {
		defined.collect(doc.content)
	}
	if len(defined) > 0 {
		mapper = &aheadMapper{RESTMapper: mapper, kinds: defined}
	}
	var out []object
	for _, doc := range docs {
		objects, err := doc.objects(namespace, mapper)
		if err != nil {
			return nil, err
		}
		out = append(out, objects...)
	}
	return out, nil
}

// hookObjects returns the objects of a release's hooks.
func hookObjects(hooks []*release.Hook, namespace string, mapper meta.RESTMapper) ([]object, error) {
	var out []object
	for _, h := range hooks {
		objects, err := parseObjects("# Source: "+h.Path+"\n"+h.Manifest, namespace, mapper)
		if err != nil {
			return nil, err
		}
		out = append(out, objects...)
	}
	return out, nil
}

func (d document) objects(namespace string, mapper meta.RESTMapper) ([]object, error) {
	return flatten(d.content, d.template, namespace, mapper)
}

func flatten(content map[string]any, template, namespace string, mapper meta.RESTMapper) ([]object, error) {
	kind, _ := content["kind"].(string)
	if items, ok := content["items"].([]any); ok && strings.HasSuffix(kind, "List") {
		var out []object
		for i, item := range items {
			m, ok := item.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("rendered %s: item %d of the %s is not an object", template, i, kind)
			}
			objects, err := flatten(m, template, namespace, mapper)
			if err != nil {
				return nil, err
			}
			out = append(out, objects...)
		}
		return out, nil
	}
	apiVersion, _ := content["apiVersion"].(string)
	metadata, _ := content["metadata"].(map[string]any)
	name, _ := metadata["name"].(string)
	if kind == "" || apiVersion == "" || name == "" {
		return nil, fmt.Errorf("rendered %s: an object lacks apiVersion, kind or metadata.name", template)
	}
	o := object{
		id:       stages.Object{APIVersion: apiVersion, Kind: kind, Name: name},
		content:  content,
		template: template,
	}
	if namespaced(o.gvk(), mapper) {
		o.id.Namespace, _ = metadata["namespace"].(string)
		if o.id.Namespace == "" {
			o.id.Namespace = namespace
		}
	}
	return []object{o}, nil
}

// namespaced reports the scope of a kind. One that the cluster doesn't know yet
// is taken for namespaced, as most are.
func namespaced(gvk schema.GroupVersionKind, mapper meta.RESTMapper) bool {
	if gvk.Kind == "Namespace" && gvk.Group == "" || gvk.Kind == "CustomResourceDefinition" {
		return false
	}
	if mapper == nil {
		return true
	}
	mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	return err != nil || mapping.Scope.Name() == meta.RESTScopeNameNamespace
}

func ids(objects []object) []stages.Object {
	out := make([]stages.Object, len(objects))
	for i, o := range objects {
		out[i] = o.id
	}
	return out
}

func index(objects []object) map[identity]object {
	out := make(map[identity]object, len(objects))
	for _, o := range objects {
		out[o.identity()] = o
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func quoteJSON(s string) string {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return s
	}
	return strings.TrimSpace(buf.String())
}
