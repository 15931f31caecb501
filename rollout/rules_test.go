package rollout

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-dev/fairlead/stages"
)

func rule(group, resource, name string, verbs ...string) rbacv1.PolicyRule {
	r := rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}
	if name != "" {
		r.ResourceNames = []string{name}
	}
	return r
}

func TestRequiredRules(t *testing.T) {
	of := func(apiVersion, kind, namespace, name string) stages.Object {
		return stages.Object{APIVersion: apiVersion, Kind: kind, Namespace: namespace, Name: name}
	}
	watch := func(group, resource string) rbacv1.PolicyRule { return rule(group, resource, "", "list", "watch") }
	pods := []rbacv1.PolicyRule{watch("", "pods"), watch("", "events")}
	logs := rule("", "pods/log", "", "get")
	for name, c := range map[string]struct {
		config  Config
		objects []stages.Object
		want    map[string][]rbacv1.PolicyRule
	}{
		"workloads, each kind once": {
			objects: []stages.Object{of("apps/v1", "Deployment", "", "a"), of("apps/v1", "Deployment", ns, "b"), of("apps/v1", "StatefulSet", ns, "c"), of("batch/v1", "Job", "other", "d")},
			want: map[string][]rbacv1.PolicyRule{
				ns:      append(pods[:2:2], watch("apps", "deployments"), watch("apps", "replicasets"), logs, watch("apps", "statefulsets")),
				"other": append(pods[:2:2], watch("batch", "jobs"), logs),
			},
		},
		"a claim, without the classes of the cluster": {
			objects: []stages.Object{of("v1", "PersistentVolumeClaim", ns, "data")},
			want:    map[string][]rbacv1.PolicyRule{ns: {watch("", "persistentvolumeclaims"), watch("", "events")}},
		},
		"what only has to exist, by name": {
			objects: []stages.Object{of("networking.k8s.io/v1", "NetworkPolicy", ns, "a"), of("networking.k8s.io/v1", "NetworkPolicy", ns, "b")},
			want: map[string][]rbacv1.PolicyRule{ns: {
				rule("networking.k8s.io", "networkpolicies", "a", "get"), rule("networking.k8s.io", "networkpolicies", "b", "get"),
			}},
		},
		"custom resources, by what the cluster calls them": {
			objects: []stages.Object{of("example.com/v1", "Widget", ns, "w"), of("example.com/v1", "Realm", "", "r"), of("example.com/v1", "Unknown", ns, "u")},
			want: map[string][]rbacv1.PolicyRule{
				ns: {watch("", "events"), watch("example.com", "widgets")},
				"": {watch("example.com", "realms")},
			},
		},
		"definitions": {
			objects: []stages.Object{of("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "widgets.example.com")},
			want:    map[string][]rbacv1.PolicyRule{"": {watch("apiextensions.k8s.io", "customresourcedefinitions")}},
		},
		"what a rule is declared for": {
			config: Config{Readiness: []Readiness{{Group: "networking.k8s.io", Kind: "NetworkPolicy",
				Check: func(*unstructured.Unstructured) (State, string) { return StateReady, "" }}}},
			objects: []stages.Object{of("networking.k8s.io/v1", "NetworkPolicy", ns, "a")},
			want:    map[string][]rbacv1.PolicyRule{ns: {watch("", "events"), watch("networking.k8s.io", "networkpolicies")}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.config = c.config
			got, err := l.verifier().RequiredRules(t.Context(), release(t, c.objects...))
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
}

// TestResourcesAreNamedWithTheirGroup: rules are made of the names.
func TestResourcesAreNamedWithTheirGroup(t *testing.T) {
	for id, k := range kinds {
		if k.discover {
			continue
		}
		own := k.needs[k.self]
		group, _, _ := strings.Cut(id, "/")
		_, named, _ := strings.Cut(own.name, ".")
		assert.Equal(t, group, named, "%s is watched as %s", id, own.name)
	}
}
