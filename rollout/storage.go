package rollout

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// selectedNode is written on a claim when a pod that uses it has been given a
// node, so that its volume can be made there.
const selectedNode = "volume.kubernetes.io/selected-node"

// claim: it must be bound to a volume. One that waits for its first consumer is
// not waited for: a pod of the release that uses it can't run before it is bound,
// and otherwise there is nothing to bind it for.
func (in *inspector) claim(a *assessment, o metav1.Object) {
	c, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok {
		return
	}
	s := subjectOf("PersistentVolumeClaim", c)
	switch {
	case c.Status.Phase == corev1.ClaimBound:
		a.finish("bound to " + c.Spec.VolumeName)
	case c.Status.Phase == corev1.ClaimLost:
		a.fail(VolumeLost, s, string(corev1.ClaimLost), "its volume "+c.Spec.VolumeName+" is gone, and the data with it")
	case in.waitsForConsumer(c):
		a.finish("waits for its first consumer")
	default:
		in.unbound(a, c, s)
	}
}

func (in *inspector) waitsForConsumer(c *corev1.PersistentVolumeClaim) bool {
	if c.Annotations[selectedNode] != "" || c.Spec.VolumeName != "" {
		return false
	}
	if name := c.Spec.StorageClassName; name != nil && *name != "" {
		if class, ok := object[*storagev1.StorageClass](in.world, storageClasses.name, "", *name); ok {
			return class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
		}
	}
	about := in.world.events.of(c.UID)
	return len(about) > 0 && about[len(about)-1].Reason == "WaitForFirstConsumer"
}

// unbound says why a claim is pending. A provisioner may be slow; only what it
// or the binder calls a failure counts as one.
func (in *inspector) unbound(a *assessment, c *corev1.PersistentVolumeClaim, s subject) {
	a.waiting = "it is not bound yet"
	if about := in.world.events.of(c.UID); len(about) > 0 {
		last := about[len(about)-1]
		if last.Reason == "ProvisioningFailed" || last.Reason == "FailedBinding" {
			a.fail(VolumeUnbound, s, last.Reason, last.Message)
			return
		}
		a.waiting += ": " + last.Message
	}
	a.fail(NotReconciled, s, "Pending", a.waiting)
}
