package rollout

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-dev/fairlead/stages"
)

// partitioned is a StatefulSet of two ready pods of the revision before, and the pods.
func partitioned(image string, partition int32) []runtime.Object {
	two := int32(2)
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Generation: 2},
		Spec: appsv1.StatefulSetSpec{Replicas: &two, Template: podTemplate(image), UpdateStrategy: appsv1.StatefulSetUpdateStrategy{
			RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: &partition},
		}},
		Status: appsv1.StatefulSetStatus{ObservedGeneration: 2, UpdateRevision: "new", CurrentRevision: "old", Replicas: 2, ReadyReplicas: 2, AvailableReplicas: 2},
	}
	out := []runtime.Object{set}
	for _, name := range []string{"shop-0", "shop-1"} {
		old := labelled(podOf(set, "StatefulSet", name, podTemplate(pinnedTo(digestB))), appsv1.ControllerRevisionHashLabelKey, "old")
		out = append(out, as(old, ready(pinnedTo(digestB))))
	}
	return out
}

func scaledToZero(image string) []runtime.Object {
	return []runtime.Object{&appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Generation: 2},
		Spec:       appsv1.StatefulSetSpec{Replicas: new(int32), Template: podTemplate(image)},
		Status:     appsv1.StatefulSetStatus{ObservedGeneration: 2},
	}}
}

// withoutNodes is a DaemonSet of which no node is to run a pod.
func withoutNodes(image string) []runtime.Object {
	return []runtime.Object{&appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "shop", UID: "set", Generation: 2},
		Spec:       appsv1.DaemonSetSpec{Template: podTemplate(image)},
		Status:     appsv1.DaemonSetStatus{ObservedGeneration: 2},
	}}
}

func suspendedCronJob(image string) []runtime.Object {
	c := cronJob(image)
	c.Spec.Suspend = new(true)
	return []runtime.Object{c}
}

func idleDeployment(image string) []runtime.Object {
	d := deployment(image, 0)
	return []runtime.Object{d, replicaSet(d, 2, d.Spec.Template)}
}

// Where nothing is to run, nothing can run another image; the verification says so.
func TestNothingIsToRunTheImage(t *testing.T) {
	set := objectOf("StatefulSet", "shop")
	for name, test := range map[string]struct {
		objects []runtime.Object
		object  stages.Object
		text    string
	}{
		"all pods are held back":       {partitioned(pinnedTo(digestA), 2), set, "0 of 0 ready; its partition keeps all pods of the revision before, and their image"},
		"more than all":                {partitioned(pinnedTo(digestA), 5), set, "its partition keeps all pods"},
		"a StatefulSet of no replicas": {scaledToZero(pinnedTo(digestA)), set, "0 of 0 ready; it is scaled to zero"},
		"a Deployment of no replicas":  {idleDeployment(pinnedTo(digestA)), objectOf("Deployment", "shop"), "0 of 0 ready; it is scaled to zero"},
		"a DaemonSet of no nodes":      {withoutNodes(pinnedTo(digestA)), objectOf("DaemonSet", "shop"), "0 of 0 ready; no node is to run it"},
		"a CronJob that is suspended":  {suspendedCronJob(pinnedTo(digestA)), stages.Object{APIVersion: "batch/v1", Kind: "CronJob", Name: "nightly"}, "suspended; it runs nothing until somebody wants it"},
		"by a tag":                     {scaledToZero(repository + ":v1"), set, "scaled to zero"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, test.objects...)
				l.config.CronRuns = true
				r := l.start(t.Context(), release(t, test.object))
				require.True(t, r.over())
				require.NoError(t, r.err)
				assert.Contains(t, r.result.Checks[0].Message, test.text)
			})
		})
	}
}

// What names another image is a mismatch, whether or not it is to run.
func TestNothingIsToRunAnotherImage(t *testing.T) {
	for name, objects := range map[string][]runtime.Object{
		"another digest":     partitioned(pinnedTo(digestB), 2),
		"another repository": scaledToZero("other:1"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newLab(t, objects...).start(t.Context(), release(t, objectOf("StatefulSet", "shop"))).failure(t)
				assert.Equal(t, ImageMismatch, f.Cause)
			})
		})
	}
}

// One workload that is idle excuses no other.
func TestAnIdleWorkloadBesideOneThatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shop := newApp(t, ns, "web")
		l := newLab(t, append(scaledToZero(pinnedTo(digestA)), shop.objects()...)...)
		r := l.start(t.Context(), release(t, objectOf("StatefulSet", "shop"), shop.release.Objects[0]))
		require.False(t, r.over(), "%v", r.err)
		l.finish(shop)
		<-r.done
		require.NoError(t, r.err)
		assert.Contains(t, r.result.Checks[0].Message, "scaled to zero")
		assert.Contains(t, r.result.Checks[1].Message, "1 of 1 ready, running")
	})
}
