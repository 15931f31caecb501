package traffic_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/rollout/traffic/traffictest"
)

func podLabels(release string) map[string]string {
	return map[string]string{"app": "shop", "app.kubernetes.io/instance": release}
}

func generic(t *testing.T, o any) *unstructured.Unstructured {
	t.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	require.NoError(t, err)
	return &unstructured.Unstructured{Object: content}
}

func deployment(name string, replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/instance": name}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: podLabels(name)}}},
	}
}

func service(selector map[string]string) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop"}, Spec: corev1.ServiceSpec{Selector: selector},
	}
}

func readyPod(name string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: labels},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
}

// run does what controllers and the kubelet do: as many pods as replicas, and an
// endpoint for each that the selector of the service matches.
func (k *kube) run(ctx context.Context, replicas map[string]int64, selector map[string]string) error {
	old, err := k.typed.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	runs := map[string]bool{}
	for _, pod := range old.Items {
		at := strings.LastIndex(pod.Name, "-")
		i, err := strconv.ParseInt(pod.Name[at+1:], 10, 64)
		if runs[pod.Name] = err == nil && i < replicas[pod.Name[:at]]; runs[pod.Name] {
			continue
		}
		if err := k.typed.CoreV1().Pods(ns).Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
			return err
		}
	}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop-x", Labels: map[string]string{discoveryv1.LabelServiceName: "shop"}}}
	for release, n := range replicas {
		for i := range n {
			pod := readyPod(fmt.Sprintf("%s-%d", release, i), podLabels(release))
			if !runs[pod.Name] {
				if _, err := k.typed.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
					return err
				}
			}
			if labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels)) {
				slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod.Name}})
			}
		}
	}
	_ = k.typed.DiscoveryV1().EndpointSlices(ns).Delete(ctx, slice.Name, metav1.DeleteOptions{})
	_, err = k.typed.DiscoveryV1().EndpointSlices(ns).Create(ctx, slice, metav1.CreateOptions{})
	return err
}

func (k *kube) replicas(ctx context.Context) (map[string]int64, error) {
	out := map[string]int64{}
	all, err := k.dynamic.Resource(deployments).Namespace(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, o := range all.Items {
		out[o.GetName()], _, err = unstructured.NestedInt64(o.Object, "spec", "replicas")
	}
	return out, err
}

func newReplicas(t *testing.T, stable, canary int32) (*kube, *traffic.Replicas) {
	k := newKube(generic(t, deployment("shop", stable)), generic(t, deployment("shop-canary", canary)))
	_, err := k.typed.CoreV1().Services(ns).Create(t.Context(), service(map[string]string{"app": "shop"}), metav1.CreateOptions{})
	require.NoError(t, err)
	r, err := traffic.ReplicasOn(k.typed, k.dynamic, traffic.ReplicasConfig{Namespace: ns, Service: "shop", Stable: "shop", Canary: "shop-canary"})
	require.NoError(t, err)
	return k, r
}

func (k *kube) settleReplicas(ctx context.Context) error {
	replicas, err := k.replicas(ctx)
	if err != nil {
		return err
	}
	return k.run(ctx, replicas, map[string]string{"app": "shop"})
}

func TestReplicasConform(t *testing.T) {
	for _, full := range []int32{1, 2, 10, 40} {
		t.Run(fmt.Sprint(full), func(t *testing.T) {
			traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
				k, r := newReplicas(t, full, 0)
				scale := func(ctx context.Context, name string, n int64) error {
					return k.edit(ctx, deployments, name, func(o *unstructured.Unstructured) error {
						return unstructured.SetNestedField(o.Object, n, "spec", "replicas")
					})
				}
				return traffictest.RouterHarness{Router: r, Settle: k.settleReplicas, Foreign: func(ctx context.Context, weight int) error {
					if weight != 100 {
						return fmt.Errorf("not foreseen: %d", weight)
					}
					if err := k.edit(ctx, deployments, "shop", func(o *unstructured.Unstructured) error {
						o.SetAnnotations(map[string]string{"traffic.fairlead.dev/replicas": fmt.Sprintf("%d/0", full)})
						return nil
					}); err != nil {
						return err
					}
					if err := scale(ctx, "shop", 0); err != nil {
						return err
					}
					return scale(ctx, "shop-canary", int64(full))
				}}
			})
		})
	}
}

// TestReplicasKeepCapacity checks that there are never fewer pods than before.
func TestReplicasKeepCapacity(t *testing.T) {
	k, r := newReplicas(t, 4, 0)
	at := 0
	for _, weight := range []int{20, 50, 80, 100, 0, 80, 20, 0} {
		to, err := r.Nearest(t.Context(), weight)
		require.NoError(t, err)
		for range 10 {
			_ = r.Shift(t.Context(), at, to) // What it waits for is told by the error.
			before, err := k.replicas(t.Context())
			require.NoError(t, err)
			assert.GreaterOrEqual(t, before["shop"]+before["shop-canary"], int64(4), "%v", before)
			require.NoError(t, k.settleReplicas(t.Context()))
		}
		split, err := r.Observe(t.Context())
		require.NoError(t, err)
		assert.Equal(t, to, split.Canary)
		assert.True(t, split.Settled, split)
		at = to
	}
	o, err := k.dynamic.Resource(deployments).Namespace(ns).Get(t.Context(), "shop", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Empty(t, o.GetAnnotations(), "nothing is left")
}

// TestReplicasAfterAnUpgrade checks that a number of replicas that an upgrade has
// set is kept.
func TestReplicasAfterAnUpgrade(t *testing.T) {
	k, r := newReplicas(t, 2, 2)
	require.NoError(t, k.settleReplicas(t.Context()))
	require.NoError(t, r.Shift(t.Context(), traffic.Any, 67))
	replicas, err := k.replicas(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"shop": 1, "shop-canary": 2}, replicas)
	require.NoError(t, k.edit(t.Context(), deployments, "shop", func(o *unstructured.Unstructured) error {
		return unstructured.SetNestedField(o.Object, int64(3), "spec", "replicas")
	}))
	require.NoError(t, k.settleReplicas(t.Context()))
	require.NoError(t, r.Shift(t.Context(), traffic.Any, 0))
	replicas, err = k.replicas(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"shop": 3, "shop-canary": 0}, replicas)
}

func TestOddReplicas(t *testing.T) {
	for problem, upset := range map[string]func(t *testing.T, k *kube){
		"Service shop/shop: selects app.kubernetes.io/instance=shop": func(t *testing.T, k *kube) {
			_, err := k.typed.CoreV1().Services(ns).Update(t.Context(), service(map[string]string{"app.kubernetes.io/instance": "shop"}), metav1.UpdateOptions{})
			require.NoError(t, err)
		},
		"Service shop/shop: has no selector": func(t *testing.T, k *kube) {
			_, err := k.typed.CoreV1().Services(ns).Update(t.Context(), service(nil), metav1.UpdateOptions{})
			require.NoError(t, err)
		},
		"Service shop/shop: doesn't exist": func(t *testing.T, k *kube) {
			require.NoError(t, k.typed.CoreV1().Services(ns).Delete(t.Context(), "shop", metav1.DeleteOptions{}))
		},
		"can't be told from": func(t *testing.T, k *kube) {
			require.NoError(t, k.edit(t.Context(), deployments, "shop", func(o *unstructured.Unstructured) error {
				return unstructured.SetNestedStringMap(o.Object, map[string]string{"app": "shop"}, "spec", "selector", "matchLabels")
			}))
		},
		"has no replicas": func(t *testing.T, k *kube) {
			require.NoError(t, k.edit(t.Context(), deployments, "shop", func(o *unstructured.Unstructured) error {
				return unstructured.SetNestedField(o.Object, int64(0), "spec", "replicas")
			}))
		},
		"Deployment shop/shop: doesn't exist": func(t *testing.T, k *kube) {
			require.NoError(t, k.dynamic.Resource(deployments).Namespace(ns).Delete(t.Context(), "shop", metav1.DeleteOptions{}))
		},
		"is scaled by HorizontalPodAutoscaler shop": func(t *testing.T, k *kube) {
			_, err := k.typed.AutoscalingV2().HorizontalPodAutoscalers(ns).Create(t.Context(), &autoscalingv2.HorizontalPodAutoscaler{
				ObjectMeta: metav1.ObjectMeta{Name: "shop"},
				Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "shop"}},
			}, metav1.CreateOptions{})
			require.NoError(t, err)
		},
	} {
		t.Run(problem, func(t *testing.T) {
			k, r := newReplicas(t, 2, 0)
			upset(t, k)
			_, err := r.Nearest(t.Context(), 10)
			requireOdd(t, err, problem)
		})
	}
}

func TestSelectorConforms(t *testing.T) {
	traffictest.TestRouter(t, func(t *testing.T) traffictest.RouterHarness {
		k := newKube(generic(t, service(podLabels("shop"))))
		r, err := traffic.SelectorOn(k.typed, k.dynamic, traffic.SelectorConfig{Namespace: ns, Service: "shop", Stable: "shop", Canary: "shop-canary"})
		require.NoError(t, err)
		settle := func(ctx context.Context) error {
			o, err := k.dynamic.Resource(services).Namespace(ns).Get(ctx, "shop", metav1.GetOptions{})
			if err != nil {
				return err
			}
			selector, _, err := unstructured.NestedStringMap(o.Object, "spec", "selector")
			if err != nil {
				return err
			}
			return k.run(ctx, map[string]int64{"shop": 2, "shop-canary": 1}, selector)
		}
		return traffictest.RouterHarness{Router: r, Settle: settle, Foreign: func(ctx context.Context, _ int) error {
			return k.edit(ctx, services, "shop", func(o *unstructured.Unstructured) error {
				return unstructured.SetNestedField(o.Object, "shop-canary", "spec", "selector", "app.kubernetes.io/instance")
			})
		}}
	})
}

func TestOddSelector(t *testing.T) {
	for problem, selector := range map[string]map[string]string{
		`selects app.kubernetes.io/instance="other", which is neither`: podLabels("other"),
		`selects app.kubernetes.io/instance="", which is neither`:      {"app": "shop"},
	} {
		k := newKube(generic(t, service(selector)))
		r, err := traffic.SelectorOn(k.typed, k.dynamic, traffic.SelectorConfig{Namespace: ns, Service: "shop", Stable: "shop", Canary: "shop-canary"})
		require.NoError(t, err)
		_, err = r.Nearest(t.Context(), 100)
		requireOdd(t, err, problem)
	}
	k := newKube(generic(t, service(podLabels("shop"))))
	r, err := traffic.SelectorOn(k.typed, k.dynamic, traffic.SelectorConfig{Namespace: ns, Service: "shop", Stable: "shop", Canary: "shop-canary"})
	require.NoError(t, err)
	require.ErrorContains(t, r.Shift(t.Context(), 0, 100), "no pod with app=shop,app.kubernetes.io/instance=shop-canary is ready")
}
