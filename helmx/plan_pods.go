package helmx

import (
	"errors"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-dev/fairlead/stages"
)

// tryPod has the API server admit a pod of a workload that is made or whose
// template changes. The workload itself says nothing of quota, limit ranges and
// pod security, which would only show when its pods don't come. rendered are the
// objects that come with it.
func (t *trial) tryPod(rendered []object) error {
	if t.basis != stages.BasisLive || t.refusal != nil || !t.renewsPods() {
		return nil
	}
	pod := t.pod()
	if pod == nil {
		return nil
	}
	err := t.createPod(pod)
	if err != nil && strings.Contains(err.Error(), "looking up service account") {
		pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = "", "" // It may come with the release.
		err = t.createPod(pod)
	}
	if err != nil && strings.Contains(err.Error(), "no PriorityClass with name") && hasClass(rendered, pod.Spec.PriorityClassName) {
		pod.Spec.PriorityClassName, pod.Spec.Priority, pod.Spec.PreemptionPolicy = "", nil, nil
		err = t.createPod(pod)
	}
	if err == nil {
		return nil
	}
	if t.s.ctx.Err() != nil {
		return t.s.explain(err)
	}
	refused, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return t.s.explain(err)
	}
	status := refused.Status()
	message, _ := redact(status.Message, t.s.secrets)
	reason := classify(&status)
	switch {
	case lacksRight(&status):
		t.notes = append(t.notes, stages.Note{Kind: stages.NoteNotTried,
			Message: "pods of workloads were not tried, because the account may not create pods: quota, limits and pod security are not known for them"})
	case reason == Unavailable || reason == Unauthorized || strings.Contains(message, "looking up service account"):
		t.note(stages.NoteNotTried, "its pods could not be tried: "+message)
	case reason == QuotaExceeded && t.action != stages.Create:
		t.note(stages.NoteWarning, "there is no room for one more of its pods beside those that run: "+message)
	default:
		t.refuse(reason, "its pods would be refused: "+message)
	}
	return nil
}

// hasClass reports whether a priority class is among the objects.
func hasClass(objects []object, name string) bool {
	return slices.ContainsFunc(objects, func(o object) bool {
		return o.id.Kind == "PriorityClass" && o.gvk().Group == "scheduling.k8s.io" && o.id.Name == name
	})
}

func (t *trial) renewsPods() bool {
	switch t.action {
	case stages.Create:
		return true
	case stages.Update, stages.Adopt:
		return slices.ContainsFunc(t.fields, func(d difference) bool { return strings.HasPrefix(d.path.String(), "spec.template") })
	default:
		return false
	}
}

// pod returns a pod as the workload would make it, or nil if it makes none.
func (t *trial) pod() *corev1.Pod {
	switch t.object.gvk().Group {
	case "apps", "batch":
	default:
		return nil
	}
	template, ok, err := unstructured.NestedMap(t.object.content, "spec", "template")
	if !ok || err != nil || t.idle() {
		return nil
	}
	var typed corev1.PodTemplateSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(template, &typed); err != nil {
		return nil // The server has something to say to the workload itself.
	}
	const longest = 40
	pod := &corev1.Pod{ObjectMeta: typed.ObjectMeta, Spec: typed.Spec}
	pod.Name, pod.Namespace = "", t.object.id.Namespace
	pod.GenerateName = t.object.id.Name[:min(len(t.object.id.Name), longest)] + "-"
	return pod
}

// idle reports that the workload makes no pods for now.
func (t *trial) idle() bool {
	spec, _ := t.object.content["spec"].(map[string]any)
	none := func(count any) bool { return count != nil && same(count, int64(0)) }
	return none(spec["replicas"]) || none(spec["parallelism"]) || spec["suspend"] == true
}

// createPod tries to make a pod, as a dry run.
func (t *trial) createPod(pod *corev1.Pod) error {
	_, err := t.s.clients.CoreV1().Pods(pod.Namespace).Create(t.s.ctx, pod, metav1.CreateOptions{
		DryRun: []string{metav1.DryRunAll}, FieldManager: fieldManager,
	})
	return err
}
