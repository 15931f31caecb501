package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/fairlead-dev/fairlead/helmx/internal/watches"
)

// Client is what is used of a typed client for Leases.
type Client interface {
	Create(ctx context.Context, lease *coordinationv1.Lease, opts metav1.CreateOptions) (*coordinationv1.Lease, error)
	Update(ctx context.Context, lease *coordinationv1.Lease, opts metav1.UpdateOptions) (*coordinationv1.Lease, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*coordinationv1.Lease, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

// Options say what to lock and as whom. All but Wait and Annotations are required.
type Options struct {
	// Name is the Lease's.
	Name string
	// Holder is unique to this holder, and tells people who it is.
	Holder string
	// TTL is for how long the lock is valid without being renewed, in whole seconds.
	TTL time.Duration
	// Wait is for how long to wait for a holder that lives.
	Wait time.Duration
	// Annotations are written to the Lease.
	Annotations map[string]string
	// Waiting, where set, is told whom the lock is waited for.
	Waiting func(*HeldError)
}

// HeldError is a lock that somebody holds who is alive.
type HeldError struct {
	// Holder and Annotations are the holder's.
	Holder      string
	Annotations map[string]string
	// Since is when it took the lock, Renewed when it last renewed it, by its clock.
	Since, Renewed time.Time
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("held by %s since %s", e.Holder, e.Since.UTC().Format(time.RFC3339))
}

// ErrLost is the cause of a lock's context once the lock may be somebody else's.
var ErrLost = errors.New("the lock was lost")

// Acquire takes the lock. It refuses with a [*HeldError] once the holder is seen
// to live and Wait is over, and takes over from a holder that is seen to be dead,
// which takes as long as that holder's TTL.
func Acquire(ctx context.Context, client Client, o Options) (*Lock, error) {
	a := acquirer{client: client, Options: o, patience: time.Now().Add(o.Wait)}
	for {
		taken, err := a.try(ctx)
		if err != nil {
			return nil, err
		}
		if taken != nil {
			return hold(client, o, taken, a.asked), nil
		}
	}
}

// acquirer remembers what it has seen between tries.
type acquirer struct {
	client Client
	Options

	patience time.Time // when it ends
	seen     version
	since    time.Time // when seen was first seen
	alive    bool      // whether the holder was seen to renew
	asked    time.Time // when the lock was last asked for
}

// version tells one state of a Lease from all others.
type version struct {
	uid      types.UID
	resource string
}

func versionOf(l *coordinationv1.Lease) version { return version{l.UID, l.ResourceVersion} }

// try returns the Lease if it was taken, or nil to try again.
func (a *acquirer) try(ctx context.Context) (*coordinationv1.Lease, error) {
	current, err := a.client.Get(ctx, a.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		taken, err := a.client.Create(ctx, a.mine(nil), metav1.CreateOptions{})
		return retryable(taken, err, apierrors.IsAlreadyExists)
	}
	if err != nil {
		return nil, err
	}
	if holderOf(current) != "" && holderOf(current) != a.Holder {
		dead, err := a.observe(ctx, current)
		if !dead || err != nil {
			return nil, err
		}
	}
	taken, err := a.client.Update(ctx, a.mine(current), metav1.UpdateOptions{})
	return retryable(taken, err, apierrors.IsConflict, apierrors.IsNotFound)
}

// retryable turns an error that says that somebody was quicker into a nil Lease.
func retryable(l *coordinationv1.Lease, err error, quicker ...func(error) bool) (*coordinationv1.Lease, error) {
	for _, is := range quicker {
		if is(err) {
			return nil, nil //nolint:nilnil // Not taken, and no error.
		}
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// mine returns the Lease as it is to be written now.
func (a *acquirer) mine(current *coordinationv1.Lease) *coordinationv1.Lease {
	a.asked = time.Now()
	seconds, now := int32(a.TTL/time.Second), metav1.NewMicroTime(a.asked)
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: a.Name}}
	transitions := int32(0)
	if current != nil {
		l.ObjectMeta = *current.ObjectMeta.DeepCopy()
		if t := current.Spec.LeaseTransitions; t != nil {
			transitions = *t + 1
		}
	}
	l.Annotations = maps.Clone(a.Annotations)
	l.Labels = map[string]string{"app.kubernetes.io/managed-by": "fairlead"}
	l.Spec = coordinationv1.LeaseSpec{
		HolderIdentity: &a.Holder, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now, LeaseTransitions: &transitions,
	}
	return l
}

// observe watches a Lease that somebody holds. It returns true once the holder is
// dead, and false once the Lease has changed.
func (a *acquirer) observe(ctx context.Context, current *coordinationv1.Lease) (dead bool, _ error) {
	if v := versionOf(current); v != a.seen {
		a.alive = a.seen.uid == v.uid // It changed before our eyes.
		a.seen, a.since = v, time.Now()
	}
	if a.alive && !time.Now().Before(a.patience) {
		return false, heldBy(current)
	}
	if a.Waiting != nil {
		a.Waiting(heldBy(current))
	}
	end := a.since.Add(validity(current, a.TTL))
	if !time.Now().Before(end) {
		return true, nil
	}
	if a.alive && a.patience.Before(end) {
		end = a.patience // It may be over by now, which says nothing of the holder.
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	began := time.Now()
	w, err := a.client.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector("metadata.name", a.Name).String(),
		ResourceVersion: current.ResourceVersion,
	})
	if err != nil {
		return a.outcome(ctx, current, err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return a.outcome(ctx, current, nil)
		case event, open := <-w.ResultChan():
			if !open && ctx.Err() != nil {
				return a.outcome(ctx, current, nil)
			}
			if !open || event.Type == watch.Error {
				watches.Breathe(ctx, began)
				return false, nil
			}
			if event.Type != watch.Bookmark {
				return false, nil
			}
		}
	}
}

// outcome says what the end of a watch means.
func (a *acquirer) outcome(ctx context.Context, current *coordinationv1.Lease, err error) (dead bool, _ error) {
	switch {
	case !errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		if err == nil {
			err = context.Cause(ctx)
		}
		return false, err
	case time.Now().Before(a.since.Add(validity(current, a.TTL))):
		return false, heldBy(current) // Alive, and patience has ended.
	}
	return true, nil
}

func heldBy(l *coordinationv1.Lease) *HeldError {
	e := &HeldError{Holder: holderOf(l), Annotations: l.Annotations}
	if t := l.Spec.AcquireTime; t != nil {
		e.Since = t.Time
	}
	if t := l.Spec.RenewTime; t != nil {
		e.Renewed = t.Time
	}
	return e
}

func holderOf(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// validity is for how long a Lease is valid without being renewed.
func validity(l *coordinationv1.Lease, otherwise time.Duration) time.Duration {
	if s := l.Spec.LeaseDurationSeconds; s != nil && *s > 0 {
		return time.Duration(*s) * time.Second
	}
	return otherwise
}
