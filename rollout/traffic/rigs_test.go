package traffic_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
)

func newNGINXRig(t *testing.T, ofTheChart bool) *rig {
	r := &rig{t: t}
	ctx := context.Background()
	client := fake.NewClientset(ingress("shop", "shop", nil, "/"))
	r.watch(client)
	router, err := traffic.NGINXOn(client, traffic.NGINXConfig{Namespace: ns, Ingress: "shop", Stable: "shop", Canary: "shop-canary"})
	require.NoError(t, err)
	r.router = router
	api := client.NetworkingV1().Ingresses(ns)
	charts := func(present bool) error {
		err := api.Delete(ctx, "shop-canary", metav1.DeleteOptions{})
		if present && (err == nil || apierrors.IsNotFound(err)) {
			_, err = api.Create(ctx, ingress("shop-canary", "shop-canary", map[string]string{annotation + "canary": "true", annotation + "canary-weight": "0"}, "/"), metav1.CreateOptions{})
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	if ofTheChart {
		r.install = func(present bool) error {
			if _, err := api.Get(ctx, "shop-canary", metav1.GetOptions{}); present && err == nil {
				return nil // The upgrade of a canary that has traffic leaves it that.
			}
			return charts(present)
		}
	}
	r.divided = func() (int, error) {
		o, err := api.Get(ctx, "shop-canary", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return 0, nil
		}
		if err != nil || o.Annotations[annotation+"canary-by-header"] != "" || o.Annotations[annotation+"canary"] != "true" {
			return 100, err
		}
		weight, err := strconv.Atoi(o.Annotations[annotation+"canary-weight"])
		if err != nil {
			return 1, nil //nolint:nilerr // Nobody knows.
		}
		return weight, nil
	}
	annotate := func(key string, value func(rng *rand.Rand) string) func(*rand.Rand) error {
		return func(rng *rand.Rand) error {
			o, err := api.Get(ctx, "shop-canary", metav1.GetOptions{})
			if err != nil {
				return err
			}
			o.Annotations[annotation+key] = value(rng)
			_, err = api.Update(ctx, o, metav1.UpdateOptions{})
			return err
		}
	}
	constant := func(value string) func(*rand.Rand) string { return func(*rand.Rand) string { return value } }
	update := func(o *networkingv1.Ingress) error { _, err := api.Update(ctx, o, metav1.UpdateOptions{}); return err }
	r.edits = map[string]func(*rand.Rand) error{
		"another weight":      annotate("canary-weight", func(rng *rand.Rand) string { return strconv.Itoa(rng.IntN(101)) }),
		"a weight of nothing": annotate("canary-weight", constant("much")),
		"a header":            annotate("canary-by-header", constant("x-canary")),
		"no canary any more":  annotate("canary", constant("false")),
		"it is gone":          func(*rand.Rand) error { return api.Delete(ctx, "shop-canary", metav1.DeleteOptions{}) },
		"another path":        func(*rand.Rand) error { return update(ingress("shop", "shop", nil, "/", "/new")) },
		"no stable Ingress":   func(*rand.Rand) error { return api.Delete(ctx, "shop", metav1.DeleteOptions{}) },
		"a rival": func(*rand.Rand) error {
			_, err := api.Create(ctx, ingress("rival", "rival", map[string]string{annotation + "canary": "true"}, "/"), metav1.CreateOptions{})
			return err
		},
	}
	r.pristine = func() error {
		for _, name := range []string{"rival", "shop"} {
			if err := api.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		_, err := api.Create(ctx, ingress("shop", "shop", nil, "/"), metav1.CreateOptions{})
		return err
	}
	return r
}

func newReplicasRig(t *testing.T) *rig {
	r, _ := replicasRig(t)
	return r
}

func replicasRig(t *testing.T) (*rig, *kube) {
	const full = 4
	r := &rig{t: t}
	ctx := context.Background()
	k := newKube(generic(t, deployment("shop", full)))
	services := k.typed.CoreV1().Services(ns)
	_, err := services.Create(ctx, service(map[string]string{"app": "shop"}), metav1.CreateOptions{})
	require.NoError(t, err)
	r.watch(k.dynamic)
	r.watch(k.typed)
	r.router, err = traffic.ReplicasOn(k.typed, k.dynamic, traffic.ReplicasConfig{Namespace: ns, Service: "shop", Stable: "shop", Canary: "shop-canary"})
	require.NoError(t, err)
	api := k.dynamic.Resource(deployments).Namespace(ns)
	run := running(k)
	r.settle = func() error {
		replicas, err := k.replicas(ctx)
		if err != nil {
			return err
		}
		s, err := services.Get(ctx, "shop", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return run(replicas, s.Spec.Selector)
	}
	require.NoError(t, r.settle())
	r.install = func(present bool) error {
		_, err := api.Get(ctx, "shop-canary", metav1.GetOptions{})
		switch {
		case present && apierrors.IsNotFound(err):
			_, err = api.Create(ctx, generic(t, deployment("shop-canary", 3)), metav1.CreateOptions{})
		case !present && err == nil:
			err = api.Delete(ctx, "shop-canary", metav1.DeleteOptions{})
		case apierrors.IsNotFound(err):
			err = nil
		}
		return err
	}
	r.divided = func() (int, error) {
		replicas, err := k.replicas(ctx)
		if err != nil || replicas["shop-canary"] == 0 {
			return 0, err
		}
		s, err := services.Get(ctx, "shop", metav1.GetOptions{})
		if err != nil || s.Spec.Selector["app.kubernetes.io/instance"] == "shop" {
			return 0, err
		}
		sum := replicas["shop"] + replicas["shop-canary"]
		return int((replicas["shop-canary"]*100 + sum/2) / sum), nil
	}
	scale := func(name string, n func(rng *rand.Rand) int64) func(*rand.Rand) error {
		return func(rng *rand.Rand) error {
			return k.edit(ctx, deployments, name, func(o *unstructured.Unstructured) error {
				return unstructured.SetNestedField(o.Object, n(rng), "spec", "replicas")
			})
		}
	}
	narrow := func(selector map[string]string) error {
		_, err := services.Update(ctx, service(selector), metav1.UpdateOptions{})
		return err
	}
	r.edits = map[string]func(*rand.Rand) error{
		"another number of canaries": scale("shop-canary", func(rng *rand.Rand) int64 { return rng.Int64N(9) }),
		"another number of stable":   scale("shop", func(rng *rand.Rand) int64 { return rng.Int64N(9) }),
		"no stable ones":             scale("shop", func(*rand.Rand) int64 { return 0 }),
		"another selector":           func(*rand.Rand) error { return narrow(podLabels("shop")) },
	}
	r.pristine = func() error {
		if err := narrow(map[string]string{"app": "shop"}); err != nil {
			return err
		}
		return k.edit(ctx, deployments, "shop", func(o *unstructured.Unstructured) error {
			o.SetAnnotations(nil)
			return unstructured.SetNestedField(o.Object, int64(full), "spec", "replicas")
		})
	}
	return r, k
}

func newSelectorRig(t *testing.T) *rig {
	r := &rig{t: t}
	ctx := context.Background()
	k := newKube(generic(t, service(podLabels("shop"))))
	r.watch(k.dynamic)
	r.watch(k.typed)
	var err error
	r.router, err = traffic.SelectorOn(k.typed, k.dynamic, traffic.SelectorConfig{Namespace: ns, Service: "shop", Stable: "shop", Canary: "shop-canary"})
	require.NoError(t, err)
	pods, run := map[string]int64{"shop": 2}, running(k)
	read := func() (map[string]string, error) {
		o, err := k.dynamic.Resource(services).Namespace(ns).Get(ctx, "shop", metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		selector, _, err := unstructured.NestedStringMap(o.Object, "spec", "selector")
		return selector, err
	}
	r.settle = func() error {
		selector, err := read()
		if err != nil {
			return err
		}
		return run(pods, selector)
	}
	require.NoError(t, r.settle())
	r.install = func(present bool) error {
		pods["shop-canary"] = 0
		if present {
			pods["shop-canary"] = 2
		}
		return nil
	}
	r.divided = func() (int, error) {
		selector, err := read()
		return map[string]int{"shop-canary": 100, "": 50}[selector["app.kubernetes.io/instance"]], err
	}
	to := func(selector map[string]any) func(*rand.Rand) error {
		return func(*rand.Rand) error {
			return k.edit(ctx, services, "shop", func(o *unstructured.Unstructured) error {
				return unstructured.SetNestedMap(o.Object, selector, "spec", "selector")
			})
		}
	}
	r.edits = map[string]func(*rand.Rand) error{
		"another release": to(map[string]any{"app": "shop", "app.kubernetes.io/instance": "other"}),
		"both releases":   to(map[string]any{"app": "shop"}),
		"stable":          to(map[string]any{"app": "shop", "app.kubernetes.io/instance": "shop"}),
	}
	r.pristine = func() error { return r.edits["stable"](nil) }
	return r
}
