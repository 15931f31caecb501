package rollout

import (
	"cmp"
	"context"
	"slices"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// world is what one session sees of the cluster: the feeds that it has joined,
// and what it has read from them. A feed wakes it only for a change of something
// that it has read, so that many sessions can share a busy namespace. One
// goroutine reads it.
type world struct {
	hub    *hub
	events eventView
	joined []*membership
	wakeUp chan struct{}

	mu sync.Mutex // for topics, against the feeds
	// topics are what the session has read in this look and in the one before.
	topics map[interest]struct{}
	// read is what it has read in this look.
	read map[interest]struct{}
}

// membership is a session's part in a feed.
type membership struct {
	*feed
	resource  resource
	namespace string // as the session asked, also of a feed of the whole cluster
	selector  string
	// since is the number of the last event that was there before, ended that of the
	// last job that was gone before.
	since, ended int
	// shared says that the feed was there before, so that what it knows may be older
	// than what the session is to look at.
	shared bool
}

// topic is what a reader may care about: an object by name, all of a namespace
// (an empty name), or what belongs to an owner.
type topic struct {
	name types.NamespacedName
	uid  types.UID
}

type interest struct {
	of *store
	topic
}

func newWorld(h *hub) *world {
	w := &world{hub: h, wakeUp: make(chan struct{}, 1), topics: map[interest]struct{}{}, read: map[interest]struct{}{}}
	w.events.w = w
	return w
}

// join adds a feed, unless the world has it.
func (w *world) join(ctx context.Context, r resource, namespace, selector string) {
	if r.clusterScoped {
		namespace = ""
	}
	for _, m := range w.joined {
		if m.resource.id() == r.id() && m.namespace == namespace && m.selector == selector {
			m.resource.optional = m.resource.optional && r.optional
			return
		}
	}
	w.joined = append(w.joined, w.member(ctx, r, namespace, selector))
	w.nudge() // others may have filled it already
}

func (w *world) member(ctx context.Context, r resource, namespace, selector string) *membership {
	f, shared := w.hub.join(ctx, r, namespace, selector, w)
	m := &membership{feed: f, resource: r, namespace: namespace, selector: selector, shared: shared}
	m.since, m.ended = f.last()
	return m
}

// leave gives all feeds up. What was read from them can still be read.
func (w *world) leave() {
	for _, m := range w.joined {
		w.hub.leave(m.feed, w)
	}
}

// narrow replaces the feeds of the whole cluster that the caller may not have by
// those of its namespaces.
func (w *world) narrow(ctx context.Context) {
	for i, m := range w.joined {
		if s := m.status(); m.wide && s.barred() {
			w.hub.narrowed(m.resource)
			w.hub.leave(m.feed, w)
			w.joined[i] = w.member(ctx, m.resource, m.namespace, m.selector)
			w.nudge()
		}
	}
}

// nudge tells the session that there is something to look at.
func (w *world) nudge() {
	select {
	case w.wakeUp <- struct{}{}:
	default:
	}
}

// cares reports whether the session has read about any of the topics.
func (w *world) cares(s *store, about []topic) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range about {
		if _, ok := w.topics[interest{s, t}]; ok {
			return true
		}
	}
	return false
}

// beginLook forgets what the last look has read, in time.
func (w *world) beginLook() { w.read = map[interest]struct{}{} }

// endLook leaves what this look has read as what the session cares about.
func (w *world) endLook() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.topics = w.read
}

// reads notes a topic before it is read, so that no change can be missed.
func (w *world) reads(m *membership, t topic) {
	i := interest{&m.store, t}
	if _, ok := w.read[i]; ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read[i] = struct{}{}
	w.topics[i] = struct{}{}
}

// feedsOf returns the feeds of a resource.
func (w *world) feedsOf(resource string) []*membership {
	var out []*membership
	for _, m := range w.joined {
		if m.resource.id() == resource {
			out = append(out, m)
		}
	}
	return out
}

func allStatuses(pod *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
}

// object returns the named object of a resource as T.
func object[T metav1.Object](w *world, resource, namespace, name string) (o T, ok bool) {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	for _, m := range w.feedsOf(resource) {
		w.reads(m, topic{name: key})
		m.mu.RLock()
		found := m.objects[key]
		m.mu.RUnlock()
		if o, ok = found.(T); ok {
			return o, true
		}
	}
	return o, false
}

// ownedBy returns the objects of a resource whose controller is owner, by name.
func ownedBy[T metav1.Object](w *world, resource string, owner types.UID) []T {
	var out []T
	for _, m := range w.feedsOf(resource) {
		w.reads(m, topic{uid: owner})
		m.mu.RLock()
		for _, o := range m.owned[owner] {
			if t, ok := o.(T); ok {
				out = append(out, t)
			}
		}
		m.mu.RUnlock()
	}
	slices.SortFunc(out, func(a, b T) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out
}

// allIn returns all objects of a resource in a namespace, by name.
func allIn[T metav1.Object](w *world, resource, namespace string) []T {
	var out []T
	for _, m := range w.feedsOf(resource) {
		w.reads(m, topic{name: types.NamespacedName{Namespace: namespace}})
		m.mu.RLock()
		for name, o := range m.objects {
			if t, ok := o.(T); ok && name.Namespace == namespace {
				out = append(out, t)
			}
		}
		m.mu.RUnlock()
	}
	slices.SortFunc(out, func(a, b T) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out
}

// endedJob returns a job that was deleted, after it had completed, while the
// session watched: one that was gone before is a former release's.
func (w *world) endedJob(namespace, name string) (job *batchv1.Job, ok bool) {
	for _, m := range w.feedsOf(jobs.name) {
		m.mu.RLock()
		ended := m.store.ended.jobs[types.NamespacedName{Namespace: namespace, Name: name}]
		m.mu.RUnlock()
		if ended.number > m.ended {
			return ended.job, true
		}
	}
	return nil, false
}

// byUID returns the object, or nil, for evidence: the session isn't woken when
// it changes.
func (w *world) byUID(uid types.UID) metav1.Object {
	for _, m := range w.joined {
		m.mu.RLock()
		for _, o := range m.objects {
			if o.GetUID() == uid {
				m.mu.RUnlock()
				return o
			}
		}
		m.mu.RUnlock()
	}
	return nil
}

// pulls returns how many attempts at pulling a container's image have failed.
func (w *world) pulls(pod *corev1.Pod, container string) int {
	for _, m := range w.feedsOf(pods.name) {
		m.mu.RLock()
		n := m.store.pulls[pod.UID][container]
		m.mu.RUnlock()
		if n > 0 {
			return n
		}
	}
	return 0
}

// eventView is what the session sees of the events.
type eventView struct{ w *world }

// of returns the events about an object, oldest first.
func (v eventView) of(uid types.UID) []*corev1.Event {
	for _, m := range v.w.feedsOf(events.name) {
		v.w.reads(m, topic{uid: uid})
		m.mu.RLock()
		found := m.store.events.byUID[uid]
		m.mu.RUnlock()
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// last returns the latest event about uid with one of the reasons.
func (v eventView) last(uid types.UID, reasons ...string) *corev1.Event {
	about := v.of(uid)
	for i := len(about) - 1; i >= 0; i-- {
		if slices.Contains(reasons, about[i].Reason) {
			return about[i]
		}
	}
	return nil
}

// isFresh reports whether e came, or came again, while the verification
// watched: an older one may be about a revision before.
func (v eventView) isFresh(e *corev1.Event) bool {
	for _, m := range v.w.feedsOf(events.name) {
		m.mu.RLock()
		number := m.store.events.arrived[e.UID]
		m.mu.RUnlock()
		if number > m.since {
			return true
		}
	}
	return false
}

// last returns the numbers of the last event, and of the last job that is gone.
func (s *store) last() (event, ended int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.events.number, s.ended.number
}
