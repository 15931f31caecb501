package rollout

import (
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// feedStatus is how much what a feed keeps can be relied on.
type feedStatus struct {
	synced  bool      // has been in touch at least once
	watched bool      // has been let watch at least once
	err     error     // why it is out of touch; nil while it is in touch
	denied  bool      // the caller may not look
	since   time.Time // when err came
}

// barred reports that the caller has no right to look, and never had one: to list
// without a watch is not enough. A right that is lost on the way may come back.
func (s feedStatus) barred() bool { return s.denied && !s.watched }

// store is what a feed has been told, for any number of readers. The objects in
// it are never changed.
type store struct {
	mu      sync.RWMutex
	state   feedStatus
	objects map[types.NamespacedName]metav1.Object
	owned   map[types.UID]map[types.NamespacedName]metav1.Object // by controller
	events  eventLog
	pulls   pullCounts
	ended   endedJobs
	readers map[*world]struct{}
}

func newStore() store {
	return store{
		objects: map[types.NamespacedName]metav1.Object{},
		owned:   map[types.UID]map[types.NamespacedName]metav1.Object{},
		events:  eventLog{byUID: map[types.UID][]*corev1.Event{}},
		pulls:   pullCounts{},
		ended:   endedJobs{jobs: map[types.NamespacedName]endedJob{}},
		readers: map[*world]struct{}{},
	}
}

func nameOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func (s *store) enrol(w *world) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers[w] = struct{}{}
}

func (s *store) dismiss(w *world) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readers, w)
}

func (s *store) status() feedStatus {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state
}

// lost notes that the feed is out of touch.
func (s *store) lost(err error, denied bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.err, s.state.denied, s.state.since = err, denied, time.Now()
	s.wakeAll()
}

// opened notes that the feed has a watch.
func (s *store) opened() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.watched = true
}

// replace takes in all objects there are at a version: the feed is in touch again.
// What was taken in of a later version stays.
func (s *store) replace(objects []metav1.Object, version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = feedStatus{synced: true, watched: s.state.watched}
	old := s.objects
	s.objects = make(map[types.NamespacedName]metav1.Object, len(objects))
	s.owned = map[types.UID]map[types.NamespacedName]metav1.Object{}
	for _, o := range objects {
		if e, ok := o.(*corev1.Event); ok {
			s.events.add(e, false)
			continue
		}
		before := old[nameOf(o)]
		delete(old, nameOf(o))
		if before != nil && newer(before.GetResourceVersion(), o.GetResourceVersion()) {
			o = before
		}
		s.pulls.count(before, o)
		s.insert(o)
	}
	for _, o := range old {
		if newer(o.GetResourceVersion(), version) {
			s.insert(o)
		} else {
			s.ended.note(o)
		}
	}
	s.pulls.keep(s.objects)
	s.wakeAll()
}

// put takes in an object that is new or has changed, and wakes who cares.
func (s *store) put(o metav1.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := o.(*corev1.Event); ok {
		s.events.add(e, true)
		s.wake(topic{uid: e.InvolvedObject.UID})
		return
	}
	old := s.objects[nameOf(o)]
	if old != nil && newer(old.GetResourceVersion(), o.GetResourceVersion()) {
		return
	}
	s.pulls.count(old, o)
	if old != nil {
		s.drop(old)
	}
	s.insert(o)
	s.wakeAbout(o)
}

// remove takes an object out.
func (s *store) remove(o metav1.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := o.(*corev1.Event); ok {
		return // it has expired; what it says remains true
	}
	if old := s.objects[nameOf(o)]; old != nil {
		if old.GetUID() != o.GetUID() && newer(old.GetResourceVersion(), o.GetResourceVersion()) {
			return // another of the same name is there by now
		}
		s.drop(old)
	}
	delete(s.pulls, o.GetUID())
	s.ended.note(o)
	s.wakeAbout(o)
}

func (s *store) insert(o metav1.Object) {
	s.objects[nameOf(o)] = o
	delete(s.ended.jobs, nameOf(o))
	if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
		group := s.owned[ref.UID]
		if group == nil {
			group = map[types.NamespacedName]metav1.Object{}
			s.owned[ref.UID] = group
		}
		group[nameOf(o)] = o
	}
}

// newer reports whether version a is later than b, where that can be told. The API
// server's versions of a resource are numbers that grow.
func newer(a, b string) bool {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	return errX == nil && errY == nil && x > y
}

func (s *store) drop(o metav1.Object) {
	delete(s.objects, nameOf(o))
	if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
		delete(s.owned[ref.UID], nameOf(o))
		if len(s.owned[ref.UID]) == 0 {
			delete(s.owned, ref.UID)
		}
	}
}

func (s *store) wakeAll() {
	for w := range s.readers {
		w.nudge()
	}
}

func (s *store) wakeAbout(o metav1.Object) {
	about := []topic{{name: nameOf(o)}, {name: types.NamespacedName{Namespace: o.GetNamespace()}}}
	if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
		about = append(about, topic{uid: ref.UID})
	}
	s.wake(about...)
}

func (s *store) wake(about ...topic) {
	for w := range s.readers {
		if w.cares(s, about) {
			w.nudge()
		}
	}
}

// pullCounts counts the attempts at pulling an image that failed, by pod and
// container.
type pullCounts map[types.UID]map[string]int

// count compares two states of a pod: the kubelet reports each failed attempt as
// ErrImagePull, and ImagePullBackOff in between.
func (p pullCounts) count(before, after metav1.Object) {
	pod, ok := after.(*corev1.Pod)
	if !ok {
		return
	}
	was := map[string]string{}
	if before, ok := before.(*corev1.Pod); ok && before.UID == pod.UID {
		for _, s := range allStatuses(before) {
			if s.State.Waiting != nil {
				was[s.Name] = s.State.Waiting.Reason
			}
		}
	}
	for _, s := range allStatuses(pod) {
		switch {
		case s.State.Running != nil:
			delete(p[pod.UID], s.Name)
		case s.State.Waiting == nil:
		case s.State.Waiting.Reason == "ErrImagePull" && was[s.Name] != "ErrImagePull",
			s.State.Waiting.Reason == "ImagePullBackOff" && p[pod.UID][s.Name] == 0:
			if p[pod.UID] == nil {
				p[pod.UID] = map[string]int{}
			}
			p[pod.UID][s.Name]++
		}
	}
}

// keep forgets pods that are gone.
func (p pullCounts) keep(objects map[types.NamespacedName]metav1.Object) {
	if len(p) == 0 {
		return
	}
	there := make(map[types.UID]bool, len(objects))
	for _, o := range objects {
		there[o.GetUID()] = true
	}
	for uid := range p {
		if !there[uid] {
			delete(p, uid)
		}
	}
}
