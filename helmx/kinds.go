package helmx

import (
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kinds are kinds that the release itself defines, by what a cluster that has the
// definitions would say of them.
type kinds map[schema.GroupVersionKind]*meta.RESTMapping

// add takes in what a CustomResourceDefinition defines.
func (k kinds) add(definition map[string]any) { k.addIf(definition, true) }

// addAll takes in versions that are not served, too.
func (k kinds) addAll(definition map[string]any) { k.addIf(definition, false) }

func (k kinds) addIf(definition map[string]any, servedOnly bool) {
	text := func(path ...string) string {
		s, _, _ := unstructured.NestedString(definition, path...)
		return s
	}
	group, plural := text("spec", "group"), text("spec", "names", "plural")
	scope := meta.RESTScopeNamespace
	if text("spec", "scope") == "Cluster" {
		scope = meta.RESTScopeRoot
	}
	versions, _, _ := unstructured.NestedSlice(definition, "spec", "versions")
	for _, v := range versions {
		version, _ := v.(map[string]any)
		name, _ := version["name"].(string)
		if served, _ := version["served"].(bool); servedOnly && !served {
			continue
		}
		gvk := schema.GroupVersionKind{Group: group, Version: name, Kind: text("spec", "names", "kind")}
		k[gvk] = &meta.RESTMapping{Resource: gvk.GroupVersion().WithResource(plural), GroupVersionKind: gvk, Scope: scope}
	}
}

// collect takes in the definitions in a document, which may be a list.
func (k kinds) collect(content map[string]any) {
	if content["kind"] == "CustomResourceDefinition" {
		k.add(content)
	}
	items, _ := content["items"].([]any)
	for _, item := range items {
		if m, ok := item.(map[string]any); ok {
			k.collect(m)
		}
	}
}

// aheadMapper knows the kinds of the cluster, and those that the release is about to
// define.
type aheadMapper struct {
	meta.RESTMapper // nil knows no kinds.
	kinds           kinds
}

// RESTMapping asks the cluster first.
func (m *aheadMapper) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	var err error = &meta.NoKindMatchError{GroupKind: kind, SearchedVersions: versions}
	if m.RESTMapper != nil {
		var mapping *meta.RESTMapping
		if mapping, err = m.RESTMapper.RESTMapping(kind, versions...); !meta.IsNoMatchError(err) {
			return mapping, err
		}
	}
	for _, version := range versions {
		if mapping, ok := m.kinds[kind.WithVersion(version)]; ok {
			return mapping, nil
		}
	}
	return nil, err
}

// ahead reports whether the cluster has yet to learn of a kind from the release.
func (m *aheadMapper) ahead(gvk schema.GroupVersionKind) bool {
	if _, ok := m.kinds[gvk]; !ok {
		return false
	}
	_, err := m.RESTMapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	return meta.IsNoMatchError(err)
}

// reach returns how to get at objects of a kind that may have been made in a version
// that is not served any more, or is yet to be: what is stored is there in all versions
// that are.
func (m *aheadMapper) reach(gvk schema.GroupVersionKind) (*meta.RESTMapping, error) {
	mapping, err := m.RESTMapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		mapping, err = m.RESTMapper.RESTMapping(gvk.GroupKind())
	}
	if ahead, ok := m.kinds[gvk]; ok && meta.IsNoMatchError(err) {
		return ahead, nil
	}
	return mapping, err
}

// outdated reports whether it is not known of the cluster which versions it serves.
func (m *aheadMapper) outdated(versions map[*meta.RESTMapping]bool) bool {
	for mapping, want := range versions {
		gvk := mapping.GroupVersionKind
		if _, err := m.RESTMapper.RESTMapping(gvk.GroupKind(), gvk.Version); meta.IsNoMatchError(err) == want {
			return true
		}
	}
	return false
}

// Reset has the cluster asked anew, once definitions have changed.
func (m *aheadMapper) Reset() { meta.MaybeResetRESTMapper(m.RESTMapper) }
