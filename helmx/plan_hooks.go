package helmx

import (
	"fmt"
	"reflect"
	"slices"

	"helm.sh/helm/v3/pkg/release"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-dev/fairlead/stages"
)

// hookChanges returns in what the hooks differ from those of the deployed revision. What
// renders differently every time is no difference.
func (o *outlook) hookChanges(v veil) ([]stages.Change, error) {
	before, after := map[hookIdentity]object{}, map[hookIdentity]bool{}
	for _, hook := range o.hooksBefore {
		before[hook.hookIdentity()] = hook
	}
	for _, hook := range o.rendered.hooked {
		after[hook.hookIdentity()] = true
	}
	var out []stages.Change
	add := func(action stages.Action, id stages.Object, from, to *object) error {
		change := stages.Change{Action: action, Object: id, Basis: stages.BasisRelease}
		var err error
		if change.Diff, err = describe(v, id, from, to, "deployed", "rendered"); err != nil {
			return err
		}
		if action == stages.Update {
			change.Fields = to.show(v, fieldDifferences(from.content, to.content), nil)
		}
		out = append(out, change)
		return nil
	}
	for i, hook := range o.rendered.hooked {
		was, known := before[hook.hookIdentity()]
		var err error
		switch {
		case !known:
			err = add(stages.Create, hook.id, nil, &hook)
		case !reflect.DeepEqual(common(o.hookContent(i), any(was.content)), o.hookContent(i)):
			err = add(stages.Update, hook.id, &was, &hook)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, hook := range o.hooksBefore {
		if !after[hook.hookIdentity()] {
			if err := add(stages.Delete, hook.id, &hook, nil); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// hookIdentity tells hooks of one object apart by when they run.
type hookIdentity struct {
	identity
	events string
}

func (o object) hookIdentity() hookIdentity {
	events, _, _ := unstructured.NestedString(o.content, "metadata", "annotations", release.HookAnnotation)
	return hookIdentity{o.identity(), events}
}

// hookContent returns the i-th hook with what renders anew every time marked.
func (o *outlook) hookContent(i int) any {
	parts, _ := o.content.([]any)
	if len(parts) < 2 {
		return anyValue
	}
	hooks, _ := parts[1].([]any)
	if i >= len(hooks) {
		return anyValue
	}
	return hooks[i]
}

// hookDangers returns what the delete policies of hooks that a deployment runs
// would do to what holds data.
func (o *outlook) hookDangers(s *session) ([]stages.Danger, error) {
	var out []stages.Danger
	for _, h := range o.rendered.hooks {
		if !o.runs(h) {
			continue
		}
		objects, err := hookObjects([]*release.Hook{h}, s.namespace, s.mapper)
		if err != nil {
			return nil, err
		}
		for _, obj := range objects {
			if !holding(obj) && !obj.isCRD() && !obj.isNamespace() {
				continue
			}
			why, err := o.hookDeletes(s, h, obj)
			if err != nil {
				return nil, err
			}
			if why != "" {
				out = append(out, stages.Danger{Class: stages.DangerHook, Object: obj.id, Why: why})
			}
		}
	}
	return out, nil
}

// runs reports whether the deployment runs a hook.
func (o *outlook) runs(h *release.Hook) bool {
	events := []release.HookEvent{release.HookPreUpgrade, release.HookPostUpgrade}
	if o.install {
		events = []release.HookEvent{release.HookPreInstall, release.HookPostInstall}
	}
	return slices.ContainsFunc(h.Events, func(e release.HookEvent) bool { return slices.Contains(events, e) })
}

// hookDeletes says what becomes of the object of a hook, or "".
func (o *outlook) hookDeletes(s *session, h *release.Hook, obj object) (string, error) {
	policies := h.DeletePolicies
	if len(policies) == 0 {
		policies = []release.HookDeletePolicy{release.HookBeforeHookCreation} // Helm's default.
	}
	if slices.Contains(policies, release.HookSucceeded) || slices.Contains(policies, release.HookFailed) {
		return fmt.Sprintf("hook %s makes it and its policy deletes it afterwards", h.Path), nil
	}
	if !slices.Contains(policies, release.HookBeforeHookCreation) {
		return "", nil
	}
	live, err := s.live(obj)
	switch {
	case apierrors.IsForbidden(err):
		o.notes = append(o.notes, stages.Note{Kind: stages.NoteNotCompared, Object: obj.id,
			Message: "whether hook " + h.Path + " would delete it is not known, because the account may not get it"})
		return "", nil
	case err != nil:
		return "", s.explain(err)
	case live == nil:
		return "", nil
	}
	return fmt.Sprintf("hook %s deletes the one that exists before it makes it anew (before-hook-creation)", h.Path), nil
}
