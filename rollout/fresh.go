package rollout

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/rollout/internal/wait"
)

// refreshed says that a target is known as it was after the session began.
type refreshed struct {
	target *target
	from   *feed
	err    error
}

// freshen reads each target once where the session has joined a watch that was
// there before. A watch lags behind, so that it may still show the object as it was
// before the release: rolled out, but with another image or configuration.
func (s *session) freshen(ctx context.Context) {
	for _, t := range s.planned {
		own := t.resource()
		if own == nil {
			continue
		}
		for _, m := range s.world.feedsOf(own.id()) {
			if !m.shared || t.readFrom == m.feed || !own.clusterScoped && m.namespace != orElse(t.object.Namespace, s.namespace) {
				continue
			}
			t.readFrom, t.stale = m.feed, true
			name := types.NamespacedName{Namespace: m.namespace, Name: t.object.Name}
			from := m.feed // which the session may give up for a narrower one
			s.wg.Go(func() { s.answers <- refreshed{t, from, from.refresh(ctx, name)} })
		}
	}
}

// unread returns why a target isn't known as it is now, or nil.
func (s *session) unread() error {
	for _, t := range s.planned {
		if t.stale {
			return fmt.Errorf("read %s: no answer yet", t.object)
		}
	}
	return nil
}

// refresh takes in one object as it is now, and asks until there is an answer. What
// may not be listed is left to the feed, which is told the same.
func (f *feed) refresh(ctx context.Context, name types.NamespacedName) error {
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, name.Name).String()
	for backoff := wait.FirstBackoff; ; backoff = min(2*backoff, wait.MaxBackoff) {
		err := f.read(ctx, name, selector)
		switch {
		case err == nil || refused(err):
			return nil
		case apierrors.IsBadRequest(err) && selector != "":
			selector = "" // some extension API servers know no selectors of fields
			continue
		case apierrors.IsBadRequest(err):
			return fmt.Errorf("read %s of %s: %w", name.Name, f, err)
		}
		if ctx.Err() != nil || !wait.For(ctx, backoff) {
			return fmt.Errorf("read %s of %s: %w", name.Name, f, errors.Join(context.Cause(ctx), err))
		}
	}
}

func (f *feed) read(ctx context.Context, name types.NamespacedName, selector string) error {
	list, err := f.resource.list(ctx, f.cluster, name.Namespace, metav1.ListOptions{FieldSelector: selector})
	if err != nil {
		return err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return err
	}
	page, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	for _, item := range items {
		if o, ok := item.(metav1.Object); ok && nameOf(o) == name {
			f.resource.trim(o)
			f.put(o)
			return nil
		}
	}
	f.absent(name, page.GetResourceVersion())
	return nil
}

// absent notes that there is no such object at a version.
func (s *store) absent(name types.NamespacedName, version string) {
	s.mu.RLock()
	o := s.objects[name]
	s.mu.RUnlock()
	if o != nil && !newer(o.GetResourceVersion(), version) {
		s.remove(o)
	}
}
