package helmx

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/release"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/metadata"

	"github.com/fairlead-dev/fairlead/stages"
)

// spareDefinitions keeps definitions that revisions of own have and to, if any, has not,
// if there are objects of their kinds that don't go as well: all would go with them. It
// returns what to say of them.
func (s *session) spareDefinitions(own []*release.Release, to *release.Release) ([]string, error) {
	var out []string
	var going map[identity]object
	_, err := s.beyond(own, to, func(_ *release.Release, o object, live *unstructured.Unstructured) (bool, error) {
		if !o.isCRD() || s.kube.spares(o.identity()) {
			return false, nil
		}
		var err error
		if going == nil {
			if going, err = s.going(own, to); err != nil {
				return false, err
			}
		}
		why, err := s.inUse(live, going)
		if why != "" {
			s.kube.spared[o.identity()] = true
			out = append(out, o.id.String()+" is left as it is, because "+why)
		}
		return false, err
	})
	return out, err
}

// spareFolder keeps the definitions in the crds folder of the chart that a revision was
// made from, which the session may not have. What can't be read there has defined nothing.
func (s *session) spareFolder(rel *release.Release) {
	if rel.Chart == nil {
		return
	}
	for _, crd := range rel.Chart.CRDObjects() {
		objects, err := parseObjects(string(crd.File.Data), "", nil)
		if err != nil {
			continue
		}
		for _, o := range objects {
			s.kube.defined[o.identity()] = true
		}
	}
}

// going returns the objects of revisions of own that go when to, if any, comes back.
func (s *session) going(own []*release.Release, to *release.Release) (map[identity]object, error) {
	_, all, err := s.everything(own)
	if err != nil {
		return nil, err
	}
	out := index(all)
	for id, o := range out {
		if o.kept() || s.kube.spares(id) {
			delete(out, id)
		}
	}
	if to == nil {
		return out, nil
	}
	stay, err := parseObjects(to.Manifest, s.namespace, s.mapper)
	for id := range index(stay) {
		delete(out, id)
	}
	return out, err
}

// inUse says why a live definition can't be deleted without harm, or "".
func (s *session) inUse(definition *unstructured.Unstructured, going map[identity]object) (string, error) {
	defined := kinds{}
	defined.add(definition.Object)
	client, err := metadata.NewForConfig(s.rest)
	if err != nil {
		return "", fmt.Errorf("make a metadata client: %w", err)
	}
	if condition(definition, "Established") == nil {
		return "", nil // There can be no objects.
	}
	// Each version that is served shows all objects of the kind.
	problem := errors.New("no version of it is served")
	for gvk, mapping := range defined {
		others, err := s.others(client, gvk.GroupKind(), mapping.Resource, going)
		switch {
		case err == nil:
			return others, nil
		case s.ctx.Err() != nil || isAway(s.explain(err)):
			return "", s.explain(err)
		}
		problem = s.explain(err)
	}
	return fmt.Sprintf("whether there are other objects of its kind can't be seen: %s", problem), nil
}

// others says which objects of a kind there are beside those that are going, or "". A
// page of the list with one in it is enough.
func (s *session) others(client metadata.Interface, kind schema.GroupKind, resource schema.GroupVersionResource, going map[identity]object) (string, error) {
	const most = 3
	options := metav1.ListOptions{Limit: 100}
	for {
		found, err := client.Resource(resource).List(s.ctx, options)
		if err != nil {
			return "", err
		}
		var names []string
		for _, item := range found.Items {
			if _, ours := going[identity{kind.Group, kind.Kind, item.Namespace, item.Name}]; !ours && item.DeletionTimestamp == nil {
				names = append(names, strings.TrimPrefix(item.Namespace+"/"+item.Name, "/"))
			}
		}
		if options.Continue = found.Continue; options.Continue != "" && len(names) == 0 {
			continue
		}
		switch {
		case len(names) == 0:
			return "", nil
		case options.Continue != "":
			names = append(names[:min(len(names), most)], "others")
		case len(names) > most:
			names = append(names[:most], fmt.Sprintf("%d more", len(names)-most))
		}
		return "there are objects of its kind that do not go with the release: " + kind.Kind + " " + strings.Join(names, ", "), nil
	}
}

// markDefined marks a definition of the crds folder that was written, if that has made or
// changed it: before is what it was.
func (s *session) markDefined(info *resource.Info, before *unstructured.Unstructured) {
	after, ok := info.Object.(*unstructured.Unstructured)
	if ok && (before == nil || !reflect.DeepEqual(bare(before.Object), bare(after.Object))) {
		s.marks[definedLabel(after.GetUID())] = "true"
	}
}

// lasting says which live definitions of the crds folder were made or changed for
// revisions of own, as no restore undoes that; "" for none.
func (s *session) lasting(own []*release.Release) (string, error) {
	var names []string
	for _, rel := range own {
		if rel.Chart == nil || !slices.ContainsFunc(sortedKeys(noted(rel)), func(key string) bool { return strings.HasPrefix(key, definedLabel("")) }) {
			continue
		}
		for _, crd := range rel.Chart.CRDObjects() {
			objects, err := parseObjects(string(crd.File.Data), "", nil)
			if err != nil {
				return "", err
			}
			for _, o := range objects {
				live, err := s.live(o)
				if err != nil {
					return "", s.explain(err)
				}
				if live != nil && noted(rel)[definedLabel(live.GetUID())] != "" && !slices.Contains(names, o.id.Name) {
					names = append(names, o.id.Name)
				}
			}
		}
	}
	if len(names) == 0 {
		return "", nil
	}
	return "; definitions of the crds folder that the run has made or changed stay, because they are not part of the release: " + strings.Join(names, ", "), nil
}

// useNeeds is for looking whether there are objects of a kind before its definition goes.
func useNeeds(n *needs, definition object) {
	defined := kinds{}
	defined.add(definition.content)
	n.notef("A restore removes a definition only if it can list, in all namespaces, that there are no objects of its kind but the release's own.")
	for _, mapping := range defined {
		n.all = append(n.all, need{optional: true, Right: Right{Verb: "list", Group: mapping.Resource.Group, Resource: mapping.Resource.Resource}})
	}
}

// storedRemedy is for a definition that can't go back to the version it was stored in.
const storedRemedy = "objects may be stored in a version that the definition had not before: keep that version in it, " +
	"or write each object of the kind anew in a version that stays and then take the other out of the definition's status.storedVersions"

// storage says that a change of a definition has objects stored in a version that they
// were not before, or "".
func (t *trial) storage() string {
	if t.live == nil || t.action != stages.Update {
		return ""
	}
	version := storageVersion(t.object.content)
	stored, _, _ := unstructured.NestedStringSlice(t.live.Object, "status", "storedVersions")
	if version == "" || slices.Contains(stored, version) {
		return ""
	}
	return fmt.Sprintf("; from then on objects are stored as %s, which the API server does not let go again: a restore fails if the definition had no such version before", version)
}

// storageVersion returns the version that a definition has objects stored in.
func storageVersion(definition map[string]any) string {
	versions, _, _ := unstructured.NestedSlice(definition, "spec", "versions")
	for _, v := range versions {
		if version, _ := v.(map[string]any); version["storage"] == true {
			name, _ := version["name"].(string)
			return name
		}
	}
	return ""
}
