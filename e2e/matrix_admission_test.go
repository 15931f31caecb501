package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/rollout"
)

// admissionFaults keep the API server from taking the pods.
func admissionFaults() []fault {
	unchanged := func(_ *matrix, w *workload) { w.app().Env = []corev1.EnvVar{{Name: "VERSION", Value: "2"}} }
	return []fault{
		{name: "quota", kinds: slices.Concat(controlled, derived), cause: rollout.QuotaExceeded, broken: unchanged, around: quota(corev1.ResourcePods, "0")},
		{name: "quota on cpu", kinds: controlled, cause: rollout.QuotaExceeded, field: app + ".resources.requests.cpu", around: quota(corev1.ResourceRequestsCPU, "50m"), broken: func(_ *matrix, w *workload) {
			w.app().Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
		}},
		{name: "quota wants a limit", kinds: controlled, cause: rollout.QuotaExceeded, field: app + ".resources.limits.memory", broken: unchanged, around: quota(corev1.ResourceLimitsMemory, "1Gi")},
		{name: "LimitRange", kinds: controlled, cause: rollout.LimitRange, field: app + ".resources.limits.memory", around: limitRange, broken: func(_ *matrix, w *workload) {
			w.app().Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
		}},
		{name: "Pod Security", kinds: controlled, cause: rollout.PodSecurity, field: app + ".securityContext.allowPrivilegeEscalation", broken: unchanged, around: func(ctx context.Context, m *matrix, namespace string) error {
			_, err := m.world.kube.CoreV1().Namespaces().Patch(ctx, namespace, types.MergePatchType, []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`), metav1.PatchOptions{})
			return err
		}},
		{name: "admission webhook is down", kinds: controlled, cause: rollout.WebhookFailed, broken: unchanged, around: brokenWebhook},
		{name: "admission webhook denies", kinds: controlled, cause: rollout.AdmissionDenied, field: app + ".image", broken: unchanged, around: webhook("deny")},
		{name: "ValidatingAdmissionPolicy", kinds: controlled, cause: rollout.PolicyDenied, field: "/spec.template.metadata.annotations", broken: unchanged, around: admissionPolicy},
		{name: "no such ServiceAccount", kinds: controlled, cause: rollout.NoServiceAccount, field: "serviceAccountName", broken: func(_ *matrix, w *workload) {
			w.pod.ServiceAccountName = "nobody"
		}},
		{name: "no such RuntimeClass", kinds: controlled, cause: rollout.NoRuntimeClass, field: "runtimeClassName", broken: func(_ *matrix, w *workload) {
			w.pod.RuntimeClassName = new("no-such")
		}},
		{name: "no such PriorityClass", kinds: controlled, cause: rollout.NoPriorityClass, field: "priorityClassName", broken: func(_ *matrix, w *workload) {
			w.pod.PriorityClassName = "no-such"
		}},
	}
}

func quota(name corev1.ResourceName, hard string) func(context.Context, *matrix, string) error {
	return func(ctx context.Context, m *matrix, namespace string) error {
		created, err := m.world.kube.CoreV1().ResourceQuotas(namespace).Create(ctx, &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "small"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{name: resource.MustParse(hard)}},
		}, metav1.CreateOptions{})
		for err == nil && len(created.Status.Hard) == 0 && pause(ctx, 100*time.Millisecond) {
			created, err = m.world.kube.CoreV1().ResourceQuotas(namespace).Get(ctx, "small", metav1.GetOptions{})
		}
		return err
	}
}

func limitRange(ctx context.Context, m *matrix, namespace string) error {
	_, err := m.world.kube.CoreV1().LimitRanges(namespace).Create(ctx, &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "small"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")},
		}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	pause(ctx, time.Second) // for the API server's cache
	return nil
}

// only selects a namespace, so that no other test feels what the cluster is told.
func only(namespace string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": namespace}}
}

var newPods = admissionv1.RuleWithOperations{
	Operations: []admissionv1.OperationType{admissionv1.Create},
	Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
}

func brokenWebhook(ctx context.Context, m *matrix, namespace string) error {
	if err := m.admitBy(ctx, namespace, admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: namespace, Name: "nowhere"}}); err != nil {
		return err
	}
	return m.refused(ctx, namespace)
}

// admitBy has a webhook asked about the pods of a namespace.
func (m *matrix) admitBy(ctx context.Context, namespace string, client admissionv1.WebhookClientConfig) error {
	webhooks := m.world.kube.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := webhooks.Create(ctx, &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Webhooks: []admissionv1.ValidatingWebhook{{
			Name: "pods.matrix.example", ClientConfig: client,
			Rules: []admissionv1.RuleWithOperations{newPods}, NamespaceSelector: only(namespace), TimeoutSeconds: new(int32(1)),
			FailurePolicy: new(admissionv1.Fail), SideEffects: new(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	m.afterwards(func(ctx context.Context) error { return webhooks.Delete(ctx, namespace, metav1.DeleteOptions{}) })
	return nil
}

func admissionPolicy(ctx context.Context, m *matrix, namespace string) error {
	policies, bindings := m.world.kube.AdmissionregistrationV1().ValidatingAdmissionPolicies(), m.world.kube.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	_, err := policies.Create(ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy:    new(admissionv1.Fail),
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: newPods}}},
			Validations:      []admissionv1.Validation{{Expression: "has(object.metadata.annotations) && 'owner' in object.metadata.annotations"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	m.afterwards(func(ctx context.Context) error { return policies.Delete(ctx, namespace, metav1.DeleteOptions{}) })
	_, err = bindings.Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: namespace, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			MatchResources: &admissionv1.MatchResources{NamespaceSelector: only(namespace)},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	m.afterwards(func(ctx context.Context) error { return bindings.Delete(ctx, namespace, metav1.DeleteOptions{}) })
	return m.refused(ctx, namespace)
}

// refused waits until the API server refuses pods in a namespace.
func (m *matrix) refused(ctx context.Context, namespace string) error {
	probe := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Spec: healthy(kindPod, "probe", m.world.box.Base.Base).pod}
	for pause(ctx, 200*time.Millisecond) {
		if _, err := m.world.kube.CoreV1().Pods(namespace).Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
			return nil //nolint:nilerr // that is what is waited for
		}
	}
	return fmt.Errorf("namespace %s never refused a pod: %w", namespace, context.Cause(ctx))
}
