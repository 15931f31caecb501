package helmx

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/resource"

	"github.com/fairlead-dev/fairlead/stages"
)

// learn tells the session of the kinds that other releases will have defined.
func (s *session) learn(defined []stages.Kind) {
	s.redefined = map[schema.GroupKind]bool{}
	for _, d := range defined {
		gvk := schema.FromAPIVersionAndKind(d.APIVersion, d.Kind)
		scope := meta.RESTScopeRoot
		if d.Namespaced {
			scope = meta.RESTScopeNamespace
		}
		s.expect(&meta.RESTMapping{Resource: gvk.GroupVersion().WithResource(d.Resource), GroupVersionKind: gvk, Scope: scope})
		if d.Pending {
			s.redefined[gvk.GroupKind()] = true
		}
	}
}

// defines returns the kinds that the release, and the crds folder, define.
func (o *outlook) defines(s *session) []stages.Kind {
	all := kinds{}
	for _, obj := range slices.Concat(o.rendered.definitions, o.rendered.objects) {
		if obj.isCRD() {
			all.add(obj.content)
		}
	}
	var out []stages.Kind
	for gvk, mapping := range all {
		if _, err := s.mapper.RESTMapping(gvk.GroupKind(), gvk.Version); meta.IsNoMatchError(err) {
			continue // The definition that is there stays as it is.
		}
		out = append(out, stages.Kind{
			APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Resource: mapping.Resource.Resource,
			Namespaced: mapping.Scope.Name() == meta.RESTScopeNameNamespace,
			Pending:    o.redefined[gvk.GroupKind()] || s.mapper.ahead(gvk),
		})
	}
	slices.SortFunc(out, func(a, b stages.Kind) int {
		return cmp.Or(cmp.Compare(a.APIVersion, b.APIVersion), cmp.Compare(a.Kind, b.Kind))
	})
	return out
}

// redefine finds out, once they were tried, which definitions change, and marks the
// objects of their kinds, and of those that are yet to be defined: to try them now
// would tell what the definitions say that there are.
func (o *outlook) redefine(s *session, definitions, others []*trial) {
	o.redefined = map[schema.GroupKind]bool{}
	maps.Copy(o.redefined, s.redefined)
	for _, d := range definitions {
		if d.changesKind() {
			defined := kinds{}
			defined.add(d.object.content)
			for gvk := range defined {
				o.redefined[gvk.GroupKind()] = true
			}
		}
	}
	for _, t := range others {
		gvk := t.object.gvk()
		var why string
		switch {
		case t.deletion || t.refusal != nil:
			continue
		case s.mapper.ahead(gvk):
			why = "its kind is yet to be defined"
		case o.redefined[gvk.GroupKind()]:
			why = "the definition of its kind changes before"
		default:
			continue
		}
		t.untried = true
		t.note(stages.NoteKindMissing, why+", so it could not be tried: whether the cluster accepts it is not known")
	}
}

// changesKind reports whether the trial is of a definition that says something else
// than the one that is there.
func (t *trial) changesKind() bool {
	return t.refusal == nil && (t.action == stages.Update || t.action == stages.Adopt) &&
		slices.ContainsFunc(t.fields, func(d difference) bool { return len(d.path) > 0 && d.path[0].field == "spec" })
}

// foretell takes the change for that against the last release, where the object can't
// be tried. Whether it is there, and whose it is, is known all the same.
func (t *trial) foretell(release, namespace string) error {
	info, err := t.s.info(t.object)
	if err != nil {
		return t.s.explain(err)
	}
	if info != nil {
		if t.live, err = look(resource.NewHelper(info.Client, info.Mapping), info); err != nil {
			return t.unreadable(err)
		}
	}
	if t.live == nil {
		t.absent()
		return nil
	}
	if t.claim(release, namespace) && t.action == "" {
		t.unseen()
	}
	t.basis = stages.BasisRelease
	t.seen = t.state()
	return nil
}
