package smoke

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

const (
	container  = "smoke"
	headerPath = "/run/fairlead/headers"
	caPath     = "/run/fairlead/ca"
)

// pod returns the pod that fetches for a release.
func (p *podTest) pod(rel stages.Release, s script) *corev1.Pod {
	seconds := wholeSeconds(p.Timeout)
	pod := &corev1.Pod{
		ObjectMeta: identity(rel, cmp.Or(p.Namespace, rel.Namespace), p.Labels, p.Timeout),
		Spec: corev1.PodSpec{
			ActiveDeadlineSeconds: &seconds, ServiceAccountName: p.ServiceAccount, ImagePullSecrets: pullSecrets(p.ImagePullSecrets),
			Containers: []corev1.Container{{Name: container, Image: p.Image.String(), Command: p.Command, Args: s.arguments}},
		},
	}
	restrict(&pod.Spec, p.User, p.Resources)
	readable := int32(0o444)
	if k := p.HeadersFrom; !k.isZero() {
		mount(&pod.Spec, "headers", headerPath, corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: k.Name, DefaultMode: &readable, Items: []corev1.KeyToPath{{Key: k.Key, Path: "headers"}},
		}})
	}
	if k := p.CAFrom; !k.isZero() {
		mount(&pod.Spec, "ca", caPath, corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: k.Name}, DefaultMode: &readable, Items: []corev1.KeyToPath{{Key: k.Key, Path: "ca.pem"}},
		}})
	}
	return pod
}

func mount(spec *corev1.PodSpec, name, path string, source corev1.VolumeSource) {
	spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
	c := &spec.Containers[0]
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: path, ReadOnly: true})
}
