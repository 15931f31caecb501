package e2e_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestLeastPrivilege delivers, and rolls back, with the rights of the example's
// service account and no others.
func TestLeastPrivilege(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	bot := w.bot(t, ns)
	cfg := w.delivery(t, ns)
	cfg.Deployer = w.deployer(t, ns, bot)
	cfg.Verifiers = w.verifiers(t, bot)

	good, err := run(t, cfg, source("1.0.0"))
	require.NoError(t, err)
	_, err = run(t, cfg, source("1.1.0", crashing))
	require.ErrorIs(t, err, stages.ErrRolledBack)
	w.requireRunning(t, ns, good.Image)
}

// bot applies the example's RBAC to a namespace and returns access as its
// service account.
func (w *world) bot(t *testing.T, namespace string) *rest.Config {
	t.Helper()
	ctx := labtest.Context(t)
	manifests, err := os.ReadFile("../examples/rbac/cd-bot.yaml")
	require.NoError(t, err)
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		switch object.GetKind() {
		case "ServiceAccount":
			account := into[corev1.ServiceAccount](t, object)
			_, err = w.kube.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
		case "Role":
			_, err = w.kube.RbacV1().Roles(namespace).Create(ctx, into[rbacv1.Role](t, object), metav1.CreateOptions{})
		case "RoleBinding":
			_, err = w.kube.RbacV1().RoleBindings(namespace).Create(ctx, into[rbacv1.RoleBinding](t, object), metav1.CreateOptions{})
		default:
			t.Fatalf("a %s is not for one namespace only", object.GetKind())
		}
		require.NoError(t, err)
	}
	token, err := w.kube.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, "cd-bot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(t, err)
	access := rest.AnonymousClientConfig(w.rest)
	access.BearerToken = token.Status.Token
	access.QPS, access.Burst = w.rest.QPS, w.rest.Burst
	return access
}

func into[T any](t *testing.T, object unstructured.Unstructured) *T {
	t.Helper()
	typed := new(T)
	require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, typed, true))
	return typed
}
