package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Lock is held until it is released or lost. It is safe for concurrent use.
type Lock struct {
	client Client
	o      Options

	ctx    context.Context //nolint:containedctx // It tells that the lock was lost.
	lose   context.CancelCauseFunc
	stop   context.CancelFunc
	done   chan struct{}
	latest *coordinationv1.Lease // the renewer's, until done
}

// hold renews taken until the lock is released or lost. It was asked for at asked,
// from when on it is valid at the least.
func hold(client Client, o Options, taken *coordinationv1.Lease, asked time.Time) *Lock {
	l := &Lock{client: client, o: o, done: make(chan struct{}), latest: taken}
	l.ctx, l.lose = context.WithCancelCause(context.Background())
	renewing, stop := context.WithCancel(context.Background())
	l.stop = stop
	go l.renew(renewing, asked)
	return l
}

// Context ends, with a cause that is [ErrLost], before somebody else can have
// taken the lock over. It doesn't end when the lock is released.
func (l *Lock) Context() context.Context { return l.ctx }

// Release gives the lock back. It can be called again.
func (l *Lock) Release(ctx context.Context) error {
	l.Abandon()
	select {
	case <-l.ctx.Done():
		return nil // It is somebody else's already, or nobody's.
	default:
	}
	uid, version := l.latest.UID, l.latest.ResourceVersion
	for {
		err := l.client.Delete(ctx, l.o.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}})
		switch {
		case err == nil || apierrors.IsNotFound(err):
			return nil
		case !apierrors.IsConflict(err):
			return fmt.Errorf("release the lock: %w", err)
		}
		// A renewal that was on its way, or somebody's annotation.
		current, err := l.client.Get(ctx, l.o.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && (current.UID != uid || holderOf(current) != l.o.Holder):
			return nil
		case err != nil:
			return fmt.Errorf("release the lock: %w", err)
		}
		version = current.ResourceVersion
	}
}

// Held reports whether the lock is renewed, and so still the holder's.
func (l *Lock) Held() bool {
	select {
	case <-l.done:
		return false
	default:
		return l.ctx.Err() == nil
	}
}

// Abandon stops renewing the lock and leaves it to expire, or to go away with its
// namespace.
func (l *Lock) Abandon() {
	l.stop()
	<-l.done
}

func (l *Lock) renew(ctx context.Context, renewed time.Time) {
	defer close(l.done)
	const renewals = 3 // in the time that the lock is valid
	ticker := time.NewTicker(l.o.TTL / renewals)
	defer ticker.Stop()
	why := errors.New("no answer")
	for {
		// The last third is for what is on its way to the API server to end there.
		expired := time.NewTimer(time.Until(renewed.Add(l.o.TTL * (renewals - 1) / renewals)))
		select {
		case <-ctx.Done():
			expired.Stop()
			return
		case <-expired.C:
			l.lose(fmt.Errorf("%w: it could not be renewed for %s: %w", ErrLost, time.Since(renewed).Round(time.Millisecond), why))
			return
		case <-ticker.C:
			expired.Stop()
		}
		asked := time.Now()
		attempt, cancel := context.WithDeadline(ctx, renewed.Add(l.o.TTL*(renewals-1)/renewals))
		lost, err := l.renewOnce(attempt)
		inTime := attempt.Err() == nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case lost != nil:
			l.lose(lost)
			return
		case err == nil:
			renewed = asked
		case inTime:
			why = err
		}
	}
}

// renewOnce returns why the lock is lost, or why it could not be renewed this time.
func (l *Lock) renewOnce(ctx context.Context) (lost, _ error) {
	for {
		next := l.latest.DeepCopy()
		now := metav1.NowMicro()
		next.Spec.RenewTime = &now
		updated, err := l.client.Update(ctx, next, metav1.UpdateOptions{})
		switch {
		case err == nil:
			l.latest = updated
			return nil, nil
		case apierrors.IsNotFound(err):
			return errDeleted, nil
		case !apierrors.IsConflict(err):
			return nil, err
		}
		// Somebody wrote to it, and may have left it ours.
		current, err := l.client.Get(ctx, l.o.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return errDeleted, nil
		case err != nil:
			return nil, err
		case current.UID != l.latest.UID || holderOf(current) != l.o.Holder:
			return fmt.Errorf("%w: %s has it now", ErrLost, holderOf(current)), nil
		}
		l.latest = current
	}
}

var errDeleted = fmt.Errorf("%w: somebody deleted it", ErrLost)
