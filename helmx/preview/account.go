package preview

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
)

// defaultAccount is what pods run as that name no other service account.
const defaultAccount = "default"

// attachSecrets has pods of the default account pull with the secrets. The list of an
// account's pull secrets has one owner as a whole, so that what others have put there
// is written again, as it was seen. The account may not be there yet.
func (p *Previews) attachSecrets(ctx context.Context, namespace string) error {
	api := p.cfg.Client.CoreV1().ServiceAccounts(namespace)
	for ctx.Err() == nil {
		account, err := api.Get(ctx, defaultAccount, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			fresh := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: defaultAccount}, ImagePullSecrets: p.withSecrets(nil)}
			_, err = api.Create(ctx, fresh, metav1.CreateOptions{FieldManager: fieldManager})
			if !apierrors.IsAlreadyExists(err) {
				return err
			}
			continue // The cluster has made it meanwhile.
		case err != nil:
			return err
		}
		all := p.withSecrets(account.ImagePullSecrets)
		if len(all) == len(account.ImagePullSecrets) {
			return nil
		}
		attached := coreapply.ServiceAccount(defaultAccount, namespace).WithResourceVersion(account.ResourceVersion)
		for _, ref := range all {
			attached.WithImagePullSecrets(coreapply.LocalObjectReference().WithName(ref.Name))
		}
		if _, err = api.Apply(ctx, attached, applyOptions()); !apierrors.IsConflict(err) {
			return err
		}
	}
	return context.Cause(ctx)
}

// withSecrets returns refs with those that are configured, each once.
func (p *Previews) withSecrets(refs []corev1.LocalObjectReference) []corev1.LocalObjectReference {
	all := slices.Clone(refs)
	for _, secret := range p.cfg.PullSecrets {
		if ref := (corev1.LocalObjectReference{Name: secret.Name}); !slices.Contains(all, ref) {
			all = append(all, ref)
		}
	}
	return all
}
