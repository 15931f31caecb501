package preview_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/helmx/preview"
)

func pullSecret(name string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ci", Name: name}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(canary)},
	}
}

func withSecrets(names ...string) func(*preview.Config) {
	return func(cfg *preview.Config) {
		for _, name := range names {
			cfg.PullSecrets = append(cfg.PullSecrets, preview.SecretRef{Namespace: "ci", Name: name})
		}
	}
}

// pulling are the secrets that pods of the default account pull with.
func (c *cluster) pulling(t *testing.T, namespace string) []string {
	t.Helper()
	account, err := c.CoreV1().ServiceAccounts(namespace).Get(t.Context(), "default", metav1.GetOptions{})
	require.NoError(t, err)
	var names []string
	for _, ref := range account.ImagePullSecrets {
		names = append(names, ref.Name)
	}
	return names
}

func TestDefaultAccountPullsWithTheSecrets(t *testing.T) {
	c := newCluster(pullSecret("registry"), pullSecret("mirror"))
	ns := create(t, c.previews(t, withSecrets("registry")), pull).Namespace
	assert.Equal(t, []string{"registry"}, c.pulling(t, ns), "there was no account yet")

	accounts := c.CoreV1().ServiceAccounts(ns)
	account, err := accounts.Get(t.Context(), "default", metav1.GetOptions{})
	require.NoError(t, err)
	account.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "theirs"}}
	account.Labels = map[string]string{"a": "b"}
	_, err = accounts.Update(t.Context(), account, metav1.UpdateOptions{FieldManager: "somebody"})
	require.NoError(t, err)
	create(t, c.previews(t, withSecrets("registry", "mirror")), pull)
	assert.Equal(t, []string{"theirs", "registry", "mirror"}, c.pulling(t, ns), "what others have put there stays")
	account, err = accounts.Get(t.Context(), "default", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a": "b"}, account.Labels)

	before := c.patches("serviceaccounts")
	create(t, c.previews(t, withSecrets("mirror")), pull)
	assert.Equal(t, before, c.patches("serviceaccounts"), "nothing was to be done")
}

func TestWithoutSecretsTheAccountIsLeftAlone(t *testing.T) {
	c := newCluster()
	ns := create(t, c.previews(t), pull).Namespace
	_, err := c.CoreV1().ServiceAccounts(ns).Get(t.Context(), "default", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "%v", err)
	for _, action := range c.Actions()[:len(c.Actions())-1] {
		assert.NotEqual(t, "serviceaccounts", action.GetResource().Resource, "no right to it is needed")
	}
}

// TestAccountThatOthersChange has the cluster make the account, and somebody else
// change it, between this package's look at it and its write.
func TestAccountThatOthersChange(t *testing.T) {
	c := newCluster(pullSecret("registry"))
	resource := corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	made, changed := false, false
	c.PrependReactor("create", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
		made = true
		return false, nil, c.Tracker().Create(resource, &corev1.ServiceAccount{
			ObjectMeta: metav1.ObjectMeta{Namespace: action.GetNamespace(), Name: "default", ResourceVersion: "1"},
		}, action.GetNamespace())
	})
	c.PrependReactor("patch", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if changed {
			return false, nil, nil
		}
		changed = true
		require.Contains(t, string(action.(clienttesting.PatchAction).GetPatch()), "resourceVersion", "it may replace what nobody has seen")
		theirs := &corev1.ServiceAccount{
			ObjectMeta:       metav1.ObjectMeta{Namespace: action.GetNamespace(), Name: "default", ResourceVersion: "2"},
			ImagePullSecrets: []corev1.LocalObjectReference{{Name: "theirs"}},
		}
		require.NoError(t, c.Tracker().Update(resource, theirs, action.GetNamespace()))
		return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "serviceaccounts"}, "default", errors.New("it has changed"))
	})
	ns := create(t, c.previews(t, withSecrets("registry")), pull).Namespace
	assert.True(t, made)
	assert.True(t, changed)
	assert.Equal(t, []string{"theirs", "registry"}, c.pulling(t, ns))
}
