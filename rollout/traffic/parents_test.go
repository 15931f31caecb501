package traffic_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// TestHTTPRouteSettlesForItsParents checks that all parents of the spec must have
// taken a route, and those that it doesn't name any more need not.
func TestHTTPRouteSettlesForItsParents(t *testing.T) {
	const ok = ", controllerName: e/x, conditions: [{type: Accepted, status: 'True', observedGeneration: 3}, {type: ResolvedRefs, status: 'True', observedGeneration: 3}]}"
	const old = ", controllerName: e/x, conditions: [{type: Accepted, status: 'True', observedGeneration: 2}, {type: ResolvedRefs, status: 'True', observedGeneration: 2}]}"
	const refused = ", controllerName: e/x, conditions: [{type: Accepted, status: 'False', reason: NotAllowedByListeners, observedGeneration: 3}]}"
	for name, tt := range map[string]struct{ spec, status, problem string }{
		"the one there is":                  {"[{name: a}]", "[{parentRef: {name: a}" + ok + "]", ""},
		"a stale one beside it":             {"[{name: a}]", "[{parentRef: {name: a}" + ok + ", {parentRef: {name: old}" + old + "]", ""},
		"a stale one that refuses":          {"[{name: a}]", "[{parentRef: {name: old}" + refused + ", {parentRef: {name: a}" + ok + "]", ""},
		"only a stale one":                  {"[{name: a}]", "[{parentRef: {name: old}" + ok + "]", "gateway a: not Accepted (no controller has said anything yet)"},
		"one is missing":                    {"[{name: a}, {name: b}]", "[{parentRef: {name: a}" + ok + "]", "gateway b: not Accepted (no controller has said anything yet)"},
		"one has not observed it":           {"[{name: a}, {name: b}]", "[{parentRef: {name: a}" + ok + ", {parentRef: {name: b}" + old + "]", "gateway b: not Accepted (not observed yet)"},
		"both":                              {"[{name: a}, {name: b}]", "[{parentRef: {name: b}" + ok + ", {parentRef: {name: a}" + ok + "]", ""},
		"defaults in the status":            {"[{name: a}]", "[{parentRef: {group: gateway.networking.k8s.io, kind: Gateway, namespace: shop, name: a}" + ok + "]", ""},
		"defaults in the spec":              {"[{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop, name: a}]", "[{parentRef: {name: a}" + ok + "]", ""},
		"one of another namespace":          {"[{name: a, namespace: infra}]", "[{parentRef: {name: a}" + ok + "]", "gateway infra/a: not Accepted"},
		"another listener":                  {"[{name: a, sectionName: http}, {name: a, sectionName: https}]", "[{parentRef: {name: a, sectionName: http}" + ok + "]", "gateway a, section https: not Accepted"},
		"another port":                      {"[{name: a, port: 80}, {name: a, port: 443}]", "[{parentRef: {name: a, port: 80}" + ok + "]", "gateway a, port 443: not Accepted"},
		"a Service of a mesh":               {"[{group: '', kind: Service, name: shop}]", "[{parentRef: {group: '', kind: Service, name: shop}" + ok + "]", ""},
		"a Gateway with the Service's name": {"[{group: '', kind: Service, name: shop}]", "[{parentRef: {name: shop}" + ok + "]", "Service shop: not Accepted"},
		"two controllers, one refuses":      {"[{name: a}]", "[{parentRef: {name: a}" + ok + ", {parentRef: {name: a}" + refused + "]", "gateway a: not Accepted (NotAllowedByListeners)"},
		"none":                              {"[]", "[{parentRef: {name: old}" + ok + "]", "it has no parentRefs"},
	} {
		t.Run(name, func(t *testing.T) {
			k, r := newHTTPRoute(t, route)
			require.NoError(t, k.edit(t.Context(), httpRoutes, "shop", func(o *unstructured.Unstructured) error {
				o.SetGeneration(3)
				for text, path := range map[string][]string{tt.spec: {"spec", "parentRefs"}, tt.status: {"status", "parents"}} {
					var list []any
					require.NoError(t, yaml.Unmarshal([]byte(text), &list))
					require.NoError(t, unstructured.SetNestedSlice(o.Object, list, path...))
				}
				return nil
			}))
			split, err := r.Observe(t.Context())
			require.NoError(t, err)
			assert.Equal(t, tt.problem == "", split.Settled, split)
			assert.Contains(t, split.Detail, tt.problem)
		})
	}
}
