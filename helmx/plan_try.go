package helmx

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-dev/fairlead/stages"
)

// abreast is how many objects are tried at a time. All share the rate limit.
const abreast = 8

// try finds out what a deployment would do to each object, in the order in which
// Helm does it: creations and updates as rendered, then deletions. memory, if not
// nil, is what a plan saw: what has not been touched since is not tried again. Pods
// are tried only for a plan to tell of them: none can be held to what becomes of them.
func (o *outlook) try(s *session, memory map[identity]seen, pods bool) ([]*trial, error) {
	trials, err := o.trials(s)
	if err != nil {
		return nil, err
	}
	missing, err := o.missing(s)
	if err != nil {
		return nil, err
	}
	var namespaces, definitions, others []*trial
	for _, t := range trials {
		switch {
		case t.object.isNamespace():
			namespaces = append(namespaces, t)
		case t.object.isCRD():
			definitions = append(definitions, t)
		default:
			others = append(others, t)
		}
	}
	if err := o.runAll(slices.Concat(namespaces, definitions), memory, pods); err != nil {
		return nil, err
	}
	o.redefine(s, definitions, others)
	absent := o.made(namespaces, others)
	if missing {
		absent[s.namespace] = true
	}
	others = slices.DeleteFunc(others, func(t *trial) bool {
		if !absent[t.object.id.Namespace] || t.refusal != nil {
			return false
		}
		t.absent()
		return true
	})
	return trials, o.runAll(others, memory, pods)
}

// runAll runs trials that don't depend on each other.
func (o *outlook) runAll(trials []*trial, memory map[identity]seen, pods bool) error {
	var group errgroup.Group
	group.SetLimit(abreast)
	for _, t := range trials {
		var known *seen
		if was, ok := memory[t.object.identity()]; ok && was.uid != "" {
			known = &was
		}
		group.Go(func() error {
			if err := t.run(o.release, o.namespace, known); err != nil {
				return err
			}
			if !pods {
				return nil
			}
			return t.tryPod(o.rendered.objects)
		})
	}
	return group.Wait()
}

// made returns the namespaces that the release itself has yet to make, and notes
// those that others of its objects are in. Helm makes namespaces before all else.
func (o *outlook) made(namespaces, others []*trial) map[string]bool {
	out := map[string]bool{}
	for _, n := range namespaces {
		if n.action != stages.Create || n.basis != stages.BasisLive {
			continue
		}
		name := n.object.id.Name
		out[name] = true
		if name != o.namespace && slices.ContainsFunc(others, func(t *trial) bool { return t.object.id.Namespace == name }) {
			o.notes = append(o.notes, untried(name))
		}
	}
	return out
}

// untried notes a namespace that does not exist.
func untried(namespace string) stages.Note {
	return stages.Note{Kind: stages.NoteNamespaceMissing, Object: namespaceObject(namespace).id,
		Message: "it does not exist yet, so nothing in it could be tried: defaults, admission and quota are not known"}
}

// missing reports whether the namespace has yet to be made, and notes it.
func (o *outlook) missing(s *session) (bool, error) {
	exists, err := s.namespaceExists()
	if err != nil || exists {
		return false, err
	}
	o.notes = append(o.notes, untried(s.namespace))
	return true, nil
}

// trials prepares a trial for each object.
func (o *outlook) trials(s *session) ([]*trial, error) {
	released, wanted := index(o.before), index(o.rendered.objects)
	definitions := slices.DeleteFunc(slices.Clone(o.rendered.definitions), func(d object) bool {
		_, released := wanted[d.identity()]
		return released
	})
	out, err := s.definitionTrials(definitions, o.crds)
	if err != nil {
		return nil, err
	}
	add := func(obj object, base *object, deletion bool) error {
		t, err := s.newTrial(obj, base, deletion)
		if err != nil {
			return s.explain(err)
		}
		out = append(out, t)
		return nil
	}
	for _, obj := range o.rendered.objects {
		var base *object
		if was, ok := released[obj.identity()]; ok {
			base = &was
		}
		if err := add(obj, base, false); err != nil {
			return nil, err
		}
	}
	for _, obj := range o.before {
		if _, ok := wanted[obj.identity()]; ok || s.kube.spares(obj.identity()) {
			continue
		}
		if err := add(obj, &obj, true); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// change returns what may be shown of the trial, or nil if nothing would change.
func (t *trial) change(v veil) (*stages.Change, error) {
	if t.action == "" && t.refusal == nil {
		return nil, nil // See above.
	}
	out := &stages.Change{Action: t.action, Object: t.object.id, Basis: t.basis, Refusal: t.refusal}
	if t.refusal != nil {
		out.Refusal = &stages.Refusal{Reason: t.refusal.Reason, Message: v.text(t.refusal.Message), Fields: t.refusal.Fields}
	}
	out.Fields = t.object.show(v, t.fields, t.live)
	for i, f := range out.Fields {
		out.Fields[i].Overwritten = f.Owner != ""
	}
	var err error
	switch {
	case t.action == stages.Create:
		out.Fields = nil
		out.Diff, err = describe(v, out.Object, nil, &t.object, "deployed", "rendered")
	case t.action == stages.Delete:
		out.Fields = nil
		out.Diff, err = describe(v, out.Object, &t.object, nil, "deployed", "rendered")
	case t.outcome != nil:
		from, to := t.object, t.object
		from.content, to.content = bare(t.live.Object), bare(t.outcome)
		out.Diff, err = describe(v, out.Object, &from, &to, "live", "planned")
	default:
		out.Diff, err = describe(v, out.Object, t.base, &t.object, "deployed", "rendered")
	}
	if err != nil {
		return nil, err
	}
	out.Dangers = t.dangers()
	return out, nil
}

// drift returns in what the live object differs from the deployed revision, or nil.
// A field that the change writes is marked as overwritten.
func (t *trial) drift(v veil, change *stages.Change) *stages.Drift {
	if t.base == nil || t.basis != stages.BasisLive {
		return nil
	}
	if t.live == nil {
		return &stages.Drift{Object: t.object.id, Missing: true}
	}
	found := t.base.deviations(t.live, true)
	if len(found) == 0 {
		return nil
	}
	out := &stages.Drift{Object: t.object.id, Fields: t.base.show(v, found, t.live)}
	for i, f := range out.Fields {
		out.Fields[i].Overwritten = change != nil && slices.ContainsFunc(change.Fields, func(c stages.FieldChange) bool {
			return c.Path == f.Path || strings.HasPrefix(c.Path, f.Path) || strings.HasPrefix(f.Path, c.Path)
		})
	}
	return out
}

// holding names the kinds that hold data, or that others' data goes with.
func holding(o object) bool {
	switch o.id.Kind {
	case "PersistentVolumeClaim", "PersistentVolume", "StatefulSet":
		return o.gvk().Group == "" || o.gvk().Group == "apps"
	}
	return false
}

func (o object) isNamespace() bool { return o.id.Kind == "Namespace" && o.gvk().Group == "" }

func (o object) isCRD() bool { return o.id.Kind == "CustomResourceDefinition" }

// dangers returns why the change wants a second look.
func (t *trial) dangers() []stages.Danger {
	var out []stages.Danger
	flag := func(class stages.DangerClass, format string, args ...any) {
		out = append(out, stages.Danger{Class: class, Object: t.object.id, Why: fmt.Sprintf(format, args...)})
	}
	gone := t.action == stages.Delete || t.action == stages.Recreate
	if t.action == stages.Recreate {
		flag(stages.DangerImmutable, "%s can't be changed in place; the upgrade fails unless the object is deleted first", strings.Join(t.frozen, ", "))
	}
	if t.refusal != nil && t.action != stages.Recreate {
		flag(stages.DangerRefused, "the deployment would fail on it (%s)", t.refusal.Reason)
	}
	if t.former != "" {
		flag(stages.DangerOwnership, "it is of release %s, which goes on taking it for its own", t.former)
	}
	switch {
	case t.object.isCRD() && t.action != stages.Create:
		flag(stages.DangerCRD, "%s of a definition concerns every object of its kind%s", t.action, t.storage())
	case t.object.isNamespace() && gone:
		flag(stages.DangerNamespace, "everything in the namespace goes with it")
	case t.object.isNamespace() && t.action != stages.Create:
		flag(stages.DangerNamespace, "what a namespace says concerns everything in it")
	case holding(t.object) && gone:
		flag(stages.DangerStorage, "the data that it holds may go with it")
	}
	return out
}

// flagMoves marks objects that are deleted in one namespace and made in another.
func flagMoves(changes []stages.Change) {
	for i := range changes {
		for j := range changes {
			from, to := &changes[i], &changes[j]
			if from.Action != stages.Delete || to.Action != stages.Create || from.Object.Namespace == to.Object.Namespace ||
				from.Object.Kind != to.Object.Kind || from.Object.Name != to.Object.Name {
				continue
			}
			why := fmt.Sprintf("it moves from namespace %s to %s", from.Object.Namespace, to.Object.Namespace)
			from.Dangers = append(from.Dangers, stages.Danger{Class: stages.DangerNamespace, Object: from.Object, Why: why})
			to.Dangers = append(to.Dangers, stages.Danger{Class: stages.DangerNamespace, Object: to.Object, Why: why})
		}
	}
}
