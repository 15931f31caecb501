package traffic

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// weightedRoute is a route of any kind whose rules share requests out among backends by
// weight: all there is to a router but what its dialect knows.
type weightedRoute struct {
	routes      kind
	name        string
	allowOthers bool
	dialect     dialect
}

// dialect is how one kind of route says what it does.
type dialect interface {
	// rules returns the route's rules.
	rules(o *unstructured.Unstructured) (routeRules, error)
	// others says what else an object sends to the stable release or the canary, by
	// other means than the rules; "" for nothing.
	others(o *unstructured.Unstructured) string
	// unsettled says what is known to keep a route, with or without a share for the
	// canary, from having taken effect; "" for nothing.
	unsettled(o *unstructured.Unstructured, canary bool) string
	// toStable is what makes a backend of the canary one of the stable release; path
	// is the backend's in the object.
	toStable(path []any) []operation
	// stable is what the stable release is called, remedy what a rule that sends to it
	// needs.
	stable() string
	remedy() string
}

// Nearest returns weight itself, if the route can be divided.
func (r *weightedRoute) Nearest(ctx context.Context, weight int) (int, error) {
	if err := checkWeight(weight); err != nil {
		return 0, err
	}
	o, rules, err := r.read(ctx)
	if err == nil {
		err = r.checkDivided(o, rules)
	}
	if err != nil {
		return 0, err
	}
	return weight, r.checkOthers(ctx)
}

// Shift sets the weights. To take all traffic from the canary, whatever it was, it
// also mends rules that somebody else has changed.
func (r *weightedRoute) Shift(ctx context.Context, from, to int) error {
	if err := checkWeight(to); err != nil {
		return err
	}
	o, rules, err := r.read(ctx)
	if err != nil {
		return err
	}
	if to > 0 || from != Any {
		if err := r.checkDivided(o, rules); err != nil {
			return err
		}
	}
	if err := rules.check(from, to); err != nil {
		return err
	}
	patch := rules.patch(to, r.dialect.toStable)
	if len(patch) > 0 {
		if o, err = r.routes.patch(ctx, o, patch); err != nil {
			return err
		}
	}
	if to == 0 {
		r.routes.disown(ctx, o)
	}
	return nil
}

// Observe reads the weights, and what the controllers say of the route.
func (r *weightedRoute) Observe(ctx context.Context) (Split, error) {
	o, rules, err := r.read(ctx)
	if err != nil {
		return Split{}, err
	}
	s := Split{Canary: rules.share(), Uneven: !rules.even(), Settled: true, Detail: r.routes.object(r.name).String() + ": " + rules.String()}
	if problem := r.dialect.unsettled(o, s.Canary > 0); problem != "" {
		s.Settled = false
		s.Detail += "; " + problem
	}
	if s.Uneven {
		s.Settled = false
		s.Detail += "; the rules differ"
	}
	if len(rules.patch(0, r.dialect.toStable)) > 0 {
		err = r.checkDivided(o, rules)
	}
	return s, err
}

// read returns the route, and those of its rules that send to either release.
func (r *weightedRoute) read(ctx context.Context) (*unstructured.Unstructured, routeRules, error) {
	o, err := r.routes.get(ctx, r.name)
	if err != nil {
		return nil, nil, err
	}
	all, err := r.dialect.rules(o)
	if err != nil {
		return nil, nil, r.odd(err.Error(), "")
	}
	concerned := all.concerned()
	if len(concerned) == 0 {
		return nil, nil, r.odd("no rule sends to "+r.dialect.stable(), "name what the route sends to")
	}
	return o, concerned, nil
}

// checkDivided refuses a route that can't give the canary a share of all requests.
func (r *weightedRoute) checkDivided(o *unstructured.Unstructured, rules routeRules) error {
	for _, rule := range rules {
		if problem := rule.odd(); problem != "" {
			return r.odd(rule.name+" "+problem, r.dialect.remedy())
		}
	}
	if other := r.dialect.others(o); other != "" && !r.allowOthers {
		return r.odd(other, "set AllowOthers if that is not the canary's")
	}
	return nil
}

// checkOthers refuses a second route to either release, of whose requests the
// canary would get none.
func (r *weightedRoute) checkOthers(ctx context.Context) error {
	if r.allowOthers {
		return nil
	}
	all, err := r.routes.list(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		o := &all[i]
		rules, err := r.dialect.rules(o)
		if o.GetName() == r.name || err != nil {
			continue
		}
		if len(rules.concerned()) > 0 || r.dialect.others(o) != "" {
			return r.odd(fmt.Sprintf("%s %s sends to %s or its canary as well", o.GetKind(), o.GetName(), r.dialect.stable()),
				"join the two, or set AllowOthers if its requests are not the canary's")
		}
	}
	return nil
}

func (r *weightedRoute) odd(problem, remedy string) error {
	return &RouteError{Object: r.routes.object(r.name), Problem: problem, Remedy: remedy}
}

// decodeSpec reads what is wanted of an object's spec.
func decodeSpec[T any](o *unstructured.Unstructured) (T, error) {
	var out struct {
		Spec T `json:"spec"`
	}
	if err := convert(o.Object, &out); err != nil {
		return out.Spec, fmt.Errorf("its spec can't be read: %w", err)
	}
	return out.Spec, nil
}

// convert goes by way of JSON, which is stricter than the converter of runtime.
func convert(from map[string]any, to any) error {
	data, err := json.Marshal(runtime.DeepCopyJSON(from))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}
