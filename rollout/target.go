package rollout

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/rollout/internal/wait"
	"github.com/fairlead-dev/fairlead/stages"
)

// target is an object that a session waits for.
type target struct {
	object stages.Object
	kind   kind
	// own is the resource of an object without pods; nil until it is known.
	own *resource
	// unknown is why it isn't known.
	unknown error
	// readFrom is the shared feed that the object was last read for; stale says that
	// there is no answer yet.
	readFrom *feed
	stale    bool
	// sought says that the object is looked for, because it may not be watched.
	sought bool
}

// resolved is what the cluster calls a kind, or why that isn't known (yet).
type resolved struct {
	kind  stages.Object // without a name
	entry entry
	err   error
}

// plan makes the targets, joins the feeds that they need, and has the cluster
// asked for the kinds that it has to be asked for.
func (s *session) plan(ctx context.Context) {
	asked := map[stages.Object]bool{}
	for _, o := range s.targets {
		k, _ := s.settings.kindOf(o)
		t := &target{object: o, kind: k}
		s.planned = append(s.planned, t)
		if !k.workload() && !k.discover {
			t.own = &k.needs[0]
		}
		s.join(ctx, t)
		if key := kindKey(o); k.discover && !asked[key] {
			asked[key] = true
			s.wg.Go(func() { s.resolve(ctx, key) })
		}
	}
}

// resource returns what the object is one of; nil while that isn't known.
func (t *target) resource() *resource {
	if !t.kind.workload() {
		return t.own
	}
	return &t.kind.needs[t.kind.self]
}

func (s *session) join(ctx context.Context, t *target) {
	needs := t.kind.needs
	if t.own != nil && t.kind.discover {
		needs = append(needs[:len(needs):len(needs)], *t.own)
	}
	for _, r := range needs {
		selector := ""
		if s.only != "" && r.name == pods.name {
			selector = "metadata.name=" + s.only
		}
		s.world.join(ctx, r, orElse(t.object.Namespace, s.namespace), selector)
	}
}

// resolve asks what a kind is called until the cluster knows it: its definition
// may be part of the same release.
func (s *session) resolve(ctx context.Context, kind stages.Object) {
	for backoff := wait.FirstBackoff; ; backoff = min(2*backoff, wait.MaxBackoff) {
		e, err := s.cluster.kinds.find(ctx, kind)
		if ctx.Err() != nil {
			return
		}
		s.answers <- resolved{kind, e, err}
		if err == nil || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err) || !wait.For(ctx, backoff) {
			return
		}
	}
}

// learn takes in what a kind is called.
func (s *session) learn(ctx context.Context, r resolved) {
	for _, t := range s.planned {
		if kindKey(t.object) != r.kind {
			continue
		}
		if t.unknown = r.err; r.err != nil {
			continue
		}
		own := newDynamicResource(r.entry.resource, r.entry.namespaced)
		own.optional = !t.kind.declared
		t.own = &own
		switch {
		case !r.entry.namespaced:
			t.object.Namespace = ""
		case t.object.Namespace == "":
			t.object.Namespace = s.namespace
		}
		s.join(ctx, t)
	}
}

// assess judges a target.
func (s *session) assessTarget(t *target, now time.Time) assessment {
	if t.kind.workload() {
		a := t.kind.assess(s.inspector, t.object, now)
		s.inspector.awaitQuota(&a, now)
		return a
	}
	a := assessment{object: t.object, desired: 1, podless: true}
	about := subject{kind: t.object.Kind, namespace: t.object.Namespace, name: t.object.Name}
	switch {
	case t.own == nil && apierrors.IsNotFound(t.unknown):
		a.fail(Missing, about, "NotFound", "the cluster does not serve its kind, "+t.object.APIVersion)
		return a
	case t.unwatchable(s.inspector):
		a.unwatched, a.waiting = true, "it may not be watched"
		a.finish("exists") // which is looked up beside
		return a
	}
	o, ok := object[metav1.Object](s.world, t.own.id(), t.object.Namespace, t.object.Name)
	switch {
	case !ok:
		return a.missing()
	case o.GetDeletionTimestamp() != nil:
		a.fail(NotReconciled, about, "Deleting", "it is being deleted")
		return a
	}
	t.kind.judge(s.inspector, &a, o)
	return a
}

// unwatchable reports whether the caller may not watch an object that the
// verdict can do without.
func (t *target) unwatchable(in *inspector) bool {
	if t.own == nil {
		return apierrors.IsForbidden(t.unknown)
	}
	return t.own.optional && in.denied(*t.own, t.object.Namespace)
}

// seekUnwatchable looks for the objects that may not be watched: they have to
// exist at least.
func (s *session) seekUnwatchable(ctx context.Context) {
	for _, t := range s.planned {
		if t.kind.workload() || t.sought || !t.unwatchable(s.inspector) {
			continue
		}
		t.sought = true
		s.seek(ctx, func(ctx context.Context) (objectsFound, error) {
			return s.cluster.find(ctx, s.namespace, []stages.Object{t.object})
		})
	}
}

// seek looks for objects beside the watches.
func (s *session) seek(ctx context.Context, find func(context.Context) (objectsFound, error)) {
	s.seeking++
	s.wg.Go(func() {
		found, err := find(ctx)
		s.answers <- objectsResult{found, err}
	})
}

// unresolved returns why a kind is not known yet, or nil.
func (s *session) unresolved() error {
	for _, t := range s.planned {
		switch {
		case t.kind.workload() || t.own != nil:
		case t.unknown == nil:
			return fmt.Errorf("ask the cluster for the kind %s: no answer yet", t.object.Kind)
		case !apierrors.IsNotFound(t.unknown) && !apierrors.IsForbidden(t.unknown):
			return fmt.Errorf("ask the cluster for the kind %s: %w", t.object.Kind, t.unknown)
		}
	}
	return nil
}
