package rollout

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// world is what the feeds have told so far. One goroutine owns it.
type world struct {
	objects map[string]map[types.NamespacedName]metav1.Object // by resource
	events  eventLog
	feeds   map[*feed]*feedState
	// pulls counts failed image pulls by pod and container.
	pulls map[pullKey]int
}

type feedState struct {
	synced bool  // has been in touch at least once
	err    error // why it is out of touch; nil while it is in touch
	denied bool  // the caller may not look
}

type pullKey struct {
	pod       types.UID
	container string
}

func newWorld() *world {
	return &world{
		objects: map[string]map[types.NamespacedName]metav1.Object{},
		events:  eventLog{byUID: map[types.UID][]*corev1.Event{}},
		feeds:   map[*feed]*feedState{},
		pulls:   map[pullKey]int{},
	}
}

func nameOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// apply takes a change in.
func (w *world) apply(c change) {
	state := w.feeds[c.feed]
	if c.err != nil {
		state.err = c.err
		state.denied = refused(c.err)
		return
	}
	if c.feed.resource.name == "events" {
		if c.replace {
			*state = feedState{synced: true}
		}
		for _, o := range c.objects {
			if e, ok := o.(*corev1.Event); ok && !c.deleted {
				w.events.add(e, !c.replace)
			}
		}
		return
	}
	table := w.objects[c.feed.resource.name]
	if table == nil {
		table = map[types.NamespacedName]metav1.Object{}
		w.objects[c.feed.resource.name] = table
	}
	old := table
	if c.replace {
		*state = feedState{synced: true}
		table = make(map[types.NamespacedName]metav1.Object, len(c.objects))
		for name, o := range old {
			if name.Namespace != c.feed.namespace {
				table[name] = o
			}
		}
		w.objects[c.feed.resource.name] = table
	}
	for _, o := range c.objects {
		o.SetManagedFields(nil) // the largest part of most objects, and of no use here
		if c.deleted {
			delete(table, nameOf(o))
			continue
		}
		if pod, ok := o.(*corev1.Pod); ok {
			before, _ := old[nameOf(o)].(*corev1.Pod)
			w.countPulls(before, pod)
		}
		table[nameOf(o)] = o
	}
}

// countPulls counts the attempts at pulling an image that fail from before to
// pod: kubelet reports each as ErrImagePull, and ImagePullBackOff in between.
func (w *world) countPulls(before, pod *corev1.Pod) {
	was := map[string]string{}
	if before != nil && before.UID == pod.UID {
		for _, s := range allStatuses(before) {
			if s.State.Waiting != nil {
				was[s.Name] = s.State.Waiting.Reason
			}
		}
	}
	for _, s := range allStatuses(pod) {
		key := pullKey{pod.UID, s.Name}
		switch {
		case s.State.Running != nil:
			delete(w.pulls, key)
		case s.State.Waiting == nil:
		case s.State.Waiting.Reason == "ErrImagePull" && was[s.Name] != "ErrImagePull",
			s.State.Waiting.Reason == "ImagePullBackOff" && w.pulls[key] == 0:
			w.pulls[key]++
		}
	}
}

func allStatuses(pod *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
}

// object returns the named object of a resource as T.
func object[T metav1.Object](w *world, resource, namespace, name string) (o T, ok bool) {
	o, ok = w.objects[resource][types.NamespacedName{Namespace: namespace, Name: name}].(T)
	return o, ok
}

// ownedBy returns the objects of a resource whose controller is owner, by name.
func ownedBy[T metav1.Object](w *world, resource string, owner types.UID) []T {
	var out []T
	for _, o := range w.objects[resource] {
		if ref := metav1.GetControllerOf(o); ref != nil && ref.UID == owner {
			if t, ok := o.(T); ok {
				out = append(out, t)
			}
		}
	}
	slices.SortFunc(out, func(a, b T) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out
}

const (
	maxEventsPerObject = 12
	maxEventObjects    = 2000
)

// eventLog keeps the last events of each object, within bounds.
type eventLog struct {
	byUID map[types.UID][]*corev1.Event
	order []types.UID            // oldest object first
	fresh map[types.UID]struct{} // events that came, or came again, while we watched
}

func (l *eventLog) add(e *corev1.Event, fresh bool) {
	e.ManagedFields = nil
	uid := e.InvolvedObject.UID
	kept, known := l.byUID[uid]
	if !known {
		if len(l.order) == maxEventObjects {
			for _, old := range l.byUID[l.order[0]] {
				delete(l.fresh, old.UID)
			}
			delete(l.byUID, l.order[0])
			l.order = l.order[1:]
		}
		l.order = append(l.order, uid)
	}
	kept = slices.DeleteFunc(slices.Clone(kept), func(o *corev1.Event) bool { return o.Name == e.Name })
	kept = append(kept, e)
	slices.SortStableFunc(kept, func(a, b *corev1.Event) int { return eventTime(a).Compare(eventTime(b)) })
	if extra := len(kept) - maxEventsPerObject; extra > 0 {
		for _, old := range kept[:extra] {
			delete(l.fresh, old.UID)
		}
		kept = kept[extra:]
	}
	l.byUID[uid] = kept
	if fresh {
		if l.fresh == nil {
			l.fresh = map[types.UID]struct{}{}
		}
		l.fresh[e.UID] = struct{}{}
	}
}

// of returns the events about an object, oldest first.
func (l *eventLog) of(uid types.UID) []*corev1.Event { return l.byUID[uid] }

// last returns the latest event about uid with one of the reasons.
func (l *eventLog) last(uid types.UID, reasons ...string) *corev1.Event {
	events := l.byUID[uid]
	for i := len(events) - 1; i >= 0; i-- {
		if slices.Contains(reasons, events[i].Reason) {
			return events[i]
		}
	}
	return nil
}

// isFresh reports whether e came, or came again, while the verification
// watched: an older one may be about a revision before.
func (l *eventLog) isFresh(e *corev1.Event) bool {
	_, fresh := l.fresh[e.UID]
	return fresh
}

// eventTime returns when e was last seen.
func eventTime(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil && !e.Series.LastObservedTime.IsZero():
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	}
	return e.CreationTimestamp.Time
}
