package rollout

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/fairlead-dev/fairlead/rollout/internal/wait"
)

const (
	pageSize     = 500
	watchSeconds = int64(300)
	// deniedBackoff is for a request that was refused: only somebody who grants a
	// right can change the answer.
	deniedBackoff = 10 * time.Second
	// maxRejections is how often credentials may be rejected one after the other:
	// those of a plug-in are only renewed once the API server has said that they have
	// expired.
	maxRejections = 5
)

// feed lists a resource and then watches it, for as long as it is let, and keeps
// what it is told for all sessions that need it. After any error it lists again,
// so that what it keeps is never older than its status says.
type feed struct {
	store
	cluster  *Cluster
	resource resource
	key      feedKey
	wide     bool // of the whole cluster, for want of a reason to ask for less

	// Of the hub.
	users int
	stop  context.CancelFunc
	done  chan struct{}
}

func newFeed(c *Cluster, r resource, key feedKey) *feed {
	return &feed{store: newStore(), cluster: c, resource: r, key: key, done: make(chan struct{})}
}

func (f *feed) String() string {
	if f.key.namespace == "" {
		return f.resource.name + " in the cluster"
	}
	return f.resource.name + " in namespace " + f.key.namespace
}

// run returns when ctx is done and nothing that it started still runs.
func (f *feed) run(ctx context.Context) {
	backoff, rejections := wait.FirstBackoff, 0
	for at := (position{}); ctx.Err() == nil; {
		var err error
		if at.version == "" {
			at, err = f.relist(ctx)
		}
		if err == nil {
			began := time.Now()
			at.version, err = f.follow(ctx, at)
			at.listed, at.isList = nil, false
			if time.Since(began) > wait.MaxBackoff {
				backoff = wait.FirstBackoff
				if err == nil {
					continue // the server closes every watch now and then
				}
			}
		}
		if ctx.Err() != nil {
			return
		}
		pause := backoff
		rejections = counted(rejections, apierrors.IsUnauthorized(err))
		if err != nil {
			at = position{}
			denied := refused(err) || rejections >= maxRejections
			if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
				f.lost(err, denied)
			}
			if denied {
				pause = deniedBackoff
			}
		}
		//nolint:gosec // a jitter need not be unpredictable
		if !wait.For(ctx, pause/2+rand.N(pause/2)) {
			return
		}
		backoff = min(2*backoff, wait.MaxBackoff)
	}
}

// position is where a feed goes on from.
type position struct {
	version string
	// listed are all objects at that version, if isList. They are taken in once they
	// can be watched, too: what may only be listed is no more than a moment's truth.
	listed []metav1.Object
	isList bool
}

// relist reads all objects there are, and returns where to watch from.
func (f *feed) relist(ctx context.Context) (position, error) {
	at := position{isList: true}
	options := metav1.ListOptions{Limit: f.resource.page(), FieldSelector: f.key.selector}
	for {
		list, err := f.resource.list(ctx, f.cluster, f.key.namespace, options)
		if err != nil {
			return position{}, fmt.Errorf("list %s: %w", f, err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			return position{}, fmt.Errorf("list %s: %w", f, err)
		}
		for _, item := range items {
			if o, ok := item.(metav1.Object); ok {
				f.resource.trim(o)
				at.listed = append(at.listed, o)
			}
		}
		page, err := meta.ListAccessor(list)
		if err != nil {
			return position{}, fmt.Errorf("list %s: %w", f, err)
		}
		if at.version, options.Continue = page.GetResourceVersion(), page.GetContinue(); options.Continue == "" {
			break
		}
	}
	at.version = orElse(at.version, "0")
	return at, nil
}

// follow takes in every change since a position until the watch ends, and returns
// the version to go on from.
func (f *feed) follow(ctx context.Context, at position) (version string, err error) {
	version = at.version
	seconds := watchSeconds
	w, err := f.resource.watch(ctx, f.cluster, f.key.namespace, metav1.ListOptions{
		ResourceVersion: version, AllowWatchBookmarks: true, TimeoutSeconds: &seconds, FieldSelector: f.key.selector,
	})
	if err != nil {
		return "", fmt.Errorf("watch %s: %w", f, err)
	}
	f.opened()
	defer func() {
		w.Stop()
		for range w.ResultChan() { // closed when the watch's own goroutine is done
		}
	}()
	if at.isList {
		f.replace(at.listed, at.version)
		at.listed = nil
	}
	for {
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case event, open := <-w.ResultChan():
			if !open {
				return version, nil
			}
			if event.Type == watch.Error {
				return "", fmt.Errorf("watch %s: %w", f, apierrors.FromObject(event.Object))
			}
			o, ok := event.Object.(metav1.Object)
			if !ok {
				return "", fmt.Errorf("watch %s: unexpected %T", f, event.Object)
			}
			if v := o.GetResourceVersion(); v != "" {
				version = v
			}
			switch event.Type {
			case watch.Bookmark:
			case watch.Deleted:
				f.remove(o)
			default:
				f.resource.trim(o)
				f.put(o)
			}
		}
	}
}

// counted counts what comes one after the other.
func counted(n int, again bool) int {
	if !again {
		return 0
	}
	return n + 1
}

// refused reports whether err says that asking again can't help: the caller may
// not look, or the server doesn't know the resource.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err)
}
