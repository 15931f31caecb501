package traffic_test

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
)

// bothOwn are what managedFields say while a canary has traffic.
var bothOwn = []metav1.ManagedFieldsEntry{
	{Manager: "helm", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:type":{}}}`)},
	{Manager: traffic.FieldManager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:selector":{}}}`)},
}

func managers(managed []metav1.ManagedFieldsEntry) (names []string) {
	for _, m := range managed {
		names = append(names, m.Manager)
	}
	return names
}

// conflicts has the next attempts to give fields up fail, as somebody was faster.
func conflicts(attempts int) clienttesting.ReactionFunc {
	return func(action clienttesting.Action) (bool, runtime.Object, error) {
		patch, ok := action.(clienttesting.PatchAction)
		if !ok || !bytes.Contains(patch.GetPatch(), []byte("managedFields")) || attempts == 0 {
			return false, nil, nil
		}
		attempts--
		return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "objects"}, "shop", nil)
	}
}

// TestFieldsAreGivenUpInTheEnd has somebody else write to the objects at the same time.
func TestFieldsAreGivenUpInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, r := newHTTPRoute(t, route)
		require.NoError(t, r.Shift(t.Context(), 0, 10))
		require.NoError(t, k.edit(t.Context(), httpRoutes, "shop", func(o *unstructured.Unstructured) error {
			o.SetManagedFields(bothOwn)
			return nil
		}))
		k.dynamic.PrependReactor("patch", "*", conflicts(2))
		require.NoError(t, r.Shift(t.Context(), 10, 0))
		o, err := k.dynamic.Resource(httpRoutes).Namespace(ns).Get(t.Context(), "shop", metav1.GetOptions{})
		require.NoError(t, err)
		assert.Equal(t, []string{"helm"}, managers(o.GetManagedFields()))
	})
}

// TestServiceIsGivenUpInTheEnd has that fail for so long that it is left to a later
// look.
func TestServiceIsGivenUpInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, r := newReplicas(t, 4, 0)
		k.follow(t)
		require.NoError(t, r.Isolate(t.Context(), nil))
		s := k.service(t)
		s.ManagedFields = slices.Clone(bothOwn)
		_, err := k.typed.CoreV1().Services(ns).Update(t.Context(), s, metav1.UpdateOptions{})
		require.NoError(t, err)
		require.Contains(t, managers(k.service(t).ManagedFields), traffic.FieldManager)
		k.typed.PrependReactor("patch", "services", conflicts(5))
		for range 2 {
			_ = r.Shift(t.Context(), 0, 20)
			k.follow(t)
		}
		require.Equal(t, shared, k.service(t).Spec.Selector)
		require.NoError(t, r.Shift(t.Context(), 20, 50))
		assert.NotContains(t, managers(k.service(t).ManagedFields), traffic.FieldManager)
	})
}
