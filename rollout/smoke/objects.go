package smoke

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-dev/fairlead/stages"
)

// The labels of what a smoke test makes.
const (
	managedByLabel = "app.kubernetes.io/managed-by"
	componentLabel = "app.kubernetes.io/component"
	instanceLabel  = "fairlead.dev/smoke-of" // not the usual instance label, which Services select by
	component      = "smoke-test"

	deadlineAnnotation = "fairlead.dev/smoke-deadline-seconds"
)

// identity returns the name and labels of something made for a release.
func identity(rel stages.Release, namespace string, extra map[string]string, deadline time.Duration) metav1.ObjectMeta {
	labels := maps.Clone(extra)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[managedByLabel], labels[componentLabel], labels[instanceLabel] = "fairlead", component, labelValue(rel.Name)
	stem := strings.Trim(rel.Name[:min(len(rel.Name), 40)], "-.")
	return metav1.ObjectMeta{
		Namespace: namespace, Name: "smoke-" + stem + "-" + strings.ToLower(rand.Text()[:10]), Labels: labels,
		Annotations: map[string]string{deadlineAnnotation: fmt.Sprint(wholeSeconds(deadline))},
	}
}

// labelValue makes s fit for a label.
func labelValue(s string) string {
	s = strings.Trim(s[:min(len(s), validation.LabelValueMaxLength)], "-_.")
	if len(validation.IsValidLabelValue(s)) > 0 {
		return ""
	}
	return s
}

func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// sweepGrace is how long after its deadline something is left to the process that
// made it.
const sweepGrace = 30 * time.Second

// overdue reports whether what made an object must have died: it is over its
// deadline, by the API server's clock. Created is when the server made ours.
func overdue(old metav1.Object, created time.Time) bool {
	seconds, err := time.ParseDuration(old.GetAnnotations()[deadlineAnnotation] + "s")
	return err == nil && old.GetCreationTimestamp().Add(seconds+sweepGrace).Before(created)
}

// ours selects what earlier smoke tests of a release made.
func ours(rel stages.Release) metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: fmt.Sprintf("%s=fairlead,%s=%s,%s=%s", managedByLabel, componentLabel, component, instanceLabel, labelValue(rel.Name))}
}

// sweepPods deletes the pods that killed smoke tests of the release left. It
// doesn't mind failing: they have ended, and the next test tries again.
func (c cluster) sweepPods(ctx context.Context, rel stages.Release, made metav1.Object) {
	pods := c.client.CoreV1().Pods(made.GetNamespace())
	list, err := pods.List(ctx, ours(rel))
	if err != nil {
		return
	}
	for i := range list.Items {
		if old := &list.Items[i]; metav1.GetControllerOf(old) == nil && overdue(old, made.GetCreationTimestamp().Time) {
			_ = pods.Delete(ctx, old.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(old.UID))})
		}
	}
}

// sweepJobs does the same with jobs, where the cluster has not yet.
func (c cluster) sweepJobs(ctx context.Context, rel stages.Release, made metav1.Object) {
	jobs := c.client.BatchV1().Jobs(made.GetNamespace())
	list, err := jobs.List(ctx, ours(rel))
	if err != nil {
		return
	}
	background := metav1.DeletePropagationBackground
	for i := range list.Items {
		if old := &list.Items[i]; overdue(old, made.GetCreationTimestamp().Time) {
			_ = jobs.Delete(ctx, old.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(old.UID)), PropagationPolicy: &background})
		}
	}
}

// restrict makes a pod meet the restricted Pod Security level, and fit under
// quotas that want requests and limits, where it doesn't say otherwise.
func restrict(spec *corev1.PodSpec, user int64, resources *corev1.ResourceRequirements) {
	off, on := false, true
	spec.RestartPolicy = corev1.RestartPolicyNever
	orDefault(&spec.AutomountServiceAccountToken, &off)
	orDefault(&spec.EnableServiceLinks, &off)
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	s := spec.SecurityContext
	orDefault(&s.RunAsNonRoot, &on)
	orDefault(&s.RunAsUser, &user)
	orDefault(&s.RunAsGroup, &user)
	orDefault(&s.SeccompProfile, &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault})
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			restrictContainer(&containers[i], resources)
		}
	}
}

func restrictContainer(c *corev1.Container, resources *corev1.ResourceRequirements) {
	off, on := false, true
	if c.SecurityContext == nil {
		c.SecurityContext = &corev1.SecurityContext{}
	}
	s := c.SecurityContext
	orDefault(&s.AllowPrivilegeEscalation, &off)
	orDefault(&s.ReadOnlyRootFilesystem, &on)
	orDefault(&s.Capabilities, &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}})
	switch {
	case c.Resources.Requests != nil || c.Resources.Limits != nil:
	case resources != nil:
		c.Resources = *resources.DeepCopy()
	default:
		c.Resources = corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: quantity.MustParse("10m"), corev1.ResourceMemory: quantity.MustParse("32Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: quantity.MustParse("500m"), corev1.ResourceMemory: quantity.MustParse("64Mi")},
		}
	}
}

func orDefault[T any](field **T, value *T) {
	if *field == nil {
		*field = value
	}
}

func pullSecrets(names []string) []corev1.LocalObjectReference {
	var out []corev1.LocalObjectReference
	for _, name := range names {
		out = append(out, corev1.LocalObjectReference{Name: name})
	}
	return out
}
