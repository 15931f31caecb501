package e2e_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestLeastPrivilege delivers, and rolls back, with the rights of the example's
// service account and no others.
func TestLeastPrivilege(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	bot := w.bot(t, ns)
	cfg := w.delivery(t, ns)
	cfg.Deployer = w.deployer(t, ns, bot)
	cfg.Verifiers = w.verifiers(t, bot)

	good, err := run(t, cfg, source("1.0.0"))
	require.NoError(t, err)
	_, err = run(t, cfg, source("1.1.0", crashing))
	require.ErrorIs(t, err, stages.ErrRolledBack)
	w.requireRunning(t, ns, good.Image)
}

// bot applies the example's RBAC to a namespace and returns access as its
// service account.
func (w *world) bot(t *testing.T, namespace string) *rest.Config {
	t.Helper()
	manifests, err := os.ReadFile("../examples/rbac/cd-bot.yaml")
	require.NoError(t, err)
	w.applyRBAC(t, namespace, bytes.ReplaceAll(manifests, []byte("namespace: shop\n"), []byte("namespace: "+namespace+"\n")))
	return w.account(t, namespace).rest
}

// applyRBAC applies manifests of which all are in the namespace.
func (w *world) applyRBAC(t *testing.T, namespace string, manifests []byte) {
	t.Helper()
	ctx, apply := labtest.Context(t), metav1.ApplyOptions{FieldManager: "e2e", Force: true}
	client, err := dynamic.NewForConfig(w.rest)
	require.NoError(t, err)
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		require.Equal(t, namespace, object.GetNamespace(), "a %s is not for one namespace only", object.GetKind())
		kind := object.GroupVersionKind()
		resource := kind.GroupVersion().WithResource(strings.ToLower(kind.Kind) + "s")
		_, err = client.Resource(resource).Namespace(namespace).Apply(ctx, object.GetName(), &object, apply)
		require.NoError(t, err)
	}
}

func into[T any](t *testing.T, object unstructured.Unstructured) *T {
	t.Helper()
	typed := new(T)
	require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, typed, true))
	return typed
}
