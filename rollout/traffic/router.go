package traffic

import (
	"context"
	"fmt"

	"github.com/fairlead-dev/fairlead/stages"
)

// Any is the weight that Shift starts from when it doesn't matter what it is.
const Any = -1

// Router divides a service's traffic between a stable release and its canary.
// Weights are the canary's share in percent. Package traffictest holds the
// conformance suite. A router is used by one goroutine at a time.
type Router interface {
	// Nearest returns the weight closest to weight that Shift can bring about: 0 for
	// 0, 100 for 100, and something from 1 to 99 for what is between, where the
	// router can divide at all. It changes nothing. It looks at whatever Shift would
	// change, and returns a [*RouteError] if that can't be divided, so that a canary
	// is refused before anything has happened.
	Nearest(ctx context.Context, weight int) (int, error)
	// Shift asks the cluster for the weight to, which Nearest returned. Unless from
	// is [Any], it returns a [*ChangedError] and changes nothing if the weight is
	// neither from nor to. From Any to 0 it also mends what can't be divided, as an
	// abort must get all traffic back. It can be repeated. What it has asked for may
	// take time; only Observe tells.
	Shift(ctx context.Context, from, to int) error
	// Observe reads how traffic is divided, from the live objects. It returns a
	// [*RouteError], and what it could read all the same, if the canary gets traffic
	// by objects that can't be divided.
	Observe(ctx context.Context) (Split, error)
}

// Split is how the cluster divides traffic.
type Split struct {
	// Canary is the canary's share in percent, as the objects ask for it. A share
	// between 0 and 1 or between 99 and 100 is never rounded to 0 or 100.
	Canary int `json:"canary"`
	// Uneven says that the objects give the canary more in one place than in another,
	// and Canary is the most. A router never makes it so: somebody else has.
	Uneven bool `json:"uneven,omitempty"`
	// Settled says that, as far as the cluster tells, what the objects ask for has
	// taken effect. A canary of weight 0 that is settled gets no new request.
	Settled bool `json:"settled"`
	// Isolated says that requests are kept from the canary, as an [Isolator] does.
	Isolated bool `json:"isolated,omitempty"`
	// Detail is what was seen, for people.
	Detail string `json:"detail,omitempty"`
}

func (s Split) String() string {
	text := fmt.Sprintf("%d%% to the canary", s.Canary)
	if !s.Settled {
		text += ", not settled"
	}
	if s.Detail != "" {
		text += " (" + s.Detail + ")"
	}
	return text
}

// RouteError is an object that traffic can't be divided with, as it is. Nothing
// was changed. It matches [stages.ErrInvalid].
type RouteError struct {
	// Object is the one that is concerned.
	Object stages.Object
	// Problem says what is wrong with it, Remedy what to do.
	Problem, Remedy string
	// Missing says that the object doesn't exist.
	Missing bool
}

func (e *RouteError) Error() string {
	text := e.Object.String() + ": " + e.Problem
	if e.Remedy != "" {
		text += " (" + e.Remedy + ")"
	}
	return text
}

// Unwrap returns [stages.ErrInvalid].
func (e *RouteError) Unwrap() error { return stages.ErrInvalid }

// ChangedError is a weight that somebody else has set.
type ChangedError struct {
	// Want are the weights that were expected, Got is the one found.
	Want []int
	Got  int
	// Detail is what was seen.
	Detail string
}

func (e *ChangedError) Error() string {
	text := fmt.Sprintf("the canary's weight is %d instead of %d: somebody else has changed it", e.Got, e.Want[0])
	if e.Got == e.Want[0] {
		text = fmt.Sprintf("the canary's weight is %d in one place and another elsewhere: somebody else has changed it", e.Got)
	}
	if e.Detail != "" {
		text += " (" + e.Detail + ")"
	}
	return text
}

// RouterFuncs lets functions serve as a [Router], such as ones that deploy a
// release again with other values. Weights are exact unless Steps says otherwise.
type RouterFuncs struct {
	// Set asks for a weight, required. It can be repeated.
	Set func(ctx context.Context, weight int) error
	// Get tells how traffic is divided, from the cluster and not from memory,
	// required.
	Get func(ctx context.Context) (Split, error)
	// Weights are those that Set takes beside 0 and 100; nil for all.
	Weights []int
}

var _ Router = RouterFuncs{}

// Nearest returns the closest of Weights.
func (r RouterFuncs) Nearest(ctx context.Context, weight int) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err := checkWeight(weight); err != nil || weight == 0 || weight == 100 || r.Weights == nil {
		return weight, err
	}
	best := 0
	for _, w := range r.Weights {
		if w > 0 && w < 100 && (best == 0 || abs(w-weight) < abs(best-weight)) {
			best = w
		}
	}
	if best == 0 {
		return 100, nil
	}
	return best, nil
}

// Shift calls Set, after it has compared what Get returns with from.
func (r RouterFuncs) Shift(ctx context.Context, from, to int) error {
	if err := checkWeight(to); err != nil {
		return err
	}
	now, err := r.Observe(ctx)
	if err != nil && from != Any {
		return err
	}
	if err == nil {
		if err := expect(from, to, now); err != nil {
			return err
		}
	}
	return r.Set(ctx, to)
}

// Observe calls Get.
func (r RouterFuncs) Observe(ctx context.Context) (Split, error) {
	if ctx.Err() != nil {
		return Split{}, context.Cause(ctx)
	}
	return r.Get(ctx)
}

func checkWeight(weight int) error {
	if weight < 0 || weight > 100 {
		return fmt.Errorf("%w: a weight is from 0 to 100 percent, not %d", stages.ErrInvalid, weight)
	}
	return nil
}

// expect refuses a shift from a weight that is not the one it was decided on.
func expect(from, to int, now Split) error {
	if from == Any || now.Canary == from || now.Canary == to {
		return nil
	}
	return &ChangedError{Want: []int{from, to}, Got: now.Canary, Detail: now.Detail}
}

func abs(n int) int { return max(n, -n) }

// share returns canary's part of the sum in percent, 0 and 100 only where exact.
func share(canary, sum int64) int {
	switch {
	case canary <= 0:
		return 0
	case canary >= sum:
		return 100
	}
	return int(min(99, max(1, (canary*100+sum/2)/sum)))
}
