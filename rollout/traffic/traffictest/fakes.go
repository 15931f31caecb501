package traffictest

import (
	"context"
	"fmt"
	"sync"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
)

// Router is a fake with a weight in memory. Its zero value sends everything to the
// stable release and is ready to use.
type Router struct {
	// Lag is how many observations a shift takes to settle.
	Lag int

	mu     sync.Mutex
	weight int
	left   int
}

// Weight is the canary's.
func (r *Router) Weight() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.weight
}

// Set changes the weight as somebody else would.
func (r *Router) Set(weight int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.weight = weight
}

func (r *Router) functions() traffic.RouterFuncs {
	return traffic.RouterFuncs{
		Set: func(_ context.Context, weight int) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if weight != r.weight {
				r.weight, r.left = weight, r.Lag
			}
			return nil
		},
		Get: func(context.Context) (traffic.Split, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			s := traffic.Split{Canary: r.weight, Settled: r.left <= 0, Detail: "in memory"}
			r.left--
			return s, nil
		},
	}
}

// Nearest implements [traffic.Router].
func (r *Router) Nearest(ctx context.Context, weight int) (int, error) {
	return r.functions().Nearest(ctx, weight)
}

// Shift implements [traffic.Router].
func (r *Router) Shift(ctx context.Context, from, to int) error {
	return r.functions().Shift(ctx, from, to)
}

// Observe implements [traffic.Router].
func (r *Router) Observe(ctx context.Context) (traffic.Split, error) {
	return r.functions().Observe(ctx)
}

// State is a fake that keeps a record in memory. Its zero value has none and is
// ready to use.
type State struct {
	mu      sync.Mutex
	record  *traffic.Record
	version int
}

// Load implements [traffic.State].
func (s *State) Load(ctx context.Context) (*traffic.Record, string, error) {
	if ctx.Err() != nil {
		return nil, "", context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record == nil {
		return nil, "", nil
	}
	record := *s.record
	return &record, fmt.Sprint(s.version), nil
}

// Save implements [traffic.State].
func (s *State) Save(ctx context.Context, record traffic.Record, version string) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if version != s.current() {
		return "", traffic.ErrStateChanged
	}
	s.record, s.version = &record, s.version+1
	return s.current(), nil
}

// Delete implements [traffic.State].
func (s *State) Delete(ctx context.Context, version string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record != nil && version != s.current() {
		return traffic.ErrStateChanged
	}
	s.record = nil
	return nil
}

func (s *State) current() string {
	if s.record == nil {
		return ""
	}
	return fmt.Sprint(s.version)
}

var (
	_ traffic.Router = (*Router)(nil)
	_ traffic.State  = (*State)(nil)
)
