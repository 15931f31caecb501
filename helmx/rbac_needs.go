package helmx

import (
	"fmt"
	"slices"

	"helm.sh/helm/v3/pkg/release"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/fairlead-dev/fairlead/stages"
)

// need is a right that a deployment needs.
type need struct {
	Right
	// instead are rights that together make up for it; empty for none.
	instead []Right
	// optional is what goes on without it, albeit worse.
	optional bool
}

// needs collects what a deployment needs.
type needs struct {
	all   []need
	notes []string
	// unknown are new objects of a kind that the cluster doesn't serve.
	unknown []string
	// fresh is whether the namespace is yet to be made.
	fresh bool

	mapper *aheadMapper
	apply  ApplyMode
}

func (n *needs) add(rights ...Right) {
	for _, r := range rights {
		n.all = append(n.all, need{Right: r})
	}
}

func (n *needs) notef(format string, args ...any) {
	if note := fmt.Sprintf(format, args...); !slices.Contains(n.notes, note) {
		n.notes = append(n.notes, note)
	}
}

// allow adds verbs on a kind, or on one object of it.
func (n *needs) allow(on Right, verbs ...string) {
	for _, on.Verb = range verbs {
		n.add(on)
	}
}

// object adds verbs on an object. The API server does not look at the name of what
// is to be created, unless it is by a server-side apply, which has it in its URL.
func (n *needs) object(o object, verbs ...string) error {
	on, ok, err := n.kind(o)
	if err != nil || !ok {
		return err
	}
	for _, verb := range verbs {
		right := on
		if verb == "create" && n.apply != ServerSide {
			right.Name = ""
		}
		n.allow(right, verb)
	}
	return nil
}

// kind returns a right to an object that still lacks the verb, or false if the
// cluster doesn't know its kind.
func (n *needs) kind(o object) (Right, bool, error) {
	mapping, err := n.mapper.reach(o.gvk())
	switch {
	case meta.IsNoMatchError(err):
		return Right{}, false, nil
	case err != nil:
		return Right{}, false, fmt.Errorf("look up kind %s: %w", o.id.Kind, err)
	}
	return Right{Group: mapping.Resource.Group, Resource: mapping.Resource.Resource, Namespace: o.id.Namespace, Name: o.id.Name}, true, nil
}

// needs derives what the deployment of o, and its restore, send to the cluster.
func (d *Deployer) needs(s *session, o *surveyed, options RBACOptions) (*needs, error) {
	n := &needs{mapper: s.mapper, apply: d.cfg.Apply.Mode}
	d.recordNeeds(n, o, options)
	if !d.cfg.Lock.Off {
		leases := Right{Group: "coordination.k8s.io", Resource: "leases", Namespace: d.cfg.Namespace}
		n.allow(leases, "create")
		leases.Name = d.leaseName()
		n.allow(leases, "get", "watch", "update", "delete")
	}
	if d.cfg.CreateNamespace {
		if err := d.namespaceNeeds(s, n); err != nil {
			return nil, err
		}
	}
	d.definitionNeeds(n)
	if o.rendered == nil {
		return n, nil // Its templates may not look up what they want to.
	}
	before, err := o.before(s)
	if err != nil {
		return nil, err
	}
	if err := objectNeeds(n, before, o, options); err != nil {
		return nil, err
	}
	hooks, err := o.hooks(s, options)
	if err != nil {
		return nil, err
	}
	if err := hookNeeds(n, hooks); err != nil {
		return nil, err
	}
	granting := slices.Concat(o.rendered.objects, before, hooks)
	if options.Once && !o.blind {
		same := s.untouched(before, o.rendered.objects)
		granting = slices.DeleteFunc(granting, func(o object) bool { return same[o.identity()] })
	}
	if err := s.escalationNeeds(n, granting, options.Once); err != nil {
		return nil, err
	}
	return n, d.sourceNeeds(s, n, o.release)
}

// recordNeeds is for the Secrets that Helm keeps its revisions in.
func (d *Deployer) recordNeeds(n *needs, o *surveyed, options RBACOptions) {
	secrets := Right{Resource: "secrets", Namespace: d.cfg.Namespace}
	n.allow(secrets, "list", "create")
	if !options.Once {
		n.notef("Helm keeps its revisions in Secrets named after their number, so the rules for them can't name them for good.")
		n.allow(secrets, "get", "update", "delete")
		return
	}
	if o.blind {
		return
	}
	record := func(revision int, verbs ...string) {
		secrets.Name = fmt.Sprintf("sh.helm.release.v1.%s.v%d", d.cfg.Release, revision)
		n.allow(secrets, verbs...)
	}
	last, current := newest(o.history), deployed(o.history)
	next := revisionOf(last) + 1
	record(next, "update")
	if options.Uninstall {
		record(next, "get", "delete")
		for _, rel := range o.history {
			record(rel.Version, "get", "delete")
		}
	}
	switch {
	case last == nil:
		record(next, "get", "delete") // A restore uninstalls it.
		return
	case current != nil:
		record(next+1, "update") // A restore rolls back.
		record(current.Version, "get")
	}
	for _, rel := range o.history {
		if rel == last || rel.Info.Status == release.StatusDeployed {
			record(rel.Version, "update")
		}
	}
	spare := len(o.history) - (d.cfg.HistoryMax - 1)
	for _, rel := range o.history {
		if spare > 0 && rel != current {
			record(rel.Version, "get", "delete")
			spare--
		}
	}
}

// namespaceNeeds is for a namespace that is to be made, and to be removed by a
// restore if it is empty.
func (d *Deployer) namespaceNeeds(s *session, n *needs) error {
	exists, err := s.namespaceExists()
	if exists || err != nil {
		return err
	}
	n.fresh = true
	n.notef("Namespace %s does not exist, so rights in it can be granted for the whole cluster only. Make it first, and derive the rules anew, to do with a Role.", d.cfg.Namespace)
	namespaces := Right{Resource: "namespaces"}
	n.allow(namespaces, "create")
	namespaces.Name = d.cfg.Namespace
	n.allow(namespaces, "get", "delete", "watch")
	n.notef("A restore removes the namespace only if it can list that nothing is left in it.")
	kinds, _, err := s.removable()
	if err != nil {
		return err
	}
	for _, k := range kinds {
		n.all = append(n.all, need{optional: true, Right: Right{Verb: "list", Group: k.Group, Resource: k.Resource, Namespace: d.cfg.Namespace}})
	}
	return nil
}

// objectNeeds is for the objects of the chart. A restore brings back those that
// were deployed, and deletes those that were not and waits for it.
func objectNeeds(n *needs, before []object, o *surveyed, options RBACOptions) error {
	old, wanted := index(before), index(o.rendered.objects)
	// What somebody has begun to uninstall is waited for to be gone.
	interrupted := removing(newest(o.history)) != ""
	for _, obj := range o.rendered.objects {
		if _, known, err := n.kind(obj); err != nil {
			return err
		} else if !known {
			n.unknown = append(n.unknown, obj.id.String())
			continue
		}
		verbs := []string{"get", "create", "patch"}
		if obj.isCRD() {
			verbs = append(verbs, "watch") // until it is served
		}
		_, stays := old[obj.identity()]
		goes := !obj.kept() && (!stays && !o.blind || !options.Once) // by a restore
		if obj.isCRD() && goes {
			useNeeds(n, obj)
		}
		if goes || !obj.kept() && options.Uninstall {
			verbs = append(verbs, "delete", "watch")
		} else if interrupted {
			verbs = append(verbs, "watch")
		}
		if err := n.object(obj, verbs...); err != nil {
			return err
		}
	}
	for _, obj := range before {
		if _, stays := wanted[obj.identity()]; stays {
			continue
		}
		verbs := []string{"get"}
		if !obj.kept() {
			verbs = append(verbs, "delete")
		}
		// A restore waits until what is still being deleted is gone, before it makes it anew.
		if !obj.kept() && (options.Uninstall || deployed(o.history) != nil || interrupted) {
			verbs = append(verbs, "watch")
		}
		if deployed(o.history) != nil {
			verbs = append(verbs, "create", "patch")
		}
		if err := n.object(obj, verbs...); err != nil {
			return err
		}
	}
	return nil
}

// hooks returns the objects of the hooks that may run.
func (o *surveyed) hooks(s *session, options RBACOptions) ([]object, error) {
	install := []release.HookEvent{release.HookPreInstall, release.HookPostInstall}
	upgrade := []release.HookEvent{release.HookPreUpgrade, release.HookPostUpgrade}
	back := []release.HookEvent{release.HookPreRollback, release.HookPostRollback}
	events := upgrade
	switch {
	case !options.Once:
		events = slices.Concat(install, upgrade, back)
	case o.install:
		events = install
	}
	if options.Tests {
		events = append(events, release.HookTest)
	}
	if options.Uninstall {
		events = append(events, deleteEvents...)
		back = append(back, deleteEvents...)
	}
	var run []*release.Hook
	pick := func(hooks []*release.Hook, events []release.HookEvent) {
		for _, h := range hooksOf(hooks, events) {
			if !o.blind || len(hooksOf([]*release.Hook{h}, upgrade)) > 0 {
				run = append(run, h)
			}
		}
	}
	pick(o.rendered.hooks, events)
	if current := deployed(o.history); current != nil {
		pick(current.Hooks, back)
	}
	return hookObjects(run, s.namespace, s.mapper)
}

// hookNeeds is for the objects of hooks: they are deleted before they are made, or
// after they ran, or by a restore.
func hookNeeds(n *needs, hooks []object) error {
	for _, o := range hooks {
		verbs := []string{"create"}
		if n.apply == ServerSide {
			verbs = append(verbs, "get", "patch")
		}
		if o.id.Kind != "CustomResourceDefinition" {
			verbs = append(verbs, "get", "watch", "delete")
		}
		if err := n.object(o, verbs...); err != nil {
			return err
		}
		pods := Right{Resource: "pods", Namespace: o.id.Namespace}
		switch o.id.Kind {
		case "Pod":
			pods.Name = o.id.Name
		case "Job":
		default:
			continue
		}
		n.allow(pods, "list")
		pods.Resource = "pods/log"
		n.allow(pods, "get")
	}
	return nil
}

// surveyed is what a deployment starts from, and what it comes to.
type surveyed struct {
	history []*release.Release
	install bool
	// blind is whether the account may not read the history: only what is needed
	// whatever it says is known to be needed then.
	blind bool
	// rendered is nil if the templates may not look up what they want to.
	rendered *rendering
	// release is what it will be, for others to look at.
	release stages.Release
	// denied are the refusals that were met on the way.
	denied []*APIError
}

// before returns the objects that Helm takes for present.
func (o *surveyed) before(s *session) ([]object, error) {
	if o.install {
		return nil, nil
	}
	base := deployed(o.history)
	if base == nil {
		base = newest(o.history)
	}
	objects, err := parseObjects(base.Manifest, s.namespace, s.mapper)
	if err != nil {
		return nil, fmt.Errorf("revision %d: %w", base.Version, err)
	}
	return objects, nil
}

func (o *surveyed) refusals() []error {
	var out []error
	for _, e := range o.denied {
		out = append(out, e)
	}
	return out
}

// survey reads the history and renders the chart. It goes on past what the
// account may not read, in order to tell of everything else as well.
func (d *Deployer) survey(s *session, img stages.Image) (*surveyed, error) {
	o := &surveyed{}
	var err error
	if o.history, err = s.history(d.cfg.Release); err != nil {
		if o.blind = o.deny(err); !o.blind {
			return nil, err
		}
	}
	last := newest(o.history)
	o.install = last == nil || last.Info.Status == release.StatusUninstalled
	revision := nextRevision(revisionOf(last), o.install)
	if o.rendered, err = d.render(s, img, revision, !o.install); err != nil && !o.deny(err) {
		return nil, err
	}
	if o.rendered != nil {
		o.release = stages.Release{Image: img, Name: d.cfg.Release, Namespace: d.cfg.Namespace, Revision: revision, Objects: ids(o.rendered.objects)}
	}
	return o, nil
}
