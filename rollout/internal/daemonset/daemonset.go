// Package daemonset tells which pods of a DaemonSet are of its current template.
package daemonset

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// GenerationLabel is on each pod: the generation of the template that it was made
// from.
const GenerationLabel = "pod-template-generation"

// Current returns those of a DaemonSet's pods that its controller takes for updated:
// those of the current generation of the template, and those of the same revision.
// Where a rollback brings an earlier template back, the pods that the update had not
// reached are left as they are, with the generation that they were made from.
func Current(set *appsv1.DaemonSet, all []*corev1.Pod) []*corev1.Pod {
	generation := set.Annotations[appsv1.DeprecatedTemplateGeneration]
	var revisions []string
	for _, p := range all {
		if generation != "" && p.Labels[GenerationLabel] == generation {
			revisions = append(revisions, revisionOf(p))
		}
	}
	if len(revisions) == 0 {
		if untouched(set, all) {
			return slices.Clone(all)
		}
		return nil
	}
	var current []*corev1.Pod
	for _, p := range all {
		r := revisionOf(p)
		if p.Labels[GenerationLabel] == generation || r != "" && slices.Contains(revisions, r) {
			current = append(current, p)
		}
	}
	return current
}

func revisionOf(p *corev1.Pod) string { return p.Labels[appsv1.ControllerRevisionHashLabelKey] }

// untouched reports whether an update was taken back before it had reached any pod:
// all of them are of one revision, ready and of the template's images, and the
// controller counts them as updated. The images are compared because the pods may be
// known later than the DaemonSet's status, and be those that have been replaced.
func untouched(set *appsv1.DaemonSet, all []*corev1.Pod) bool {
	if len(all) == 0 || int(set.Status.UpdatedNumberScheduled) != len(all) {
		return false
	}
	for _, p := range all {
		if r := revisionOf(p); r == "" || r != revisionOf(all[0]) || p.DeletionTimestamp != nil || !ready(p) || !hasImages(p, set.Spec.Template.Spec) {
			return false
		}
	}
	return true
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// hasImages reports whether a pod has the template's containers with their images;
// others may have been put into it.
func hasImages(p *corev1.Pod, template corev1.PodSpec) bool {
	has := func(have, want []corev1.Container) bool {
		return !slices.ContainsFunc(want, func(w corev1.Container) bool {
			return !slices.ContainsFunc(have, func(h corev1.Container) bool { return h.Name == w.Name && h.Image == w.Image })
		})
	}
	return has(p.Spec.Containers, template.Containers) && has(p.Spec.InitContainers, template.InitContainers)
}
