package helmx_test

import (
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

const definitionsPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"

// kinds are what the server serves: what it always does, and what definitions say.
// It is called with the lock held.
func (a *apiServer) kinds() []resourceKind {
	out := append([]resourceKind(nil), served...)
	for path, obj := range a.objects {
		if !strings.HasPrefix(path, definitionsPath) {
			continue
		}
		group, _ := dig(obj, "spec", "group").(string)
		kind, _ := dig(obj, "spec", "names", "kind").(string)
		plural, _ := dig(obj, "spec", "names", "plural").(string)
		versions, _ := dig(obj, "spec", "versions").([]any)
		for _, v := range versions {
			if name, _ := dig(v, "name").(string); dig(v, "served") == true {
				out = append(out, resourceKind{group, name, kind, plural, dig(obj, "spec", "scope") == "Cluster"})
			}
		}
	}
	return out
}

func (a *apiServer) servedGroups() []schema.GroupVersion {
	a.mu.Lock()
	defer a.mu.Unlock()
	return groupsOf(a.kinds())
}

// groupsOf are the named groups, each with its versions.
func groupsOf(kinds []resourceKind) []schema.GroupVersion {
	var out []schema.GroupVersion
	for _, k := range kinds {
		if gv := (schema.GroupVersion{Group: k.group, Version: k.version}); k.group != "" && !slices.Contains(out, gv) {
			out = append(out, gv)
		}
	}
	return out
}

func (a *apiServer) resourceList(path string) content {
	a.mu.Lock()
	defer a.mu.Unlock()
	gv, _ := schema.ParseGroupVersion(strings.TrimPrefix(strings.TrimPrefix(path, "apis/"), "api/"))
	list := []any{}
	for _, k := range a.kinds() {
		if k.group == gv.Group && k.version == gv.Version {
			list = append(list, content{
				"name": k.plural, "singularName": strings.ToLower(k.kind), "kind": k.kind, "namespaced": !k.cluster,
				"verbs": []string{"get", "list", "watch", "create", "update", "patch", "delete"},
			})
		}
	}
	return content{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv.String(), "resources": list}
}

// prune drops the fields of a custom resource's spec that the definition doesn't have.
// It is called with the lock held.
func (a *apiServer) prune(k resourceKind, obj content) {
	versions, _ := dig(a.objects[definitionsPath+k.plural+"."+k.group], "spec", "versions").([]any)
	for _, v := range versions {
		known, ok := dig(v, "schema", "openAPIV3Schema", "properties", "spec", "properties").(content)
		if !ok || dig(v, "name") != k.version {
			continue
		}
		for field := range section(obj, "spec") {
			if known[field] == nil {
				delete(section(obj, "spec"), field)
			}
		}
	}
}

// undefine has the objects of a definition that is deleted go with it.
func (a *apiServer) undefine(path string) {
	name, ok := strings.CutPrefix(path, definitionsPath)
	if !ok {
		return
	}
	plural, group, _ := strings.Cut(name, ".")
	for other := range a.objects {
		if strings.HasPrefix(other, "/apis/"+group+"/") && strings.Contains(other, "/"+plural+"/") {
			a.drop(other)
		}
	}
}

// establish has a definition served, and counts its generations.
func (a *apiServer) establish(was, obj content) {
	generation, _ := dig(was, "metadata", "generation").(int)
	if !reflect.DeepEqual(was["spec"], obj["spec"]) {
		generation++
	}
	section(obj, "metadata")["generation"] = generation
	if a.hold {
		return
	}
	obj["status"] = content{"conditions": []any{content{"type": "Established", "status": "True"}}, "storedVersions": []any{"v1"}}
}
