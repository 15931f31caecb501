package traffic_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/rollout/traffic/traffictest"
)

// versioned is a fake that minds resource versions, which the tracker doesn't.
func versioned(t *testing.T) *fake.Clientset {
	client := fake.NewClientset()
	n := 0
	conflict := func(name string) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: "configmaps"}, name, fmt.Errorf("another version"))
	}
	stored := func() *corev1.ConfigMap {
		o, err := client.Tracker().Get(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, ns, "fairlead.canary.shop")
		if err != nil {
			return nil
		}
		cm, ok := o.(*corev1.ConfigMap)
		require.True(t, ok)
		return cm
	}
	client.PrependReactor("*", "configmaps", func(action clienttesting.Action) (bool, runtime.Object, error) {
		switch a := action.(type) {
		case clienttesting.UpdateActionImpl:
			cm := a.GetObject().(*corev1.ConfigMap)
			if old := stored(); old != nil && old.ResourceVersion != cm.ResourceVersion {
				return true, nil, conflict(cm.Name)
			}
			n++
			cm.ResourceVersion = strconv.Itoa(n)
		case clienttesting.CreateActionImpl:
			n++
			a.GetObject().(*corev1.ConfigMap).ResourceVersion = strconv.Itoa(n)
		case clienttesting.DeleteActionImpl:
			if old := stored(); old != nil && old.ResourceVersion != *a.DeleteOptions.Preconditions.ResourceVersion {
				return true, nil, conflict(a.Name)
			}
		}
		return false, nil, nil
	})
	return client
}

func ingress(name, service string, annotations map[string]string, paths ...string) *networkingv1.Ingress {
	prefix := networkingv1.PathTypePrefix
	rule := networkingv1.IngressRule{Host: "shop.example", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{}}}
	for _, path := range paths {
		rule.HTTP.Paths = append(rule.HTTP.Paths, networkingv1.HTTPIngressPath{Path: path, PathType: &prefix, Backend: networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: service, Port: networkingv1.ServiceBackendPort{Number: 80}},
		}})
	}
	return &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Annotations: annotations}, Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{rule}}}
}

const annotation = "nginx.ingress.kubernetes.io/"

func newNGINX(t *testing.T, objects ...runtime.Object) (*fake.Clientset, *traffic.NGINX) {
	client := fake.NewClientset(objects...)
	r, err := traffic.NGINXOn(client, traffic.NGINXConfig{Namespace: ns, Ingress: "shop", Stable: "shop", Canary: "shop-canary"})
	require.NoError(t, err)
	return client, r
}

func TestNGINXConforms(t *testing.T) {
	stable := ingress("shop", "shop", map[string]string{annotation + "proxy-body-size": "8m"}, "/", "/a")
	charts := ingress("shop-canary", "shop-canary", map[string]string{annotation + "canary": "true", annotation + "canary-weight": "0", annotation + "canary-weight-total": "200"}, "/", "/a")
	for name, objects := range map[string][]runtime.Object{"made": {stable}, "the chart's": {stable, charts}} {
		t.Run(name, func(t *testing.T) {
			traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
				client, r := newNGINX(t, objects...)
				return traffictest.RouterHarness{Router: r, Foreign: func(ctx context.Context, weight int) error {
					api := client.NetworkingV1().Ingresses(ns)
					o := ingress("shop-canary", "shop-canary", map[string]string{annotation + "canary": "true", annotation + "canary-weight": strconv.Itoa(weight)}, "/", "/a")
					if _, err := api.Update(ctx, o, metav1.UpdateOptions{}); apierrors.IsNotFound(err) {
						_, err = api.Create(ctx, o, metav1.CreateOptions{})
						return err
					}
					return nil
				}}
			})
		})
	}
}

func TestNGINXMakesTheSecondIngress(t *testing.T) {
	other := ingress("shop", "shop", map[string]string{annotation + "proxy-body-size": "8m", "meta.helm.sh/release-name": "shop"}, "/")
	other.Spec.Rules[0].HTTP.Paths = append(other.Spec.Rules[0].HTTP.Paths, ingress("x", "assets", nil, "/assets").Spec.Rules[0].HTTP.Paths...)
	client, r := newNGINX(t, other)
	require.NoError(t, r.Shift(t.Context(), 0, 10))
	made, err := client.NetworkingV1().Ingresses(ns).Get(t.Context(), "shop-canary", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{annotation + "canary": "true", annotation + "canary-weight": "10", annotation + "proxy-body-size": "8m"}, made.Annotations)
	require.Len(t, made.Spec.Rules, 1)
	require.Len(t, made.Spec.Rules[0].HTTP.Paths, 1, "only what goes to the stable release is divided")
	assert.Equal(t, "shop-canary", made.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Name)
	assert.Equal(t, "shop", other.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Name)
	require.NoError(t, r.Shift(t.Context(), 10, 0))
	_, err = client.NetworkingV1().Ingresses(ns).Get(t.Context(), "shop-canary", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), "%v", err)
}

func TestOddIngresses(t *testing.T) {
	canary := map[string]string{annotation + "canary": "true"}
	with := func(key, value string) map[string]string {
		return map[string]string{annotation + "canary": "true", annotation + key: value}
	}
	stable := ingress("shop", "shop", nil, "/")
	for problem, objects := range map[string][]runtime.Object{
		"Ingress shop/shop: doesn't exist":      {},
		"is a canary itself":                    {ingress("shop", "shop", canary, "/")},
		"no rule sends to Service shop":         {ingress("shop", "other", nil, "/")},
		"is no canary":                          {stable, ingress("shop-canary", "shop-canary", nil, "/")},
		"picks requests by":                     {stable, ingress("shop-canary", "shop-canary", with("canary-by-header", "x"), "/")},
		"doesn't send shop.example/ to Service": {stable, ingress("shop-canary", "shop-canary", canary, "/other")},
		"has hosts or paths that shop has not":  {stable, ingress("shop-canary", "shop-canary", canary, "/", "/more")},
		"is a canary of the same host and path": {stable, ingress("rival", "rival", canary, "/")},
	} {
		_, r := newNGINX(t, objects...)
		_, err := r.Nearest(t.Context(), 10)
		requireOdd(t, err, problem)
	}
	for _, spelling := range []string{"True", "1", "t"} { // The controller reads them all.
		_, r := newNGINX(t, stable, ingress("rival", "rival", map[string]string{annotation + "canary": spelling}, "/"))
		_, err := r.Nearest(t.Context(), 10)
		requireOdd(t, err, "is a canary of the same host and path")
	}
	for _, weight := range []string{"much", "-1", "101"} {
		_, r := newNGINX(t, stable, ingress("shop-canary", "shop-canary", with("canary-weight", weight), "/"))
		_, err := r.Observe(t.Context())
		requireOdd(t, err, "has the weight")
	}
}
