package rollout

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	maxEventsPerObject = 12
	maxEventObjects    = 2000
)

// eventLog keeps the last events of each object, within bounds. A slice in it is
// replaced, never changed.
type eventLog struct {
	byUID map[types.UID][]*corev1.Event
	order []types.UID // what has heard nothing for the longest time first
	// arrived numbers the events that came, or came again, by a watch; an event
	// that was there before has no number.
	arrived map[types.UID]int
	number  int
}

func (l *eventLog) add(e *corev1.Event, fresh bool) {
	uid := e.InvolvedObject.UID
	kept, known := l.byUID[uid]
	switch {
	case known:
		l.order = slices.DeleteFunc(l.order, func(u types.UID) bool { return u == uid })
	case len(l.order) == maxEventObjects:
		l.forget(l.byUID[l.order[0]])
		delete(l.byUID, l.order[0])
		l.order = l.order[1:]
	}
	l.order = append(l.order, uid)
	kept = slices.DeleteFunc(slices.Clone(kept), func(o *corev1.Event) bool { return o.Name == e.Name })
	kept = append(kept, e)
	slices.SortStableFunc(kept, func(a, b *corev1.Event) int { return eventTime(a).Compare(eventTime(b)) })
	if extra := len(kept) - maxEventsPerObject; extra > 0 {
		l.forget(kept[:extra])
		kept = kept[extra:]
	}
	l.byUID[uid] = kept
	if fresh {
		if l.arrived == nil {
			l.arrived = map[types.UID]int{}
		}
		l.number++
		l.arrived[e.UID] = l.number
	}
}

func (l *eventLog) forget(events []*corev1.Event) {
	for _, e := range events {
		delete(l.arrived, e.UID)
	}
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
