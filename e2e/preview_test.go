package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/preview"
	"github.com/fairlead-dev/fairlead/stages"
)

// previewWorld is a namespace of a CI system whose accounts have the rights of the
// example and no others.
type previewWorld struct {
	*world
	ci       string
	prefix   string
	previews *rest.Config
	deploys  *rest.Config
}

func newPreviewWorld(t *testing.T) *previewWorld {
	t.Helper()
	w := newWorld(t)
	p := &previewWorld{world: w, ci: w.namespace(t), prefix: "e2e-" + w.suffix()}
	ctx := labtest.Context(t)
	_, err := w.kube.CoreV1().Secrets(p.ci).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "registry"}, Type: corev1.SecretTypeDockerConfigJson,
		StringData: map[string]string{corev1.DockerConfigJsonKey: `{"auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}}}`},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = w.kube.CoreV1().ServiceAccounts(p.ci).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "cd-bot"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	p.grant(t)
	p.previews, p.deploys = p.as(t, "previewer"), p.as(t, "cd-bot")
	return p
}

// role is the name that one of the example's ClusterRoles has in this test: they are of
// the whole cluster, which other tests use at the same time.
func (p *previewWorld) role(name string) string { return p.prefix + "-" + name }

// grant applies the example's RBAC.
func (p *previewWorld) grant(t *testing.T) {
	t.Helper()
	ctx := labtest.Context(t)
	manifests, err := os.ReadFile("../examples/rbac/previews.yaml")
	require.NoError(t, err)
	manifests = bytes.ReplaceAll(manifests, []byte("preview-"), []byte(p.role("preview-")))
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifests), 4096)
	rbac := p.kube.RbacV1()
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		name := object.GetName()
		switch object.GetKind() {
		case "ServiceAccount":
			_, err = p.kube.CoreV1().ServiceAccounts(p.ci).Create(ctx, into[corev1.ServiceAccount](t, object), metav1.CreateOptions{})
		case "Role":
			_, err = rbac.Roles(p.ci).Create(ctx, into[rbacv1.Role](t, object), metav1.CreateOptions{})
		case "RoleBinding":
			_, err = rbac.RoleBindings(p.ci).Create(ctx, into[rbacv1.RoleBinding](t, object), metav1.CreateOptions{})
		case "ClusterRole":
			t.Cleanup(func() {
				assert.NoError(t, rbac.ClusterRoles().Delete(context.Background(), name, metav1.DeleteOptions{}))
			})
			_, err = rbac.ClusterRoles().Create(ctx, into[rbacv1.ClusterRole](t, object), metav1.CreateOptions{})
		case "ClusterRoleBinding":
			t.Cleanup(func() {
				assert.NoError(t, rbac.ClusterRoleBindings().Delete(context.Background(), name, metav1.DeleteOptions{}))
			})
			binding := into[rbacv1.ClusterRoleBinding](t, object)
			binding.Subjects[0].Namespace = p.ci
			_, err = rbac.ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
		default:
			t.Fatalf("what is a %s?", object.GetKind())
		}
		require.NoError(t, err)
	}
}

func (p *previewWorld) as(t *testing.T, account string) *rest.Config {
	t.Helper()
	token, err := p.kube.CoreV1().ServiceAccounts(p.ci).CreateToken(labtest.Context(t), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(t, err)
	access := rest.AnonymousClientConfig(p.rest)
	access.BearerToken = token.Status.Token
	access.QPS, access.Burst = p.rest.QPS, p.rest.Burst
	return access
}

// open returns Previews with a connection of its own, as another process has.
func (p *previewWorld) open(t *testing.T, change ...func(*preview.Config)) *preview.Previews {
	t.Helper()
	client, err := kubernetes.NewForConfig(rest.CopyConfig(p.previews))
	require.NoError(t, err)
	account := func(name string) []rbacv1.Subject {
		return []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: p.ci, Name: name}}
	}
	cfg := preview.Config{
		Client: client, Prefix: p.prefix, Timeout: 2 * time.Minute,
		PullSecrets: []preview.SecretRef{{Namespace: p.ci, Name: "registry"}},
		Bindings: []preview.Binding{
			{ClusterRole: p.role("preview-content"), Subjects: account("previewer")},
			{ClusterRole: p.role("preview-deployer"), Subjects: account("cd-bot")},
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	previews, err := preview.New(cfg)
	require.NoError(t, err)
	return previews
}

// create makes a preview that is deleted with the test.
func (p *previewWorld) create(t *testing.T, previews *preview.Previews, number int) *preview.Preview {
	t.Helper()
	made, err := previews.Create(labtest.Context(t), pullRequest(number))
	require.NoError(t, err)
	t.Cleanup(func() { p.deleteNamespace(t, made.Namespace) })
	return made
}

func pullRequest(number int) preview.PullRequest {
	return preview.PullRequest{Repository: "acme/shop", Number: number, Branch: "feature/../$(x)", Author: "Ada <ada@example.com>"}
}

// TestPreview takes the preview of one pull request through its life, with the rights
// of the example's accounts.
func TestPreview(t *testing.T) {
	t.Parallel()
	p := newPreviewWorld(t)
	ctx := labtest.Context(t)
	previews := p.open(t)
	var made *preview.Preview

	parts := []struct {
		name string
		run  func(t *testing.T)
	}{
		{"several create it at once", func(t *testing.T) {
			var all sync.WaitGroup
			results, failures := make([]*preview.Preview, 4), make([]error, 4)
			for i := range results {
				opened := p.open(t)
				all.Go(func() { results[i], failures[i] = opened.Create(ctx, pullRequest(7)) })
			}
			all.Wait()
			created := 0
			for i, result := range results {
				require.NoError(t, failures[i])
				assert.Equal(t, results[0].UID, result.UID)
				if result.Created {
					created++
				}
			}
			assert.Equal(t, 1, created)
			made = results[0]
		}},
		{"its pods pull with the secret", func(t *testing.T) { p.requirePulling(t, made) }},
		{"its bounds hold", func(t *testing.T) { p.requireBounded(t, made.Namespace) }},
		{"the account sees no other secret", func(t *testing.T) {
			client, err := kubernetes.NewForConfig(p.previews)
			require.NoError(t, err)
			for _, verb := range []string{"get", "list", "patch", "create"} {
				review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
					Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: "kube-system", Verb: verb, Resource: "secrets"}},
				}, metav1.CreateOptions{})
				require.NoError(t, err)
				assert.False(t, review.Status.Allowed, verb)
			}
		}},
		{"a release goes into it", func(t *testing.T) {
			_, err := previews.URL(ctx, pullRequest(7))
			require.ErrorIs(t, err, preview.ErrNoURL)
			img, err := p.builder(t, "preview").Build(ctx, source("1.0.0"))
			require.NoError(t, err)
			deployer, err := helmx.New(helmx.Config{
				Chart: chartDir, Release: release, Namespace: made.Namespace,
				Values:     helmx.Values{Overrides: []helmx.Override{helmx.Set("ingress.enabled=true,ingress.host=pr-7.example,imagePullSecrets[0].name=" + made.PullSecrets[0])}},
				Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
				Kubernetes: helmx.Kubernetes{REST: p.deploys},
			})
			require.NoError(t, err)
			clearance, err := stages.BypassGates(img, "a preview")
			require.NoError(t, err)
			rel, err := deployer.Deploy(ctx, stages.DeployRequest{Clearance: clearance, Run: "preview-1", Source: source("1.0.0")})
			require.NoError(t, err)
			_, err = p.verifiers(t, p.deploys)[0].Verify(ctx, rel)
			require.NoError(t, err)
			p.requireRunning(t, made.Namespace, img)
			address, err := previews.URL(ctx, pullRequest(7))
			require.NoError(t, err)
			assert.Equal(t, "http://pr-7.example/", address)
			current, err := deployer.Current(ctx)
			require.NoError(t, err)
			assert.Equal(t, img, current.Image)
			assert.Equal(t, "1.0.0", current.Commit)
		}},
		{"it is renewed", func(t *testing.T) {
			again, err := previews.Create(ctx, pullRequest(7))
			require.NoError(t, err)
			assert.False(t, again.Created)
			assert.Equal(t, made.UID, again.UID)
		}},
		{"it is removed", func(t *testing.T) {
			require.NoError(t, previews.Delete(ctx, pullRequest(7)))
			_, err := p.kube.CoreV1().Namespaces().Get(ctx, made.Namespace, metav1.GetOptions{})
			assert.True(t, apierrors.IsNotFound(err), "%v", err)
			require.NoError(t, previews.Delete(ctx, pullRequest(7)))
		}},
	}
	t.Cleanup(func() {
		if made != nil {
			p.deleteNamespace(t, made.Namespace)
		}
	})
	for _, part := range parts {
		if !t.Run(part.name, part.run) {
			return
		}
	}
}

// requirePulling checks that a pod that names no secret gets the preview's from its
// account. Create has come before or after the cluster made that.
func (p *previewWorld) requirePulling(t *testing.T, made *preview.Preview) {
	t.Helper()
	account, err := p.kube.CoreV1().ServiceAccounts(made.Namespace).Get(labtest.Context(t), "default", metav1.GetOptions{})
	require.NoError(t, err)
	var names []string
	for _, ref := range account.ImagePullSecrets {
		names = append(names, ref.Name)
	}
	assert.Equal(t, made.PullSecrets, names)
}

// requireBounded checks that the API server enforces quota, defaults and pod security.
// The quota counts from the moment that Create returns.
func (p *previewWorld) requireBounded(t *testing.T, namespace string) {
	t.Helper()
	ctx := labtest.Context(t)
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	pod := func(change func(*corev1.Pod)) (*corev1.Pod, error) {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "x"},
			Spec: corev1.PodSpec{
				SecurityContext: &corev1.PodSecurityContext{
					RunAsNonRoot: new(true), RunAsUser: new(int64(65532)), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
				},
				Containers: []corev1.Container{{Name: "x", Image: "example.com/x", SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				}}},
			},
		}
		change(pod)
		return p.kube.CoreV1().Pods(namespace).Create(ctx, pod, dryRun)
	}
	// Pods can be made once the namespace has its service account.
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		fine, err := pod(func(*corev1.Pod) {})
		if assert.NoError(c, err) {
			assert.Equal(c, "512Mi", fine.Spec.Containers[0].Resources.Limits.Memory().String(), "the limit range's default")
			assert.Equal(c, []corev1.LocalObjectReference{{Name: "registry"}}, fine.Spec.ImagePullSecrets, "the account's")
		}
	}, time.Minute, 100*time.Millisecond)
	_, err := pod(func(pod *corev1.Pod) {
		pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("64")}
	})
	require.ErrorContains(t, err, "exceeded quota: fairlead-preview")
	_, err = pod(func(pod *corev1.Pod) { pod.Spec.HostNetwork = true })
	require.ErrorContains(t, err, "violates PodSecurity")
	_, err = p.kube.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "x"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}},
	}, dryRun)
	require.ErrorContains(t, err, "exceeded quota: fairlead-preview")
	policy, err := p.kube.NetworkingV1().NetworkPolicies(namespace).Get(ctx, "fairlead-preview", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Empty(t, policy.Spec.PodSelector.MatchLabels, "it is for all pods")
}

func TestPreviewThatHangsIsExplained(t *testing.T) {
	t.Parallel()
	p := newPreviewWorld(t)
	ctx := labtest.Context(t)
	made := p.create(t, p.open(t), 8)
	maps := p.kube.CoreV1().ConfigMaps(made.Namespace)
	held, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"example.com/hold"}}}, metav1.CreateOptions{})
	require.NoError(t, err)
	err = p.open(t, func(c *preview.Config) { c.Timeout = 15 * time.Second }).Delete(ctx, pullRequest(8))
	var stuck *preview.StuckError
	require.ErrorAs(t, err, &stuck)
	assert.ErrorContains(t, err, "example.com/hold")
	assert.ErrorContains(t, err, "configmaps")

	// A new preview waits for the old one, which is released meanwhile.
	again := make(chan error, 1)
	previews := p.open(t)
	go func() {
		_, err := previews.Create(ctx, pullRequest(8))
		again <- err
	}()
	held, err = maps.Get(ctx, held.Name, metav1.GetOptions{})
	require.NoError(t, err)
	held.Finalizers = nil
	_, err = maps.Update(ctx, held, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.NoError(t, <-again)
	now, err := p.kube.CoreV1().Namespaces().Get(ctx, made.Namespace, metav1.GetOptions{})
	require.NoError(t, err)
	assert.NotEqual(t, made.UID, now.UID)
}

func TestSweepRemovesOnlyItsOwn(t *testing.T) {
	p := newPreviewWorld(t)
	ctx := labtest.Context(t)
	old, fresh := p.create(t, p.open(t), 9), p.create(t, p.open(t, func(c *preview.Config) { c.TTL = 9 * preview.DefaultTTL }), 10)
	original, err := p.kube.CoreV1().Namespaces().Get(ctx, old.Namespace, metav1.GetOptions{})
	require.NoError(t, err)
	forged, err := p.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "e2e-", Labels: original.Labels, Annotations: original.Annotations,
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { p.deleteNamespace(t, forged.Name) })

	later := func(c *preview.Config) { c.Now = func() time.Time { return time.Now().Add(preview.DefaultTTL) } }
	for _, c := range []struct {
		options preview.SweepOptions
		want    preview.Outcome
	}{{preview.SweepOptions{DryRun: true}, preview.Expired}, {preview.SweepOptions{}, preview.Removed}} {
		swept, err := p.open(t, later).Sweep(ctx, c.options)
		require.NoError(t, err)
		outcomes := map[string]preview.Outcome{}
		for _, s := range swept {
			outcomes[s.Namespace] = s.Outcome
		}
		assert.Equal(t, c.want, outcomes[old.Namespace])
		assert.Equal(t, preview.Alive, outcomes[fresh.Namespace])
		assert.Equal(t, preview.Foreign, outcomes[forged.Name])
	}
	for _, name := range []string{fresh.Namespace, forged.Name, p.ci, "default"} {
		ns, err := p.kube.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		require.NoError(t, err)
		assert.Nil(t, ns.DeletionTimestamp, "%s", name)
	}
	_, err = p.kube.CoreV1().Namespaces().Get(ctx, old.Namespace, metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "%v", err)
}
