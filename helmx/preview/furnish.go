package preview

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	networkingapply "k8s.io/client-go/applyconfigurations/networking/v1"
	rbacapply "k8s.io/client-go/applyconfigurations/rbac/v1"

	"github.com/fairlead-dev/fairlead/helmx/internal/slug"
	"github.com/fairlead-dev/fairlead/stages"
)

// objectName is the name of everything of which a preview has one.
const objectName = "fairlead-preview"

// applyOptions have the server apply everything with force: what somebody has changed by
// hand goes back to what is configured.
func applyOptions() metav1.ApplyOptions {
	return metav1.ApplyOptions{FieldManager: fieldManager, Force: true}
}

func ourLabels() map[string]string { return map[string]string{LabelManagedBy: ManagedBy} }

// furnish brings about what belongs into the namespace.
func (p *Previews) furnish(ctx context.Context, namespace string, secrets []*corev1.Secret) error {
	for _, b := range p.cfg.Bindings {
		if err := p.bind(ctx, namespace, b); err != nil {
			return fmt.Errorf("bind ClusterRole %s in namespace %s: %w", b.ClusterRole, namespace, err)
		}
	}
	type step struct {
		what string
		run  func() error
	}
	steps := []step{
		{"ResourceQuota", func() error { return p.applyQuota(ctx, namespace) }},
		{"LimitRange", func() error { return p.applyLimits(ctx, namespace) }},
		{"NetworkPolicy", func() error { return p.applyNetwork(ctx, namespace) }},
	}
	for _, secret := range secrets {
		steps = append(steps, step{"pull secret " + secret.Name, func() error { return p.applySecret(ctx, namespace, secret) }})
	}
	if len(secrets) > 0 {
		steps = append(steps, step{"default service account", func() error { return p.attachSecrets(ctx, namespace) }})
	}
	for _, s := range steps {
		if err := p.permitted(ctx, s.run); err != nil {
			return fmt.Errorf("apply the %s of namespace %s: %w", s.what, namespace, err)
		}
	}
	return p.awaitQuota(ctx, namespace)
}

// permitted runs step, which may be forbidden at first if the account has got its rights in the
// namespace by a binding: the API server learns of it after the fact, and has no event for that.
func (p *Previews) permitted(ctx context.Context, step func() error) error {
	if len(p.cfg.Bindings) == 0 {
		return step()
	}
	sixSeconds := wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Steps: 8}
	var err error
	waitErr := wait.ExponentialBackoffWithContext(ctx, sixSeconds, func(context.Context) (bool, error) {
		err = step()
		return !apierrors.IsForbidden(err), nil
	})
	if err == nil && waitErr != nil {
		return context.Cause(ctx)
	}
	return err
}

// bind names the binding after the role, because a binding's role can't be changed.
func (p *Previews) bind(ctx context.Context, namespace string, b Binding) error {
	name := slug.Of(len(objectName)+1+slug.HashLength, objectName, b.ClusterRole)
	binding := rbacapply.RoleBinding(name, namespace).WithLabels(ourLabels()).
		WithRoleRef(rbacapply.RoleRef().WithAPIGroup(rbacv1.GroupName).WithKind("ClusterRole").WithName(b.ClusterRole))
	for _, s := range b.Subjects {
		subject := rbacapply.Subject().WithKind(s.Kind).WithName(s.Name)
		if s.APIGroup != "" {
			subject.WithAPIGroup(s.APIGroup)
		}
		if s.Namespace != "" {
			subject.WithNamespace(s.Namespace)
		}
		binding.WithSubjects(subject)
	}
	_, err := p.cfg.Client.RbacV1().RoleBindings(namespace).Apply(ctx, binding, applyOptions())
	return err
}

func (p *Previews) applyQuota(ctx context.Context, namespace string) error {
	quota := coreapply.ResourceQuota(objectName, namespace).WithLabels(ourLabels()).
		WithSpec(coreapply.ResourceQuotaSpec().WithHard(p.cfg.Quota))
	_, err := p.cfg.Client.CoreV1().ResourceQuotas(namespace).Apply(ctx, quota, applyOptions())
	return err
}

func (p *Previews) applyLimits(ctx context.Context, namespace string) error {
	spec := coreapply.LimitRangeSpec()
	for _, item := range p.cfg.Limits {
		limits := coreapply.LimitRangeItem().WithType(item.Type)
		set(&limits.Max, item.Max)
		set(&limits.Min, item.Min)
		set(&limits.Default, item.Default)
		set(&limits.DefaultRequest, item.DefaultRequest)
		set(&limits.MaxLimitRequestRatio, item.MaxLimitRequestRatio)
		spec.WithLimits(limits)
	}
	limits := coreapply.LimitRange(objectName, namespace).WithLabels(ourLabels()).WithSpec(spec)
	_, err := p.cfg.Client.CoreV1().LimitRanges(namespace).Apply(ctx, limits, applyOptions())
	return err
}

func set(into **corev1.ResourceList, list corev1.ResourceList) {
	if len(list) > 0 {
		*into = &list
	}
}

// applyNetwork lets pods of the preview and of the configured namespaces connect.
func (p *Previews) applyNetwork(ctx context.Context, namespace string) error {
	api := p.cfg.Client.NetworkingV1().NetworkPolicies(namespace)
	if p.cfg.Network.Open {
		err := api.Delete(ctx, objectName, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	peers := []*networkingapply.NetworkPolicyPeerApplyConfiguration{
		networkingapply.NetworkPolicyPeer().WithPodSelector(metaapply.LabelSelector()),
	}
	for i := range p.cfg.Network.From {
		peers = append(peers, networkingapply.NetworkPolicyPeer().WithNamespaceSelector(selector(&p.cfg.Network.From[i])))
	}
	policy := networkingapply.NetworkPolicy(objectName, namespace).WithLabels(ourLabels()).
		WithSpec(networkingapply.NetworkPolicySpec().
			WithPodSelector(metaapply.LabelSelector()).
			WithPolicyTypes(networkingv1.PolicyTypeIngress).
			WithIngress(networkingapply.NetworkPolicyIngressRule().WithFrom(peers...)))
	_, err := api.Apply(ctx, policy, applyOptions())
	return err
}

func selector(s *metav1.LabelSelector) *metaapply.LabelSelectorApplyConfiguration {
	out := metaapply.LabelSelector().WithMatchLabels(s.MatchLabels)
	for _, e := range s.MatchExpressions {
		out.WithMatchExpressions(metaapply.LabelSelectorRequirement().WithKey(e.Key).WithOperator(e.Operator).WithValues(e.Values...))
	}
	return out
}

// pullSecrets reads the secrets that are to be copied. Its errors never hold their content.
func (p *Previews) pullSecrets(ctx context.Context) ([]*corev1.Secret, error) {
	var out []*corev1.Secret
	for _, ref := range p.cfg.PullSecrets {
		secret, err := p.cfg.Client.CoreV1().Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		switch {
		case err != nil:
			return nil, fmt.Errorf("read the pull secret %s/%s: %w", ref.Namespace, ref.Name, err)
		case secret.Type != corev1.SecretTypeDockerConfigJson || len(secret.Data[corev1.DockerConfigJsonKey]) == 0:
			return nil, fmt.Errorf("%w: secret %s/%s is of type %q; only a %s can be copied", stages.ErrInvalid,
				ref.Namespace, ref.Name, secret.Type, corev1.SecretTypeDockerConfigJson)
		}
		out = append(out, secret)
	}
	return out, nil
}

func (p *Previews) applySecret(ctx context.Context, namespace string, from *corev1.Secret) error {
	secret := coreapply.Secret(from.Name, namespace).WithLabels(ourLabels()).
		WithType(corev1.SecretTypeDockerConfigJson).
		WithData(map[string][]byte{corev1.DockerConfigJsonKey: from.Data[corev1.DockerConfigJsonKey]})
	_, err := p.cfg.Client.CoreV1().Secrets(namespace).Apply(ctx, secret, applyOptions())
	return err
}
