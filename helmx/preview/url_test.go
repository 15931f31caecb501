package preview_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/helmx/preview"
)

// balanced is a Service with the load balancer's addresses, each a host name or an IP.
func balanced(name string, port corev1.ServicePort, addresses ...corev1.LoadBalancerIngress) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{port}},
		Status:     corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: addresses}},
	}
}

func TestURLOfALoadBalancer(t *testing.T) {
	host, ip4, ip6 := corev1.LoadBalancerIngress{Hostname: "lb.example.com"}, corev1.LoadBalancerIngress{IP: "192.0.2.7"}, corev1.LoadBalancerIngress{IP: "2001:db8::7"}
	for want, service := range map[string]*corev1.Service{
		"http://lb.example.com/":      balanced("shop", corev1.ServicePort{Port: 80}, host, ip4),
		"http://192.0.2.7:8080/":      balanced("shop", corev1.ServicePort{Port: 8080}, ip4),
		"https://lb.example.com/":     balanced("shop", corev1.ServicePort{Port: 443}, host),
		"https://192.0.2.7:8443/":     balanced("shop", corev1.ServicePort{Port: 8443, Name: "https"}, ip4),
		"http://[2001:db8::7]/":       balanced("shop", corev1.ServicePort{Port: 80}, ip6),
		"http://[2001:db8::7]:8080/":  balanced("shop", corev1.ServicePort{Port: 8080}, ip6),
		"https://lb.example.com:444/": balanced("shop", corev1.ServicePort{Port: 444, AppProtocol: new("https")}, host),
		"":                            balanced("shop", corev1.ServicePort{Port: 80}),
	} {
		c := newCluster()
		p := c.previews(t)
		ns := create(t, p, pull).Namespace
		inner := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "inner"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Port: 80}}}}
		for _, s := range []*corev1.Service{inner, service} {
			_, err := c.CoreV1().Services(ns).Create(t.Context(), s, metav1.CreateOptions{})
			require.NoError(t, err)
		}
		got, err := p.URL(t.Context(), pull)
		if want == "" {
			require.ErrorIs(t, err, preview.ErrNoURL)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

const gatewayObject = `
kind: Gateway
apiVersion: gateway.networking.k8s.io/v1
metadata: {name: edge, namespace: infra}
spec:
  listeners:
    - {name: web, port: 80, protocol: HTTP}
    - {name: shops, port: 443, protocol: HTTPS, hostname: "*.shops.example"}
    - {name: apex, port: 8443, protocol: HTTPS, hostname: apex.example}
`

func TestURLOfAnHTTPRoute(t *testing.T) {
	for name, tt := range map[string]struct{ spec, want string }{
		"a listener without TLS":  {`{parentRefs: [{name: edge, namespace: infra}], hostnames: [pr-7.other.example]}`, "http://pr-7.other.example/"},
		"a listener with TLS":     {`{parentRefs: [{name: edge, namespace: infra}], hostnames: [pr-7.shops.example]}`, "https://pr-7.shops.example/"},
		"another port":            {`{parentRefs: [{name: edge, namespace: infra}], hostnames: [apex.example]}`, "https://apex.example:8443/"},
		"the section without TLS": {`{parentRefs: [{name: edge, namespace: infra, sectionName: web}], hostnames: [pr-7.shops.example]}`, "http://pr-7.shops.example/"},
		"the port without TLS":    {`{parentRefs: [{name: edge, namespace: infra, port: 80}], hostnames: [pr-7.shops.example]}`, "http://pr-7.shops.example/"},
		"the first host":          {`{parentRefs: [{name: edge, namespace: infra}], hostnames: ["*.shops.example", a.shops.example, b.shops.example]}`, "https://a.shops.example/"},
		"a path":                  {`{parentRefs: [{name: edge, namespace: infra}], hostnames: [a.shops.example], rules: [{matches: [{path: {type: PathPrefix, value: /shop}}]}]}`, "https://a.shops.example/shop"},
		"an expression":           {`{parentRefs: [{name: edge, namespace: infra}], hostnames: [a.shops.example], rules: [{matches: [{path: {type: RegularExpression, value: "/x.*"}}]}]}`, "https://a.shops.example/"},
		"a gateway that is gone":  {`{parentRefs: [{name: none}], hostnames: [a.shops.example]}`, "http://a.shops.example/"},
		"a mesh":                  {`{parentRefs: [{group: "", kind: Service, name: shop}], hostnames: [a.shops.example]}`, ""},
		"no host":                 {`{parentRefs: [{name: edge, namespace: infra}]}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster()
			ns := create(t, c.previews(t), pull).Namespace
			p := c.previews(t, routes(t, ns, tt.spec))
			got, err := p.URL(t.Context(), pull)
			if tt.want == "" {
				require.ErrorIs(t, err, preview.ErrNoURL)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
			_, err = c.previews(t).URL(t.Context(), pull)
			require.ErrorIs(t, err, preview.ErrNoURL, "without the client they can't be seen")
		})
	}
}

// routes has a gateway, and the namespace an HTTPRoute.
func routes(t *testing.T, namespace, spec string) func(*preview.Config) {
	t.Helper()
	parse := func(text string) *unstructured.Unstructured {
		o := &unstructured.Unstructured{}
		require.NoError(t, yaml.Unmarshal([]byte(text), &o.Object))
		return o
	}
	route := parse("{kind: HTTPRoute, apiVersion: gateway.networking.k8s.io/v1, spec: " + spec + "}")
	route.SetName("shop")
	route.SetNamespace(namespace)
	group := schema.GroupVersion{Group: "gateway.networking.k8s.io", Version: "v1"}
	kinds := map[schema.GroupVersionResource]string{group.WithResource("httproutes"): "HTTPRouteList", group.WithResource("gateways"): "GatewayList"}
	client := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds, route)
	_, err := client.Resource(group.WithResource("gateways")).Namespace("infra").Create(t.Context(), parse(gatewayObject), metav1.CreateOptions{})
	require.NoError(t, err)
	return func(cfg *preview.Config) { cfg.Dynamic = client }
}

func TestURLsInOrder(t *testing.T) {
	c := newCluster()
	ns := create(t, c.previews(t), pull).Namespace
	p := c.previews(t, routes(t, ns, `{parentRefs: [{name: edge, namespace: infra}], hostnames: [route.example]}`))
	_, err := c.CoreV1().Services(ns).Create(t.Context(), balanced("shop", corev1.ServicePort{Port: 80}, corev1.LoadBalancerIngress{IP: "192.0.2.7"}), metav1.CreateOptions{})
	require.NoError(t, err)
	got, err := p.URL(t.Context(), pull)
	require.NoError(t, err)
	assert.Equal(t, "http://route.example/", got)
	_, err = c.NetworkingV1().Ingresses(ns).Create(t.Context(), &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{Host: "ingress.example"}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	got, err = p.URL(t.Context(), pull)
	require.NoError(t, err)
	assert.Equal(t, "http://ingress.example/", got)
}

// TestURLWithFewRights checks that an account that may not look at one kind still
// finds the others, and is told what it could not see when there is nothing else.
func TestURLWithFewRights(t *testing.T) {
	c := newCluster()
	p := c.previews(t)
	ns := create(t, p, pull).Namespace
	forbid := func(resource string) {
		c.PrependReactor("list", resource, func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", nil)
		})
	}
	forbid("ingresses")
	_, err := p.URL(t.Context(), pull)
	require.ErrorIs(t, err, preview.ErrNoURL)
	require.ErrorContains(t, err, "list the Ingresses of namespace "+ns)
	_, err = c.CoreV1().Services(ns).Create(t.Context(), balanced("shop", corev1.ServicePort{Port: 80}, corev1.LoadBalancerIngress{IP: "192.0.2.7"}), metav1.CreateOptions{})
	require.NoError(t, err)
	got, err := p.URL(t.Context(), pull)
	require.NoError(t, err)
	assert.Equal(t, "http://192.0.2.7/", got)
	forbid("services")
	_, err = p.URL(t.Context(), pull)
	require.NotErrorIs(t, err, preview.ErrNoURL, "nobody has looked")
	require.True(t, apierrors.IsForbidden(err), "%v", err)
}
