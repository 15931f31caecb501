package helmx

import (
	"fmt"
	"slices"
	"strconv"

	"helm.sh/helm/v3/pkg/release"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
)

// estate is what there is of a release that is to be uninstalled.
type estate struct {
	history []*release.Release
	// doomed are the live objects to delete; stale are those of them that the newest
	// revision doesn't have, which Helm doesn't know of.
	doomed, stale []object
	// kept stay, and so does what hooks have made and doesn't run to an end. That one
	// is not spared what the hooks' own policies say.
	kept, hooked []object
	// why says for each of those why it stays.
	why map[identity]string
}

func (e *estate) last() *release.Release { return newest(e.history) }

// appraise sorts what lives of a release into what goes and what stays. It tells the
// session what is secret.
func (d *Deployer) appraise(s *session, history []*release.Release) (*estate, error) {
	e := &estate{history: history, why: map[identity]string{}}
	first, all, err := s.everything(history)
	if err != nil {
		return nil, err
	}
	s.secrets = slices.Concat(secretStrings(all), d.source.secrets())
	for _, rel := range history {
		s.secrets = append(s.secrets, d.source.secretsOfRecord(rel)...)
	}
	made, err := s.recorded(d.cfg.Release)
	if err != nil {
		return nil, err
	}
	newest, err := parseObjects(e.last().Manifest, s.namespace, s.mapper)
	if err != nil {
		return nil, err
	}
	current := index(newest)
	s.spareFolder(e.last())
	for _, o := range all {
		live, err := s.live(o)
		if err != nil {
			return nil, s.explain(err)
		}
		_, isCurrent := current[o.identity()]
		if live == nil || !isCurrent && !s.owns(d.cfg.Release, live) {
			continue // It is gone, or somebody else's since a revision had it.
		}
		since := made[first[o.identity()]]
		if oldest := history[0].Version; first[o.identity()] == oldest && oldest > 1 {
			since = metav1.Time{} // Revisions may have had it whose records are gone.
		}
		switch why := s.reasonToKeep(d.cfg.Release, o, live, since); {
		case why != "":
			e.kept, e.why[o.identity()] = append(e.kept, o), why
		default:
			e.doomed = append(e.doomed, o)
			if !isCurrent {
				e.stale = append(e.stale, o)
			}
		}
	}
	return e, e.findHooked(s)
}

// everything returns the objects of all revisions, each as the newest one that has
// it says, and the oldest revision that has it.
func (s *session) everything(history []*release.Release) (first map[identity]int, all []object, _ error) {
	first = map[identity]int{}
	at := map[identity]int{}
	for _, rel := range history {
		objects, err := parseObjects(rel.Manifest, s.namespace, s.mapper)
		if err != nil {
			return nil, nil, fmt.Errorf("revision %d: %w", rel.Version, err)
		}
		for _, o := range objects {
			id := o.identity()
			if i, known := at[id]; known {
				all[i] = o
				continue
			}
			first[id], at[id] = rel.Version, len(all)
			all = append(all, o)
		}
	}
	return first, all, nil
}

// reasonToKeep says why a live object of the release stays; empty if it goes. It has
// been part of the release since a revision whose record was made at that time, by
// the API server's clock, as which the object's age is told, too; zero if that isn't
// known.
func (s *session) reasonToKeep(name string, o object, live *unstructured.Unstructured, since metav1.Time) string {
	marks := live.GetAnnotations()
	owner, namespace := marks["meta.helm.sh/release-name"], marks["meta.helm.sh/release-namespace"]
	created := live.GetCreationTimestamp()
	switch {
	case o.kept() || object{content: live.Object}.kept():
		return "it is marked to be kept"
	case s.kube.spares(o.identity()):
		return "the chart has it in its crds folder, of which nothing is removed"
	case owner != "" && !s.owns(name, live):
		return fmt.Sprintf("it belongs to release %s/%s", namespace, owner)
	case !since.IsZero() && created.Before(&since):
		return "it was there before the release took it over"
	}
	return ""
}

// recorded returns when the record of each revision was made. It asks for no
// content.
func (s *session) recorded(name string) (map[int]metav1.Time, error) {
	client, err := metadata.NewForConfig(s.rest)
	if err != nil {
		return nil, fmt.Errorf("make a metadata client: %w", err)
	}
	found, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(s.namespace).
		List(s.ctx, metav1.ListOptions{LabelSelector: "owner=helm,name=" + name})
	if err != nil {
		return nil, s.explain(fmt.Errorf("look at the records of release %s/%s: %w", s.namespace, name, err))
	}
	out := map[int]metav1.Time{}
	for _, item := range found.Items {
		if version, err := strconv.Atoi(item.Labels["version"]); err == nil {
			out[version] = item.CreationTimestamp
		}
	}
	return out, nil
}

// findHooked looks for what hooks have made and stays.
func (e *estate) findHooked(s *session) error {
	made, err := s.ran(e.history)
	if err != nil {
		return err
	}
	e.hooked = slices.DeleteFunc(made, func(o object) bool { return o.runs() && !o.kept() })
	for _, o := range e.hooked {
		e.why[o.identity()] = "a hook made it"
	}
	return nil
}

// left are the objects that stay.
func (e *estate) left() []object { return slices.Concat(e.kept, e.hooked) }

// runs reports whether a hook's object runs to an end.
func (o object) runs() bool {
	switch (schema.GroupKind{Group: o.gvk().Group, Kind: o.id.Kind}) {
	case schema.GroupKind{Group: "batch", Kind: "Job"}, schema.GroupKind{Kind: "Pod"}:
		return true
	}
	return false
}

// ran returns the live objects that hooks of the revisions have made, each once.
func (s *session) ran(history []*release.Release) ([]object, error) {
	seen := map[identity]bool{}
	var out []object
	err := s.eachHooked(history, func(_ *release.Hook, o object, _ *unstructured.Unstructured) {
		if !seen[o.identity()] {
			seen[o.identity()] = true
			out = append(out, o)
		}
	})
	return out, err
}

// mayRemove returns a [PrivilegeError] if the account lacks a right that an
// uninstallation needs.
func (d *Deployer) mayRemove(s *session, e *estate) error {
	n := &needs{mapper: s.mapper, apply: d.cfg.Apply.Mode}
	for _, rel := range e.history {
		record := Right{Resource: "secrets", Namespace: s.namespace, Name: fmt.Sprintf("sh.helm.release.v1.%s.v%d", d.cfg.Release, rel.Version)}
		if !d.cfg.KeepHistory {
			n.allow(record, "get", "delete")
		}
		if rel == e.last() || rel.Info.Status == release.StatusDeployed {
			n.allow(record, "update")
		}
	}
	for _, o := range e.doomed {
		if err := n.object(o, "get", "watch", "delete"); err != nil {
			return err
		}
	}
	hooks, err := hookObjects(hooksOf(e.last().Hooks, deleteEvents), s.namespace, s.mapper)
	if err != nil {
		return err
	}
	if err := hookNeeds(n, hooks); err != nil {
		return err
	}
	ran, err := s.ran(e.history)
	if err != nil {
		return err
	}
	for _, o := range ran {
		if o.runs() && !o.kept() {
			if err := n.object(o, "get", "watch", "delete"); err != nil {
				return err
			}
		}
	}
	missing, err := s.missing(n.all)
	if err != nil {
		return err
	}
	return s.lacking(missing)
}

var deleteEvents = []release.HookEvent{release.HookPreDelete, release.HookPostDelete}

// hooksOf returns the hooks that run at one of the events.
func hooksOf(hooks []*release.Hook, events []release.HookEvent) []*release.Hook {
	var out []*release.Hook
	for _, h := range hooks {
		if slices.ContainsFunc(h.Events, func(e release.HookEvent) bool { return slices.Contains(events, e) }) {
			out = append(out, h)
		}
	}
	return out
}
