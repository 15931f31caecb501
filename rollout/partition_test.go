package rollout

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// A partition holds back pods of the old revision, which must be ready too.
func TestPartitionedStatefulSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		three, partition := int32(3), int32(2)
		set := &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Generation: 2},
			Spec: appsv1.StatefulSetSpec{Replicas: &three, Template: podTemplate(pinnedTo(digestA)), UpdateStrategy: appsv1.StatefulSetUpdateStrategy{
				RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: &partition},
			}},
			Status: appsv1.StatefulSetStatus{ObservedGeneration: 2, UpdateRevision: "new", CurrentRevision: "old", Replicas: 3, ReadyReplicas: 2, AvailableReplicas: 2},
		}
		l := newLab(t, set)
		for _, name := range []string{"shop-0", "shop-1"} {
			old := labelled(podOf(set, "StatefulSet", name, podTemplate(pinnedTo(digestB))), appsv1.ControllerRevisionHashLabelKey, "old")
			l.put(as(old, ready(pinnedTo(digestB))))
		}
		updated := labelled(podOf(set, "StatefulSet", "shop-2", podTemplate(pinnedTo(digestA))), appsv1.ControllerRevisionHashLabelKey, "new")
		l.put(as(updated, ready(pinnedTo(digestA))))
		r := l.start(t.Context(), release(t, stages.Object{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "shop"}))
		require.False(t, r.over(), "a pod below the partition is not ready")
		set = set.DeepCopy()
		set.Status.ReadyReplicas, set.Status.AvailableReplicas = 3, 3
		l.put(set)
		require.True(t, r.over())
		require.NoError(t, r.err)
		assert.Contains(t, r.result.Checks[0].Message, "1 of 1 ready")
	})
}
