package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// managersOf are all that own a field of an object.
func managersOf(entries []metav1.ManagedFieldsEntry) (names []string) {
	for _, e := range entries {
		names = append(names, e.Manager)
	}
	return names
}

// ownersOf are those that own this field, such as "f:spec", "f:http".
func ownersOf(t *testing.T, o *unstructured.Unstructured, path ...string) (names []string) {
	t.Helper()
	for _, e := range o.GetManagedFields() {
		var fields map[string]any
		require.NoError(t, json.Unmarshal(e.FieldsV1.GetRawBytes(), &fields))
		if _, owns, err := unstructured.NestedMap(fields, path...); err == nil && owns {
			names = append(names, e.Manager)
		}
	}
	return names
}

// TestWeightHasOneOwner has tools that own the route apply it in the middle of a
// canary. None of them touches the weight, and afterwards the route is theirs again.
func TestWeightHasOneOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := labtest.Context(t)
	client := w.define(t, istioCRDs, "virtualservices.networking.istio.io")
	repository := w.namespace(t)
	old, err := w.builder(t, repository).Build(ctx, source("1.0.0"))
	require.NoError(t, err)
	next, err := w.builder(t, repository).Build(ctx, source("1.1.0"))
	require.NoError(t, err)

	// apply has a tool set the host, and a time-out in the list that has the weights
	// unless it is empty.
	type apply func(ctx context.Context, api dynamic.ResourceInterface, namespace, host, timeout string) error
	serverSide := func(ctx context.Context, _ dynamic.ResourceInterface, namespace, host, timeout string) error {
		return w.routes(ctx, namespace, helmx.Apply{Mode: helmx.ServerSide, Conflicts: map[string]helmx.ConflictPolicy{traffic.FieldManager: helmx.Yield}},
			helmx.Set("host="+host), helmx.Set("timeout="+timeout))
	}
	clientSide := func(ctx context.Context, _ dynamic.ResourceInterface, namespace, host, timeout string) error {
		return w.routes(ctx, namespace, helmx.Apply{}, helmx.Set("host="+host), helmx.Set("timeout="+timeout))
	}
	for name, tool := range map[string]struct {
		apply apply
		// meddle is what the tool does in the middle of a canary to set the host.
		meddle apply
	}{
		"a tool that applies what is in Git": {
			apply: func(ctx context.Context, api dynamic.ResourceInterface, _, host, timeout string) error {
				return applyRoute(ctx, api, host, timeout)
			},
			meddle: func(ctx context.Context, api dynamic.ResourceInterface, _, host, _ string) error {
				err := applyRoute(ctx, api, host, "")
				if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), traffic.FieldManager) {
					return fmt.Errorf("no conflict with the weights' owner: %w", err)
				}
				// Such tools can be told to leave out what that one owns.
				return applyObject(ctx, api, `{spec: {hosts: [`+host+`]}}`)
			},
		},
		"helmx, server-side": {
			apply: serverSide,
			meddle: func(ctx context.Context, api dynamic.ResourceInterface, namespace, host, _ string) error {
				return serverSide(ctx, api, namespace, host, "3s") // It yields all of the list.
			},
		},
		"helm": {apply: clientSide, meddle: clientSide},
	} {
		t.Run(name, func(t *testing.T) {
			ns := w.namespace(t)
			api := client.Resource(virtualServices).Namespace(ns)
			route := func() *unstructured.Unstructured {
				o, err := api.Get(ctx, release, metav1.GetOptions{})
				require.NoError(t, err)
				return o
			}
			require.NoError(t, tool.apply(ctx, api, ns, "one.example", ""))
			owners := ownersOf(t, route(), "f:spec", "f:http")
			require.Len(t, owners, 1)
			require.NotContains(t, owners, traffic.FieldManager)
			r := w.virtualRoad(t, ns, api)
			_, err := w.canaryBy(t, ns, r).Deploy(ctx, bypassed(t, old, "run-1"))
			require.NoError(t, err)

			meddled := false
			meddle := stages.GateFunc[stages.Release](func(ctx context.Context, _ stages.Release) (stages.Decision, error) {
				d := stages.Decision{Gate: "meddler", Verdict: stages.Pass}
				if meddled {
					return d, nil
				}
				meddled = true
				assert.Equal(t, []string{traffic.FieldManager}, ownersOf(t, route(), "f:spec", "f:http"))
				assert.NoError(t, tool.meddle(ctx, api, ns, "two.example", ""))
				hosts, _, err := unstructured.NestedStringSlice(route().Object, "spec", "hosts")
				assert.NoError(t, err)
				assert.Equal(t, []string{"two.example"}, hosts, "the rest is applied")
				weight, err := r.weight(ctx)
				assert.NoError(t, err)
				assert.Equal(t, 30, weight, "and the weight is not")
				return d, nil
			})
			_, err = w.canaryBy(t, ns, r, meddle).Deploy(ctx, bypassed(t, next, "run-2"))
			require.NoError(t, err)
			require.True(t, meddled)
			w.requireNoCanary(t, w.canaryBy(t, ns, r), ns, "1.1.0", next)

			assert.NotContains(t, managersOf(route().GetManagedFields()), traffic.FieldManager)
			require.NoError(t, tool.apply(ctx, api, ns, "three.example", "5s"), "nobody is in the way any more")
			http, _, err := unstructured.NestedSlice(route().Object, "spec", "http")
			require.NoError(t, err)
			assert.Equal(t, "5s", http[0].(map[string]any)["timeout"])
			assert.Equal(t, owners, ownersOf(t, route(), "f:spec", "f:http"))
		})
	}
}

// applyRoute applies a whole VirtualService, as it would be in Git.
func applyRoute(ctx context.Context, api dynamic.ResourceInterface, host, timeout string) error {
	if timeout != "" {
		timeout = ", timeout: " + timeout
	}
	return applyObject(ctx, api, fmt.Sprintf(`{spec: {hosts: [%s], http: [{route: [
		{destination: {host: shop}, weight: 100}, {destination: {host: shop-canary}, weight: 0}]%s}]}}`, host, timeout))
}

// applyObject applies, and takes nothing from others.
func applyObject(ctx context.Context, api dynamic.ResourceInterface, text string) error {
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		return err
	}
	o.SetAPIVersion("networking.istio.io/v1")
	o.SetKind("VirtualService")
	o.SetName(release)
	_, err := api.Apply(ctx, release, o, metav1.ApplyOptions{FieldManager: "gitops"})
	return err
}
