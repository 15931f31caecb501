package e2e_test

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/stages"
)

// The kinds of workload that the matrix has.
const (
	kindDeployment            = "Deployment"
	kindStatefulSet           = "StatefulSet"
	kindDaemonSet             = "DaemonSet"
	kindReplicaSet            = "ReplicaSet"
	kindReplicationController = "ReplicationController"
	kindJob                   = "Job"
	kindCronJob               = "CronJob"
	kindPod                   = "Pod"
)

var apiVersions = map[string]string{
	kindDeployment: "apps/v1", kindStatefulSet: "apps/v1", kindDaemonSet: "apps/v1", kindReplicaSet: "apps/v1",
	kindReplicationController: "v1", kindJob: "batch/v1", kindCronJob: "batch/v1", kindPod: "v1",
}

// replaces reports whether a change of the object makes new pods of it. Of the other
// kinds, an upgrade has to bring a new object.
func replaces(kind string) bool {
	return slices.Contains([]string{kindDeployment, kindStatefulSet, kindDaemonSet, kindCronJob}, kind)
}

// podPath is where the pod's spec is in the manifest of a kind.
func podPath(kind string) string {
	switch kind {
	case kindPod:
		return "spec."
	case kindCronJob:
		return "spec.jobTemplate.spec.template.spec."
	}
	return "spec.template.spec."
}

// workload is an object that a cell of the matrix is about.
type workload struct {
	kind, name string
	replicas   int32
	pod        corev1.PodSpec
	slots      int64 // how many of the namespace's own resource it takes
	// Settings of one kind only; zero for Kubernetes' own.
	progressDeadline, backoffLimit *int32
	activeDeadline                 *int64
}

// healthy is a workload that comes up within a second.
func healthy(kind, name, image string) *workload {
	w := &workload{kind: kind, name: name, replicas: 1}
	w.pod = corev1.PodSpec{
		TerminationGracePeriodSeconds: new(int64(1)),
		EnableServiceLinks:            new(false),
		AutomountServiceAccountToken:  new(false),
		Containers:                    []corev1.Container{{Name: "app", Image: image, Command: shell(serve)}},
	}
	if kind == kindJob || kind == kindCronJob {
		w.pod.RestartPolicy = corev1.RestartPolicyNever
		w.pod.Containers[0].Command = shell("echo done")
	}
	return w
}

// serve runs until it is asked to stop.
const serve = `trap "exit 0" TERM; while :; do sleep 1 & wait $!; done`

func shell(script string) []string { return []string{"sh", "-c", script} }

// take has the pod take its slots.
func (w *workload) take(namespace string) {
	if w.slots > 0 {
		w.app().Resources.Limits = corev1.ResourceList{slot(namespace): *resource.NewQuantity(w.slots, resource.DecimalSI)}
	}
}

func (w *workload) app() *corev1.Container { return &w.pod.Containers[0] }

// object is the workload for the release that the matrix makes.
func (w *workload) object(namespace string) stages.Object {
	return stages.Object{APIVersion: apiVersions[w.kind], Kind: w.kind, Namespace: namespace, Name: w.name}
}

// manifest is the workload as a chart's template has it.
func (w *workload) manifest() (string, error) {
	labels := map[string]string{"app": w.name}
	meta := metav1.ObjectMeta{Name: w.name, Labels: labels}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: w.pod}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	var o runtime.Object
	types := metav1.TypeMeta{APIVersion: apiVersions[w.kind], Kind: w.kind}
	switch w.kind {
	case kindDeployment:
		o = &appsv1.Deployment{TypeMeta: types, ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
			Replicas: &w.replicas, Selector: selector, Template: template, ProgressDeadlineSeconds: w.progressDeadline,
		}}
	case kindStatefulSet:
		o = &appsv1.StatefulSet{TypeMeta: types, ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{
			Replicas: &w.replicas, Selector: selector, Template: template, ServiceName: w.name,
		}}
	case kindDaemonSet:
		o = &appsv1.DaemonSet{TypeMeta: types, ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template}}
	case kindReplicaSet:
		o = &appsv1.ReplicaSet{TypeMeta: types, ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Replicas: &w.replicas, Selector: selector, Template: template}}
	case kindReplicationController:
		o = &corev1.ReplicationController{TypeMeta: types, ObjectMeta: meta, Spec: corev1.ReplicationControllerSpec{
			Replicas: &w.replicas, Selector: labels, Template: &template,
		}}
	case kindJob, kindCronJob:
		job := batchv1.JobSpec{Template: template, BackoffLimit: w.backoffLimit, ActiveDeadlineSeconds: w.activeDeadline}
		o = &batchv1.Job{TypeMeta: types, ObjectMeta: meta, Spec: job}
		if w.kind == kindCronJob { // of the shortest schedule that there is
			o = &batchv1.CronJob{TypeMeta: types, ObjectMeta: meta, Spec: batchv1.CronJobSpec{Schedule: "* * * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: job}}}
		}
	case kindPod:
		o = &corev1.Pod{TypeMeta: types, ObjectMeta: meta, Spec: w.pod}
	}
	text, err := yaml.Marshal(o)
	if err != nil {
		return "", fmt.Errorf("write the manifest of %s %s: %w", w.kind, w.name, err)
	}
	if strings.Contains(string(text), "{{") {
		return "", fmt.Errorf("the manifest of %s %s would be a template", w.kind, w.name)
	}
	return string(text), nil
}

func httpProbe(path string, port int, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt(port)}},
		PeriodSeconds: 1, FailureThreshold: failures,
	}
}

func execProbe(failures int32, command ...string) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}},
		PeriodSeconds: 1, FailureThreshold: failures,
	}
}

// remember gives the pod a folder that outlives its containers.
func (w *workload) remember() {
	w.pod.Volumes = append(w.pod.Volumes, corev1.Volume{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	mount := corev1.VolumeMount{Name: "memory", MountPath: "/memory"}
	for i := range w.pod.InitContainers {
		w.pod.InitContainers[i].VolumeMounts = append(w.pod.InitContainers[i].VolumeMounts, mount)
	}
	w.app().VolumeMounts = append(w.app().VolumeMounts, mount)
}

// failingFirst is a script that fails a number of times before it goes on.
func failingFirst(times int, then string) []string {
	return shell(fmt.Sprintf(`echo x >>/memory/tries; [ $(wc -l </memory/tries) -gt %d ] || exit 1; %s`, times, then))
}
