package rollout

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// resource is one kind of object that a verification watches in a namespace.
type resource struct {
	name     string
	optional bool // the verdict can do without it
	list     func(context.Context, kubernetes.Interface, string, metav1.ListOptions) (runtime.Object, error)
	watch    func(context.Context, kubernetes.Interface, string, metav1.ListOptions) (watch.Interface, error)
}

// lister is what every typed client of client-go has.
type lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func newResource[L runtime.Object, C lister[L]](name string, client func(kubernetes.Interface, string) C) resource {
	return resource{
		name: name,
		list: func(ctx context.Context, c kubernetes.Interface, ns string, o metav1.ListOptions) (runtime.Object, error) {
			return client(c, ns).List(ctx, o)
		},
		watch: func(ctx context.Context, c kubernetes.Interface, ns string, o metav1.ListOptions) (watch.Interface, error) {
			return client(c, ns).Watch(ctx, o)
		},
	}
}

// change is what a feed tells: objects, or that it lost touch with the cluster.
type change struct {
	feed    *feed
	objects []metav1.Object
	deleted bool
	// replace means that objects are all there is: the feed is in touch again.
	replace bool
	// err means that the feed has lost touch, and why.
	err error
}

const (
	pageSize     = 500
	watchSeconds = int64(300)
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = time.Second
)

// feed lists a resource and then watches it, for as long as it is let. After
// any error it lists again, so that what it tells is never older than it says.
type feed struct {
	resource  resource
	client    kubernetes.Interface
	namespace string
	selector  string // a field selector; empty for all
	out       chan<- change
}

func (f *feed) String() string { return f.resource.name + " in namespace " + f.namespace }

// run returns when ctx is done and nothing that it started still runs.
func (f *feed) run(ctx context.Context) {
	backoff := firstBackoff
	for version := ""; ctx.Err() == nil; {
		var err error
		if version == "" {
			if version, err = f.relist(ctx); err == nil {
				backoff = firstBackoff
			}
		}
		if err == nil {
			began := time.Now()
			version, err = f.follow(ctx, version)
			if err == nil && time.Since(began) > maxBackoff {
				continue // the server closes every watch now and then
			}
		}
		if err != nil {
			version = ""
			if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) && !f.send(ctx, change{err: err}) {
				return
			}
		}
		//nolint:gosec // a jitter need not be unpredictable
		if !sleep(ctx, backoff/2+rand.N(backoff/2)) {
			return
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// relist tells all objects there are, and returns the version to watch from.
func (f *feed) relist(ctx context.Context) (version string, err error) {
	var objects []metav1.Object
	options := metav1.ListOptions{Limit: pageSize, FieldSelector: f.selector}
	for {
		list, err := f.resource.list(ctx, f.client, f.namespace, options)
		if err != nil {
			return "", fmt.Errorf("list %s: %w", f, err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			return "", fmt.Errorf("list %s: %w", f, err)
		}
		for _, item := range items {
			if o, ok := item.(metav1.Object); ok {
				objects = append(objects, o)
			}
		}
		page, err := meta.ListAccessor(list)
		if err != nil {
			return "", fmt.Errorf("list %s: %w", f, err)
		}
		if version, options.Continue = page.GetResourceVersion(), page.GetContinue(); options.Continue == "" {
			break
		}
	}
	if !f.send(ctx, change{objects: objects, replace: true}) {
		return "", context.Cause(ctx)
	}
	if version == "" {
		version = "0"
	}
	return version, nil
}

// follow tells every change since version until the watch ends, and returns
// the version to go on from.
func (f *feed) follow(ctx context.Context, version string) (string, error) {
	seconds := watchSeconds
	w, err := f.resource.watch(ctx, f.client, f.namespace, metav1.ListOptions{
		ResourceVersion: version, AllowWatchBookmarks: true, TimeoutSeconds: &seconds, FieldSelector: f.selector,
	})
	if err != nil {
		return "", fmt.Errorf("watch %s: %w", f, err)
	}
	defer func() {
		w.Stop()
		for range w.ResultChan() { // closed when the watch's own goroutine is done
		}
	}()
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
			if event.Type == watch.Bookmark {
				continue
			}
			if !f.send(ctx, change{objects: []metav1.Object{o}, deleted: event.Type == watch.Deleted}) {
				return "", context.Cause(ctx)
			}
		}
	}
}

func (f *feed) send(ctx context.Context, c change) bool {
	c.feed = f
	select {
	case f.out <- c:
		return true
	case <-ctx.Done():
		return false
	}
}

// sleep waits and reports whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// refused reports whether err says that asking again can't help: the caller may
// not look, or the server doesn't know the resource.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err) ||
		apierrors.IsMethodNotSupported(err)
}
