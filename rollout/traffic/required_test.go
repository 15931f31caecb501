package traffic_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestRequiredRules(t *testing.T) {
	access := &rest.Config{Host: "https://nowhere.example"}
	rule := func(group, resource string, names []string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: names, Verbs: verbs}
	}
	shop, both := []string{"shop"}, []string{"shop", "shop-canary"}
	pods, endpoints := rule("", "pods", nil, "list"), rule("discovery.k8s.io", "endpointslices", nil, "list")
	autoscalers := rule("autoscaling", "horizontalpodautoscalers", nil, "list")
	type part interface {
		RequiredRules(ctx context.Context, rel stages.Release) (map[string][]rbacv1.PolicyRule, error)
	}
	for name, c := range map[string]struct {
		part func() (part, error)
		want []rbacv1.PolicyRule
	}{
		"replicas": {
			func() (part, error) {
				return traffic.NewReplicas(traffic.ReplicasConfig{REST: access, Namespace: "ns", Service: "shop", Stable: "shop", Canary: "shop-canary"})
			},
			[]rbacv1.PolicyRule{rule("", "services", shop, "get", "patch"), pods, endpoints, rule("apps", "deployments", both, "get", "patch"), autoscalers},
		},
		"replicas of stateful sets": {
			func() (part, error) {
				return traffic.NewReplicas(traffic.ReplicasConfig{REST: access, Namespace: "ns", Service: "shop", Stable: "shop", Canary: "shop-canary", Kind: "StatefulSet"})
			},
			[]rbacv1.PolicyRule{rule("", "services", shop, "get", "patch"), pods, endpoints, rule("apps", "statefulsets", both, "get", "patch"), autoscalers},
		},
		"selector": {
			func() (part, error) {
				return traffic.NewSelector(traffic.SelectorConfig{REST: access, Namespace: "ns", Service: "shop", Stable: "shop", Canary: "shop-canary"})
			},
			[]rbacv1.PolicyRule{rule("", "services", shop, "get", "patch"), pods, endpoints},
		},
		"HTTPRoute": {
			func() (part, error) {
				return traffic.NewHTTPRoute(traffic.HTTPRouteConfig{REST: access, Namespace: "ns", Name: "shop", Stable: "shop", Canary: "shop-canary"})
			},
			[]rbacv1.PolicyRule{
				rule("gateway.networking.k8s.io", "httproutes", shop, "get", "patch"), rule("gateway.networking.k8s.io", "httproutes", nil, "list"),
			},
		},
		"HTTPRoute that needn't be the only one": {
			func() (part, error) {
				return traffic.NewHTTPRoute(traffic.HTTPRouteConfig{REST: access, Namespace: "ns", Name: "shop", Stable: "shop", Canary: "shop-canary", AllowOthers: true})
			},
			[]rbacv1.PolicyRule{rule("gateway.networking.k8s.io", "httproutes", shop, "get", "patch")},
		},
		"VirtualService": {
			func() (part, error) {
				return traffic.NewVirtualService(traffic.VirtualServiceConfig{REST: access, Namespace: "ns", Name: "shop",
					Stable: traffic.Destination{Host: "shop"}, Canary: traffic.Destination{Host: "shop-canary"}})
			},
			[]rbacv1.PolicyRule{
				rule("networking.istio.io", "virtualservices", shop, "get", "patch"), rule("networking.istio.io", "virtualservices", nil, "list"),
			},
		},
		"NGINX": {
			func() (part, error) {
				return traffic.NewNGINX(traffic.NGINXConfig{REST: access, Namespace: "ns", Ingress: "shop", Stable: "shop", Canary: "shop-canary"})
			},
			[]rbacv1.PolicyRule{
				rule("networking.k8s.io", "ingresses", nil, "list", "create"), rule("networking.k8s.io", "ingresses", []string{"shop-canary"}, "patch", "delete"),
			},
		},
		"state": {
			func() (part, error) {
				return traffic.NewConfigMap(traffic.ConfigMapConfig{REST: access, Namespace: "ns", Release: "shop"})
			},
			[]rbacv1.PolicyRule{rule("", "configmaps", nil, "create"), rule("", "configmaps", []string{"fairlead.canary.shop"}, "get", "update", "delete")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := c.part()
			require.NoError(t, err)
			got, err := p.RequiredRules(t.Context(), stages.Release{})
			require.NoError(t, err)
			assert.Equal(t, map[string][]rbacv1.PolicyRule{"ns": c.want}, got)
		})
	}
}
