package preview_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/helmx/preview"
	"github.com/fairlead-dev/fairlead/stages"
)

const canary = "canary-Tr0ub4dor"

var pull = preview.PullRequest{Repository: "acme/shop", Number: 7, Branch: "feature/x", Author: "Ada <ada@example.com>"}

func create(t *testing.T, p *preview.Previews, pr preview.PullRequest) *preview.Preview {
	t.Helper()
	out, err := p.Create(t.Context(), pr)
	require.NoError(t, err)
	return out
}

func TestCreateMakesEverything(t *testing.T) {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ci", Name: "registry", Labels: map[string]string{"x": "y"}},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(canary), "other": []byte("left behind")},
	}
	c := newCluster(secret)
	p := c.previews(t, func(cfg *preview.Config) {
		cfg.URL = "https://pr-{{.Number}}.example.com"
		cfg.Labels = map[string]string{"istio-injection": "enabled"}
		cfg.PullSecrets = []preview.SecretRef{{Namespace: "ci", Name: "registry"}}
		cfg.Network.From = []metav1.LabelSelector{{MatchLabels: map[string]string{"kubernetes.io/metadata.name": "ingress"}}}
		cfg.Bindings = []preview.Binding{{ClusterRole: "deployer", Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "ci", Name: "cd-bot"}}}}
	})
	got := create(t, p, pull)
	assert.Regexp(t, `^preview-acme-shop-[a-z2-7]{13}-pr-7$`, got.Namespace)
	assert.Equal(t, &preview.Preview{
		PullRequest: pull, Namespace: got.Namespace, UID: got.UID, Created: true, Expires: noon.Add(preview.DefaultTTL),
		PullSecrets: []string{"registry"}, URL: "https://pr-7.example.com",
	}, got)
	assert.NotEmpty(t, got.UID)

	ctx := t.Context()
	ns, err := c.CoreV1().Namespaces().Get(ctx, got.Namespace, metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, "fairlead", ns.Labels[preview.LabelManagedBy])
	assert.Equal(t, "7", ns.Labels[preview.LabelNumber])
	assert.Regexp(t, "^acme-shop-", ns.Labels[preview.LabelRepository])
	assert.Regexp(t, "^ada-ada-example-com-", ns.Labels[preview.LabelOwner])
	assert.Equal(t, "restricted", ns.Labels["pod-security.kubernetes.io/enforce"])
	assert.Equal(t, "enabled", ns.Labels["istio-injection"])
	assert.Equal(t, pull.Author, ns.Annotations[preview.AnnotationAuthor])
	assert.Equal(t, "2026-03-07T12:00:00Z", ns.Annotations[preview.AnnotationExpires])

	quota, err := c.CoreV1().ResourceQuotas(ns.Name).Get(ctx, "fairlead-preview", metav1.GetOptions{})
	require.NoError(t, err)
	assert.True(t, quota.Spec.Hard.Pods().Equal(*quota.Status.Hard.Pods()))
	limits, err := c.CoreV1().LimitRanges(ns.Name).Get(ctx, "fairlead-preview", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, "512Mi", limits.Spec.Limits[0].Default.Memory().String())
	policy, err := c.NetworkingV1().NetworkPolicies(ns.Name).Get(ctx, "fairlead-preview", metav1.GetOptions{})
	require.NoError(t, err)
	require.Len(t, policy.Spec.Ingress, 1)
	require.Len(t, policy.Spec.Ingress[0].From, 2)
	assert.Equal(t, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, policy.Spec.PolicyTypes)
	assert.Equal(t, "ingress", policy.Spec.Ingress[0].From[1].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"])
	bindings, err := c.RbacV1().RoleBindings(ns.Name).List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, bindings.Items, 1)
	assert.Equal(t, "deployer", bindings.Items[0].RoleRef.Name)
	copied, err := c.CoreV1().Secrets(ns.Name).Get(ctx, "registry", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, map[string][]byte{corev1.DockerConfigJsonKey: []byte(canary)}, copied.Data)
	assert.Equal(t, corev1.SecretTypeDockerConfigJson, copied.Type)
}

func TestCreateRenewsAndMends(t *testing.T) {
	c := newCluster()
	p := c.previews(t)
	first := create(t, p, pull)
	require.NoError(t, c.CoreV1().LimitRanges(first.Namespace).Delete(t.Context(), "fairlead-preview", metav1.DeleteOptions{}))
	c.edit(t, first.Namespace, func(ns *corev1.Namespace) {
		ns.Labels["pod-security.kubernetes.io/enforce"] = "privileged"
		ns.Labels["somebody"] = "else"
		delete(ns.Annotations, preview.AnnotationExpires)
	})

	c.now = noon.Add(time.Hour)
	changed := pull
	changed.Branch = "feature/y"
	again := create(t, p, changed)
	assert.False(t, again.Created)
	assert.Equal(t, first.UID, again.UID)
	assert.Equal(t, noon.Add(time.Hour+preview.DefaultTTL), again.Expires)
	ns, err := c.find(first.Namespace)
	require.NoError(t, err)
	assert.Equal(t, "restricted", ns.Labels["pod-security.kubernetes.io/enforce"])
	assert.Equal(t, "else", ns.Labels["somebody"])
	assert.Equal(t, "feature/y", ns.Annotations[preview.AnnotationBranch])
	_, err = c.CoreV1().LimitRanges(ns.Name).Get(t.Context(), "fairlead-preview", metav1.GetOptions{})
	require.NoError(t, err)

	create(t, c.previews(t, func(cfg *preview.Config) { cfg.Network.Open = true }), pull)
	_, err = c.NetworkingV1().NetworkPolicies(ns.Name).Get(t.Context(), "fairlead-preview", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "%v", err)
	create(t, c.previews(t, func(cfg *preview.Config) { cfg.Network.Open = true }), pull)
}

func TestCreateBesideAnother(t *testing.T) {
	c := newCluster()
	raced := false
	c.PrependReactor("create", "namespaces", func(action clienttesting.Action) (bool, runtime.Object, error) {
		raced = true
		theirs := action.(clienttesting.CreateAction).GetObject().(*corev1.Namespace).DeepCopy()
		c.stamp(theirs)
		theirs.UID = "theirs"
		return false, nil, c.Tracker().Add(theirs)
	})
	got := create(t, c.previews(t), pull)
	assert.True(t, raced)
	assert.False(t, got.Created, "the other one made it")
	assert.EqualValues(t, "theirs", got.UID)
}

func TestNamesNeverCollide(t *testing.T) {
	c := newCluster()
	p := c.previews(t, func(cfg *preview.Config) { cfg.Prefix = "p" })
	seen := map[string]bool{}
	repositories := []string{"acme/shop", "acme-shop", "acme/shop/pr/1", "Acme/shop", "기능", "-x", "$(id)", "..", "a b", strings.Repeat("a", 900), strings.Repeat("a", 901)}
	for _, repository := range repositories {
		for _, number := range []int{1, 11, 9999999999} {
			got := create(t, p, preview.PullRequest{Repository: repository, Number: number, Author: "\t💥", Branch: "\n"})
			assert.Empty(t, validation.IsDNS1123Label(got.Namespace), "%q", got.Namespace)
			ns, err := c.find(got.Namespace)
			require.NoError(t, err)
			for key, value := range ns.Labels {
				assert.Empty(t, validation.IsValidLabelValue(value), "%s: %q", key, value)
			}
			seen[got.Namespace] = true
		}
	}
	assert.Len(t, seen, 3*len(repositories))
}

func TestCreateRefusesForeignNamespaces(t *testing.T) {
	for name, change := range map[string]func(*corev1.Namespace){
		"without labels":         func(ns *corev1.Namespace) { ns.Labels = nil },
		"managed by Helm":        func(ns *corev1.Namespace) { ns.Labels[preview.LabelManagedBy] = "Helm" },
		"without annotations":    func(ns *corev1.Namespace) { ns.Annotations = nil },
		"another number":         func(ns *corev1.Namespace) { ns.Labels[preview.LabelNumber] = "8" },
		"no number":              func(ns *corev1.Namespace) { ns.Labels[preview.LabelNumber] = "07" },
		"another repository":     func(ns *corev1.Namespace) { ns.Annotations[preview.AnnotationRepository] = "acme/other" },
		"another repository too": func(ns *corev1.Namespace) { ns.Labels[preview.LabelRepository] = "acme-other" },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster()
			p := c.previews(t)
			ns := create(t, p, pull).Namespace
			c.edit(t, ns, change)
			before := c.writes()

			_, err := p.Create(t.Context(), pull)
			var foreign *preview.ForeignError
			require.ErrorAs(t, err, &foreign)
			assert.Equal(t, ns, foreign.Namespace)
			assert.True(t, stages.IsPermanent(err))
			require.ErrorAs(t, p.Delete(t.Context(), pull), &foreign)
			c.now = noon.Add(999 * time.Hour)
			swept, err := p.Sweep(t.Context(), preview.SweepOptions{})
			require.NoError(t, err)
			for _, s := range swept {
				assert.Equal(t, preview.Foreign, s.Outcome)
				assert.NotEmpty(t, s.Problem)
			}
			assert.Equal(t, before, c.writes(), "something was changed")
		})
	}
}

func TestCreateRefusesSecretsOfOtherTypes(t *testing.T) {
	for name, secret := range map[string]*corev1.Secret{
		"opaque": {Type: corev1.SecretTypeOpaque, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(canary)}},
		"empty":  {Type: corev1.SecretTypeDockerConfigJson},
	} {
		secret.Namespace, secret.Name = "ci", "registry"
		c := newCluster(secret)
		_, err := c.previews(t, func(cfg *preview.Config) {
			cfg.PullSecrets = []preview.SecretRef{{Namespace: "ci", Name: "registry"}}
		}).Create(t.Context(), pull)
		require.ErrorIs(t, err, stages.ErrInvalid, name)
		assert.NotContains(t, err.Error(), canary)
		assert.Zero(t, c.writes(), "nothing may be made")
	}
}

func TestCreateWaitsForItsRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		refusals := 3
		c.PrependReactor("patch", "resourcequotas", func(clienttesting.Action) (bool, runtime.Object, error) {
			if refusals == 0 {
				return false, nil, nil
			}
			refusals--
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "resourcequotas"}, "fairlead-preview", nil)
		})
		_, err := c.previews(t).Create(t.Context(), pull)
		require.True(t, apierrors.IsForbidden(err), "without a binding nothing will change: %v", err)
		refusals = 3
		bound := func(cfg *preview.Config) {
			cfg.Bindings = []preview.Binding{{ClusterRole: "x", Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "ci"}}}}
		}
		create(t, c.previews(t, bound), pull)
		refusals = 1000
		_, err = c.previews(t, bound).Create(t.Context(), pull)
		require.True(t, apierrors.IsForbidden(err), "%v", err)
	})
}

func TestCreateWaitsForTheQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.quotaStalls = true
		start := time.Now()
		_, err := c.previews(t).Create(t.Context(), pull)
		require.ErrorContains(t, err, "to be in force: not done after 5m0s")
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, preview.DefaultTimeout, time.Since(start))

		done := make(chan error, 1)
		again := c.previews(t)
		go func() { _, err := again.Create(t.Context(), pull); done <- err }()
		synctest.Wait()
		quotas, err := c.CoreV1().ResourceQuotas("").List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		quota := quotas.Items[0]
		quota.Status.Hard, quota.Status.Used = quota.Spec.Hard, quota.Spec.Hard
		_, err = c.CoreV1().ResourceQuotas(quota.Namespace).UpdateStatus(t.Context(), &quota, metav1.UpdateOptions{})
		require.NoError(t, err)
		require.NoError(t, <-done)
	})
}

func TestCreateWaitsForTheFormerNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		p := c.previews(t)
		first := create(t, p, pull)
		c.edit(t, first.Namespace, func(ns *corev1.Namespace) { ns.DeletionTimestamp = &metav1.Time{Time: noon} })

		var second *preview.Preview
		done := make(chan error, 1)
		go func() {
			var err error
			second, err = p.Create(t.Context(), pull)
			done <- err
		}()
		synctest.Wait()
		c.finish(t, first.Namespace)
		require.NoError(t, <-done)
		assert.True(t, second.Created)
		assert.NotEqual(t, first.UID, second.UID)
	})
}

func TestDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		p := c.previews(t)
		require.NoError(t, p.Delete(t.Context(), pull), "there is none")
		name := create(t, p, pull).Namespace
		c.holds[name] = true
		done := make(chan error, 1)
		go func() { done <- p.Delete(t.Context(), pull) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatal("it is not gone yet", err)
		default:
		}
		c.finish(t, name)
		require.NoError(t, <-done)
		require.NoError(t, p.Delete(t.Context(), pull))
	})
}

func TestDeleteTellsWhatItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		p := c.previews(t)
		name := create(t, p, pull).Namespace
		c.holds[name] = true
		go func() {
			time.Sleep(time.Minute)
			err := c.change(name, func(ns *corev1.Namespace) {
				ns.Finalizers = []string{"example.com/vpc"}
				ns.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
				ns.Status.Conditions = []corev1.NamespaceCondition{
					{Type: corev1.NamespaceDeletionDiscoveryFailure, Status: corev1.ConditionFalse, Message: "all is well"},
					{Type: corev1.NamespaceFinalizersRemaining, Status: corev1.ConditionTrue, Message: "Some content in the namespace has finalizers remaining: example.com/db in 1 resource instances"},
				}
			})
			assert.NoError(t, err)
		}()
		err := p.Delete(t.Context(), pull)
		var stuck *preview.StuckError
		require.ErrorAs(t, err, &stuck)
		assert.Equal(t, []string{"example.com/vpc"}, stuck.Finalizers)
		require.Len(t, stuck.Problems, 1)
		assert.ErrorContains(t, err, "example.com/db in 1 resource instances; finalizers of the namespace itself: example.com/vpc")
		assert.ErrorContains(t, err, "since 2026-03-04T12:00:00Z")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = p.Delete(ctx, pull)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorAs(t, err, &stuck)
		cancelled, stop := context.WithCancel(t.Context())
		stop()
		_, err = p.Create(cancelled, pull)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestURL(t *testing.T) {
	c := newCluster()
	p := c.previews(t)
	ns := create(t, p, pull).Namespace
	_, err := p.URL(t.Context(), pull)
	require.ErrorIs(t, err, preview.ErrNoURL)
	_, err = c.NetworkingV1().Ingresses(ns).Create(t.Context(), &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: "shop"},
		Spec: networkingv1.IngressSpec{
			Rules: []networkingv1.IngressRule{{}, {Host: "shop.example.com"}},
			TLS:   []networkingv1.IngressTLS{{Hosts: []string{"shop.example.com"}}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	got, err := p.URL(t.Context(), pull)
	require.NoError(t, err)
	assert.Equal(t, "https://shop.example.com/", got)

	got, err = c.previews(t, func(cfg *preview.Config) { cfg.URL = "http://{{.Namespace}}.example.com" }).URL(t.Context(), pull)
	require.NoError(t, err)
	assert.Equal(t, "http://"+ns+".example.com", got)
	_, err = p.URL(t.Context(), preview.PullRequest{})
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func TestRefusesBadInput(t *testing.T) {
	c := newCluster()
	for _, cfg := range []preview.Config{
		{},
		{Client: c, Prefix: "Preview"},
		{Client: c, Prefix: "a-very-long-prefix"},
		{Client: c, TTL: time.Second},
		{Client: c, Timeout: -1},
		{Client: c, PodSecurity: "none"},
		{Client: c, Labels: map[string]string{preview.LabelNumber: "1"}},
		{Client: c, Labels: map[string]string{"a b": "1"}},
		{Client: c, URL: "https://example.com"},
		{Client: c, URL: "ftp://{{.Number}}"},
		{Client: c, URL: "https://{{.Branch}}"},
		{Client: c, Network: preview.Network{Open: true, From: []metav1.LabelSelector{{}}}},
		{Client: c, Network: preview.Network{From: []metav1.LabelSelector{{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "x", Operator: "Is"}}}}}},
		{Client: c, PullSecrets: []preview.SecretRef{{Name: "x"}}},
		{Client: c, PullSecrets: []preview.SecretRef{{Namespace: "a", Name: "x"}, {Namespace: "b", Name: "x"}}},
		{Client: c, Bindings: []preview.Binding{{ClusterRole: "x"}}},
	} {
		_, err := preview.New(cfg)
		assert.ErrorIs(t, err, stages.ErrInvalid, "%+v", cfg)
	}
	p := c.previews(t)
	for _, pr := range []preview.PullRequest{
		{}, {Repository: "x"}, {Number: 1}, {Repository: "x", Number: -1}, {Repository: "\xff", Number: 1},
		{Repository: "x", Number: 1, Author: strings.Repeat("a", 2000)}, {Repository: "x", Number: 10000000000},
	} {
		_, err := p.Create(t.Context(), pr)
		assert.ErrorIs(t, err, stages.ErrInvalid, "%+v", pr)
		assert.ErrorIs(t, p.Delete(t.Context(), pr), stages.ErrInvalid, "%+v", pr)
	}
	assert.Empty(t, c.Actions())
}
