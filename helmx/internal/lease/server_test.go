package lease_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

var leases = coordinationv1.Resource("leases")

// server is as much of an API server as one Lease needs.
type server struct {
	mu       sync.Mutex
	lease    *coordinationv1.Lease
	version  int
	watchers map[*watch.RaceFreeFakeWatcher]bool
	// watchTime is how long watches live; 0 for as long as they are wanted.
	watchTime time.Duration
	// unreachable are errors by holder.
	unreachable map[string]error
}

func newServer() *server {
	return &server{watchers: map[*watch.RaceFreeFakeWatcher]bool{}, unreachable: map[string]error{}}
}

// current returns the lease, or nil.
func (s *server) current() *coordinationv1.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease.DeepCopy()
}

func (s *server) holder() string { return *s.current().Spec.HolderIdentity }

// edit changes the lease as somebody else would.
func (s *server) edit(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change(f)
}

func (s *server) refuse(holder string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unreachable[holder] = err
}

func (s *server) change(f func()) {
	f()
	if s.lease == nil {
		return
	}
	s.version++
	s.lease.ResourceVersion = strconv.Itoa(s.version)
	for w := range s.watchers {
		w.Modify(s.lease.DeepCopy())
	}
}

func (s *server) put(l *coordinationv1.Lease) *coordinationv1.Lease {
	s.change(func() { s.lease = l.DeepCopy() })
	return s.lease.DeepCopy()
}

func (s *server) Create(_ context.Context, l *coordinationv1.Lease, _ metav1.CreateOptions) (*coordinationv1.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.unreachable[*l.Spec.HolderIdentity]; err != nil {
		return nil, err
	}
	if s.lease != nil {
		return nil, apierrors.NewAlreadyExists(leases, l.Name)
	}
	l = l.DeepCopy()
	l.UID = types.UID("uid-" + strconv.Itoa(s.version))
	return s.put(l), nil
}

func (s *server) Update(_ context.Context, l *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.unreachable[*l.Spec.HolderIdentity]; err != nil {
		return nil, err
	}
	switch {
	case s.lease == nil:
		return nil, apierrors.NewNotFound(leases, l.Name)
	case s.lease.ResourceVersion != l.ResourceVersion || s.lease.UID != l.UID:
		return nil, apierrors.NewConflict(leases, l.Name, errors.New("it has changed"))
	}
	return s.put(l), nil
}

func (s *server) Delete(_ context.Context, name string, o metav1.DeleteOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.lease == nil:
		return apierrors.NewNotFound(leases, name)
	case *o.Preconditions.ResourceVersion != s.lease.ResourceVersion || *o.Preconditions.UID != s.lease.UID:
		return apierrors.NewConflict(leases, name, errors.New("it has changed"))
	}
	gone := s.lease
	s.lease = nil
	for w := range s.watchers {
		w.Delete(gone)
	}
	return nil
}

func (s *server) Get(_ context.Context, name string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		return nil, apierrors.NewNotFound(leases, name)
	}
	return s.lease.DeepCopy(), nil
}

func (s *server) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := watch.NewRaceFreeFake()
	if s.lease == nil || s.lease.ResourceVersion != o.ResourceVersion {
		w.Modify(&coordinationv1.Lease{})
	}
	s.watchers[w] = true
	end := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
		w.Stop()
	}
	context.AfterFunc(ctx, end)
	if s.watchTime > 0 {
		time.AfterFunc(s.watchTime, end)
	}
	return w, nil
}
