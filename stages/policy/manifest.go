package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"go.yaml.in/yaml/v2"

	"github.com/fairlead-dev/fairlead/stages"
)

// Errors about manifests.
var (
	// ErrManifests is a stream that is not YAML, or not of Kubernetes objects.
	ErrManifests = errors.New("manifests can't be read")
	// ErrTooLarge is a stream with more in it than the gate's limits allow, also
	// by way of aliases.
	ErrTooLarge = errors.New("manifests are too large")
)

// limits bound a manifest stream, so that a hostile chart can't exhaust memory.
type limits struct {
	bytes   int
	objects int
}

const (
	// maxValues bounds the scalars, lists and maps of a stream after aliases.
	maxValues = 2_000_000
	// maxDepth bounds nesting.
	maxDepth = 200
)

// object is one Kubernetes object as policies see it.
type object struct {
	stages.Object
	input ast.Value
}

// subject names the object, in the namespace that the plan has it in.
func (o object) subject(namespaces map[stages.Object]string) string {
	named := o.Object
	if named.Namespace == "" {
		named.Namespace = namespaces[named]
	}
	return named.String()
}

// namespacesOf maps objects without their namespace to that namespace: manifests
// usually leave it to the release, and the plan has looked it up.
func namespacesOf(changes []stages.Change) map[stages.Object]string {
	namespaces := map[stages.Object]string{}
	for _, change := range changes {
		key := change.Object
		key.Namespace = ""
		namespaces[key] = change.Object.Namespace
	}
	return namespaces
}

// reader collects the objects of a stream.
type reader struct {
	limits  limits
	values  int
	objects []object
}

// readObjects returns the objects of a YAML stream in order, lists taken apart.
func readObjects(ctx context.Context, stream []byte, bounds limits) ([]object, error) {
	if len(stream) > bounds.bytes {
		return nil, fmt.Errorf("%w: %d bytes, of %d allowed", ErrTooLarge, len(stream), bounds.bytes)
	}
	r := &reader{limits: bounds}
	// The parser that Kubernetes and Helm read manifests with: another one might
	// see "yes" or a repeated key differently, and judge what is not deployed.
	decoder := yaml.NewDecoder(bytes.NewReader(stream))
	for n := 1; ctx.Err() == nil; n++ {
		var document any
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return r.objects, nil
		case err != nil && strings.Contains(err.Error(), "excessive aliasing"):
			return nil, fmt.Errorf("%w: document %d: %w", ErrTooLarge, n, err)
		case err != nil:
			return nil, fmt.Errorf("%w: document %d: %w", ErrManifests, n, err)
		}
		if document == nil {
			continue
		}
		if err := r.document(document); err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
	}
	return nil, context.Cause(ctx)
}

func (r *reader) document(document any) error {
	value, err := r.convert(document, 0)
	if err != nil {
		return err
	}
	fields, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("%w: it is no Kubernetes object but a %s", ErrManifests, typeName(value))
	}
	return r.add(fields)
}

// add collects an object, or the items of a list.
func (r *reader) add(fields map[string]any) error {
	apiVersion, _ := fields["apiVersion"].(string)
	kind, _ := fields["kind"].(string)
	if apiVersion == "" || kind == "" {
		return fmt.Errorf("%w: an object needs an apiVersion and a kind", ErrManifests)
	}
	// Kubernetes takes whatever has items for a list.
	items, isList := fields["items"].([]any)
	for i, item := range items {
		element, ok := item.(map[string]any)
		if !ok {
			return fmt.Errorf("%w: item %d of the %s is no object but a %s", ErrManifests, i, kind, typeName(item))
		}
		inherit(element, apiVersion, kind)
		if err := r.add(element); err != nil {
			return fmt.Errorf("item %d of the %s: %w", i, kind, err)
		}
	}
	if isList && strings.HasSuffix(kind, "List") {
		return nil
	}
	if len(r.objects) == r.limits.objects {
		return fmt.Errorf("%w: more than %d objects", ErrTooLarge, r.limits.objects)
	}
	input, err := ast.InterfaceToValue(fields)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrManifests, err)
	}
	r.objects = append(r.objects, object{Object: identify(apiVersion, kind, fields), input: input})
	return nil
}

// inherit gives an item of a typed list, such as a RoleList, the type that its
// list implies.
func inherit(item map[string]any, apiVersion, listKind string) {
	kind, typed := strings.CutSuffix(listKind, "List")
	if _, ok := item["kind"]; ok || !typed || kind == "" {
		return
	}
	item["kind"] = kind
	if _, ok := item["apiVersion"]; !ok {
		item["apiVersion"] = apiVersion
	}
}

func identify(apiVersion, kind string, fields map[string]any) stages.Object {
	metadata, _ := fields["metadata"].(map[string]any)
	name, _ := metadata["name"].(string)
	if prefix, _ := metadata["generateName"].(string); name == "" && prefix != "" {
		name = prefix + "*"
	}
	if name == "" {
		name = "(unnamed)"
	}
	namespace, _ := metadata["namespace"].(string)
	return stages.Object{APIVersion: apiVersion, Kind: kind, Namespace: namespace, Name: name}
}

// convert turns what YAML decodes to into what JSON would, counting values.
func (r *reader) convert(value any, depth int) (any, error) {
	if r.values++; r.values > maxValues {
		return nil, fmt.Errorf("%w: more than %d values", ErrTooLarge, maxValues)
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: nested more than %d deep", ErrTooLarge, maxDepth)
	}
	switch v := value.(type) {
	case map[any]any:
		fields := make(map[string]any, len(v))
		for key, element := range v {
			name, err := keyName(key)
			if err != nil {
				return nil, err
			}
			if _, taken := fields[name]; taken {
				return nil, fmt.Errorf("%w: the key %q occurs twice, in different types", ErrManifests, name)
			}
			if fields[name], err = r.convert(element, depth+1); err != nil {
				return nil, err
			}
		}
		return fields, nil
	case []any:
		elements := make([]any, len(v))
		for i, element := range v {
			var err error
			if elements[i], err = r.convert(element, depth+1); err != nil {
				return nil, err
			}
		}
		return elements, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%w: the number %v does not exist in JSON", ErrManifests, v)
		}
		return v, nil
	case nil, bool, string, int, int64, uint64:
		return v, nil
	default:
		return nil, fmt.Errorf("%w: a value of type %T does not exist in JSON", ErrManifests, v)
	}
}

// keyName renders a key as sigs.k8s.io/yaml does.
func keyName(key any) (string, error) {
	switch k := key.(type) {
	case string:
		return k, nil
	case bool:
		return strconv.FormatBool(k), nil
	case int:
		return strconv.Itoa(k), nil
	case int64:
		return strconv.FormatInt(k, 10), nil
	case float64:
		if !math.IsNaN(k) && !math.IsInf(k, 0) {
			return strconv.FormatFloat(k, 'g', -1, 32), nil
		}
	}
	return "", fmt.Errorf("%w: the key %v can't be a field name", ErrManifests, key)
}

func typeName(value any) string {
	switch value.(type) {
	case map[string]any:
		return "map"
	case []any:
		return "list"
	case string:
		return "string"
	case bool:
		return "boolean"
	case nil:
		return "null"
	default:
		return "number"
	}
}
