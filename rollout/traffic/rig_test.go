package traffic_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
)

// rig is a router on fakes of the objects that it changes, with somebody else's hand
// on them. Everything of it happens one after the other.
type rig struct {
	t      *testing.T
	router traffic.Router
	// divided reads the canary's weight off the objects, without the router.
	divided func() (int, error)
	// edits are what somebody else may do to the objects while the canary has traffic.
	edits map[string]func(rng *rand.Rand) error
	// pristine has the objects as they were before.
	pristine func() error
	// settle does what the cluster's controllers do, install what the canary's release
	// brings along or takes with it; nil for nothing.
	settle  func() error
	install func(present bool) error

	mu sync.Mutex
	// routing is that requests are the router's; fault is asked about each of them,
	// before and after its effect.
	routing bool
	fault   func(after bool) error
}

// watch has requests to a fake fail.
func (r *rig) watch(client interface {
	PrependReactor(verb, resource string, reaction clienttesting.ReactionFunc)
	Tracker() clienttesting.ObjectTracker
},
) {
	effect := clienttesting.ObjectReaction(client.Tracker())
	client.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if !r.routing || r.fault == nil {
			return false, nil, nil
		}
		if err := r.fault(false); err != nil {
			return true, nil, err
		}
		handled, o, err := effect(action)
		if err == nil {
			err = r.fault(true)
		}
		return handled, o, err
	})
}

// by has the router ask for something, and the cluster follow.
func (r *rig) by(ask func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.routing = true
	err := ask()
	r.routing = false
	if r.settle != nil {
		require.NoError(r.t, r.settle())
	}
	return err
}

func (r *rig) Nearest(ctx context.Context, weight int) (nearest int, err error) {
	err = r.by(func() error { nearest, err = r.router.Nearest(ctx, weight); return err })
	return nearest, err
}

func (r *rig) Shift(ctx context.Context, from, to int) error {
	return r.by(func() error { return r.router.Shift(ctx, from, to) })
}

func (r *rig) Isolate(ctx context.Context, planned []byte) error {
	isolator, ok := r.router.(traffic.Isolator)
	if !ok {
		return nil
	}
	return r.by(func() error { return isolator.Isolate(ctx, planned) })
}

func (r *rig) Observe(ctx context.Context) (split traffic.Split, err error) {
	err = r.by(func() error { split, err = r.router.Observe(ctx); return err })
	return split, err
}

func (r *rig) weight() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	weight, err := r.divided()
	require.NoError(r.t, err)
	return weight
}

func (r *rig) canary(present bool) {
	if r == nil || r.install == nil {
		return
	}
	require.NoError(r.t, r.by(func() error { r.routing = false; return r.install(present) }))
}

// meddle is somebody else's edit, which nobody makes to a canary that has no traffic.
func (r *rig) meddle(rng *rand.Rand) {
	if r.weight() == 0 {
		return
	}
	edits := slices.Sorted(maps.Keys(r.edits))
	edit := edits[rng.IntN(len(edits))]
	require.NoError(r.t, r.by(func() error { r.routing = false; return r.edits[edit](rng) }), edit)
}

// running has pods run, unless they do already.
func running(k *kube) func(replicas map[string]int64, selector map[string]string) error {
	last := ""
	return func(replicas map[string]int64, selector map[string]string) error {
		now := fmt.Sprint(replicas, selector)
		if now == last {
			return nil
		}
		last = now
		return k.run(context.Background(), replicas, selector)
	}
}

// rigs are one of each router.
var rigs = map[string]func(t *testing.T) *rig{
	"HTTPRoute": func(t *testing.T) *rig {
		return newGatewayRig(t, httpRoutes, "HTTPRoute", func(k *kube) (traffic.Router, error) {
			return traffic.HTTPRouteOn(k.dynamic, traffic.HTTPRouteConfig{Namespace: ns, Name: "shop", Stable: "shop", Canary: "shop-canary"})
		})
	},
	"GRPCRoute": func(t *testing.T) *rig {
		return newGatewayRig(t, grpcRoutes, "GRPCRoute", func(k *kube) (traffic.Router, error) {
			return traffic.GRPCRouteOn(k.dynamic, traffic.GRPCRouteConfig{Namespace: ns, Name: "shop", Stable: "shop", Canary: "shop-canary"})
		})
	},
	"VirtualService":       func(t *testing.T) *rig { return newIstioRig(t, false) },
	"values":               func(t *testing.T) *rig { return newIstioRig(t, true) },
	"NGINX, made":          func(t *testing.T) *rig { return newNGINXRig(t, false) },
	"NGINX, of the chart":  func(t *testing.T) *rig { return newNGINXRig(t, true) },
	"replicas":             newReplicasRig,
	"selector, blue/green": newSelectorRig,
}

// routeRig is a rig of one object with weights in a list of a list.
type routeRig struct {
	*rig
	k         *kube
	resource  schema.GroupVersionResource
	list, sub string
	name      func(backend map[string]any) string
	other     map[string]any
	first     int // the first rule that is divided
}

func (r *routeRig) backends(o *unstructured.Unstructured) (rules []any, backends [][]any) {
	rules, _, err := unstructured.NestedSlice(o.Object, "spec", r.list)
	require.NoError(r.t, err)
	for _, rule := range rules[r.first:] {
		backends = append(backends, rule.(map[string]any)[r.sub].([]any))
	}
	return rules, backends
}

// edit changes the backends of the rules that are divided.
func (r *routeRig) edit(change func(rule int, backends []any) []any) error {
	return r.k.edit(context.Background(), r.resource, "shop", func(o *unstructured.Unstructured) error {
		rules, all := r.backends(o)
		for i, backends := range all {
			rules[r.first+i].(map[string]any)[r.sub] = change(i, backends)
		}
		return unstructured.SetNestedSlice(o.Object, rules, "spec", r.list)
	})
}

func (r *routeRig) is(backend any, name string) bool {
	return r.name(backend.(map[string]any)) == name
}

// reweigh gives backends the weights of their releases.
func (r *routeRig) reweigh(backends []any, stable, canary int64) []any {
	for _, b := range backends {
		b.(map[string]any)["weight"] = stable
		if r.is(b, "canary") {
			b.(map[string]any)["weight"] = canary
		}
	}
	return backends
}

func newRouteRig(t *testing.T, text string, r *routeRig) *routeRig {
	pristine := parse(t, text)
	r.k = newKube(parse(t, text))
	r.rig = &rig{t: t}
	r.watch(r.k.dynamic)
	r.divided = func() (int, error) {
		o, err := r.k.dynamic.Resource(r.resource).Namespace(ns).Get(context.Background(), "shop", metav1.GetOptions{})
		if err != nil {
			return 0, err
		}
		most := 0.0
		_, all := r.backends(o)
		for _, backends := range all {
			sum := map[bool]float64{}
			for _, b := range backends {
				weight := 0.0
				switch w := b.(map[string]any)["weight"].(type) {
				case int64:
					weight = float64(w)
				case float64:
					weight = w
				case nil:
					if r.resource != virtualServices {
						weight = 1
					}
				}
				if len(backends) == 1 && r.resource == virtualServices {
					weight = 100
				}
				sum[r.is(b, "canary")] += weight
			}
			if sum[true] > 0 {
				most = max(most, 1, math.Round(sum[true]*100/(sum[true]+sum[false])))
			}
		}
		return int(most), nil
	}
	r.pristine = func() error {
		return r.k.edit(context.Background(), r.resource, "shop", func(o *unstructured.Unstructured) error {
			o.Object["spec"] = runtime.DeepCopyJSON(pristine.Object)["spec"]
			return nil
		})
	}
	without := func(name string) func(*rand.Rand) error {
		return func(*rand.Rand) error {
			return r.edit(func(rule int, backends []any) []any {
				if rule == 0 {
					backends = slices.DeleteFunc(backends, func(b any) bool { return r.is(b, name) })
				}
				return backends
			})
		}
	}
	r.edits = map[string]func(*rand.Rand) error{
		"other weights": func(rng *rand.Rand) error {
			w := int64(rng.IntN(101))
			return r.edit(func(_ int, backends []any) []any { return r.reweigh(backends, 100-w, w) })
		},
		"other weights in one rule": func(rng *rand.Rand) error {
			w := int64(rng.IntN(101))
			return r.edit(func(rule int, backends []any) []any {
				if rule == 0 {
					r.reweigh(backends, 100-w, w)
				}
				return backends
			})
		},
		"weights 0 and 0": func(*rand.Rand) error {
			return r.edit(func(_ int, backends []any) []any { return r.reweigh(backends, 0, 0) })
		},
		"no canary":         without("canary"),
		"no stable release": without("stable"),
		"another backend": func(*rand.Rand) error {
			return r.edit(func(_ int, backends []any) []any { return append(backends, runtime.DeepCopyJSON(r.other)) })
		},
		"a backend twice": func(*rand.Rand) error {
			return r.edit(func(_ int, backends []any) []any {
				return append(backends, runtime.DeepCopyJSON(backends[0].(map[string]any)))
			})
		},
	}
	return r
}

func newGatewayRig(t *testing.T, resource schema.GroupVersionResource, kind string, router func(k *kube) (traffic.Router, error)) *rig {
	r := newRouteRig(t, gatewayRoute(kind), &routeRig{
		resource: resource, list: "rules", sub: "backendRefs", first: 1, other: map[string]any{"name": "old", "weight": int64(5)},
		name: func(b map[string]any) string {
			return map[any]string{"shop": "stable", "shop-canary": "canary"}[b["name"]]
		},
	})
	r.settle = func() error { return r.k.edit(context.Background(), resource, "shop", acceptRoute) }
	var err error
	r.router, err = router(r.k)
	require.NoError(t, err)
	return r.rig
}

func newIstioRig(t *testing.T, byValues bool) *rig {
	r := newRouteRig(t, virtual, &routeRig{
		resource: virtualServices, list: "http", sub: "route", first: 1, other: map[string]any{"destination": map[string]any{"host": "old"}, "weight": int64(5)},
		name: func(b map[string]any) string {
			return fmt.Sprint(b["destination"].(map[string]any)["subset"])
		},
	})
	r.edits["a TCP route"] = func(*rand.Rand) error {
		return r.k.edit(context.Background(), virtualServices, "shop", func(o *unstructured.Unstructured) error {
			return unstructured.SetNestedSlice(o.Object, []any{map[string]any{"route": []any{
				map[string]any{"destination": map[string]any{"host": "shop", "subset": "stable"}},
			}}}, "spec", "tcp")
		})
	}
	router, err := traffic.VirtualServiceOn(r.k.dynamic, traffic.VirtualServiceConfig{Namespace: ns, Name: "shop",
		Stable: traffic.Destination{Host: "shop", Subset: "stable"}, Canary: traffic.Destination{Host: "shop", Subset: "canary"}})
	require.NoError(t, err)
	r.router = router
	if byValues {
		released := 0
		r.router = traffic.Values{Route: router, Deploy: func(_ context.Context, weight int) error {
			if weight == released { // An upgrade that changes nothing does nothing.
				return nil
			}
			err := r.edit(func(_ int, backends []any) []any { return r.reweigh(backends, int64(100-weight), int64(weight)) })
			if err == nil {
				released = weight
			}
			return err
		}}
	}
	return r.rig
}
