package smoke

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

func TestRequiredRules(t *testing.T) {
	access := &rest.Config{Host: "https://nowhere.example"}
	owner := rule("deployments.apps", "shop", "get")
	seen := []rbacv1.PolicyRule{rule("pods/log", "", "get"), rule("events", "", "list", "watch")}
	pod := append([]rbacv1.PolicyRule{rule("pods", "", "list", "watch", "create", "delete")}, seen...)
	forward := rule("pods/portforward", "", "get", "create")
	revision := []rbacv1.PolicyRule{rule("deployments.apps", "shop", "list"), rule("replicasets.apps", "", "list")}
	for name, c := range map[string]struct {
		test func() (*Test, error)
		want map[string][]rbacv1.PolicyRule
	}{
		"pod": {
			func() (*Test, error) {
				return NewPod(PodConfig{REST: access, Image: image(t, "curl", "b"), URL: "http://shop"})
			},
			map[string][]rbacv1.PolicyRule{ns: append([]rbacv1.PolicyRule{owner}, pod...)},
		},
		"pod elsewhere, which nothing owns": {
			func() (*Test, error) {
				return NewPod(PodConfig{REST: access, Image: image(t, "curl", "b"), URL: "http://shop", Setting: Setting{Namespace: "tests"}})
			},
			map[string][]rbacv1.PolicyRule{"tests": pod},
		},
		"job": {
			func() (*Test, error) { return NewJob(JobConfig{REST: access, Command: []string{"true"}}) },
			map[string][]rbacv1.PolicyRule{ns: append([]rbacv1.PolicyRule{
				owner, rule("jobs.batch", "", "list", "watch", "create", "delete"), rule("pods", "", "list", "watch"),
			}, seen...)},
		},
		"HTTP": {
			func() (*Test, error) { return NewHTTP(HTTPConfig{REST: access}) },
			map[string][]rbacv1.PolicyRule{ns: append([]rbacv1.PolicyRule{rule("services", "shop", "get"), forward, rule("pods", "", "list")}, revision...)},
		},
		"TCP to a workload": {
			func() (*Test, error) {
				return NewTCP(TCPConfig{REST: access, Target: Target{Name: "sts/{{.Release}}-db"}})
			},
			map[string][]rbacv1.PolicyRule{ns: {rule("statefulsets.apps", "shop-db", "get"), forward, rule("pods", "", "list"), rule("statefulsets.apps", "shop-db", "list")}},
		},
		"TCP to a pod": {
			func() (*Test, error) { return NewTCP(TCPConfig{REST: access, Target: Target{Name: "pod/shop-0"}}) },
			map[string][]rbacv1.PolicyRule{ns: append([]rbacv1.PolicyRule{rule("pods", "shop-0", "get"), forward}, revision...)},
		},
		"function": {
			func() (*Test, error) {
				return NewFunc(FuncConfig{Name: "f", Run: func(context.Context, stages.Release) (string, error) { return "", nil }})
			},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			test, err := c.test()
			require.NoError(t, err)
			defer test.Close()
			got, err := test.RequiredRules(t.Context(), release(t))
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}
