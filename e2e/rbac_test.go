package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	weights = `apiVersion: v1
kind: ConfigMap
metadata: {name: weights}
data: {light: "1"}
`
	reader = `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules:
- {apiGroups: [""], resources: [configmaps], resourceNames: [colours], verbs: [get, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: default}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: default}]
`
)

// migration is a hook that is a Job.
func (w *world) migration() string {
	return `apiVersion: batch/v1
kind: Job
metadata:
  name: migration
  annotations: {helm.sh/hook: "pre-install,pre-upgrade,post-rollback"}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: migrate, image: "` + w.box.Base.Base + `", command: ["true"]}]
`
}

// account is a service account that has the rights of one RBAC, and no others.
type account struct {
	w         *world
	namespace string
	role      string // that was emitted
	rest      *rest.Config
	kube      kubernetes.Interface
}

// account is access as cd-bot, which is made if there is none.
func (w *world) account(t *testing.T, namespace string) *account {
	t.Helper()
	ctx := labtest.Context(t)
	_, err := w.kube.CoreV1().ServiceAccounts(namespace).Apply(ctx,
		applycorev1.ServiceAccount("cd-bot", namespace), metav1.ApplyOptions{FieldManager: "e2e"})
	require.NoError(t, err)
	token, err := w.kube.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, "cd-bot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(t, err)
	a := &account{w: w, namespace: namespace, rest: rest.AnonymousClientConfig(w.rest)}
	a.rest.BearerToken = token.Status.Token
	a.rest.QPS, a.rest.Burst = w.rest.QPS, w.rest.Burst
	a.kube, err = kubernetes.NewForConfig(a.rest)
	require.NoError(t, err)
	return a
}

// grant applies what was emitted, and waits until the API server heeds it.
func (a *account) grant(t *testing.T, granted helmx.RBAC) {
	t.Helper()
	manifests, err := granted.Manifests(a.namespace + "/cd-bot")
	require.NoError(t, err)
	require.Empty(t, granted.Cluster)
	a.role = a.w.applyRBAC(t, a.namespace, manifests)
	a.requireRights(t, rightsOf(granted.Namespaces[a.namespace], a.namespace), true)
}

// requireRights waits until the API server answers so to each.
func (a *account) requireRights(t *testing.T, rights []helmx.Right, allowed bool) {
	t.Helper()
	for _, r := range rights {
		resource, sub, _ := strings.Cut(r.Resource, "/")
		require.Eventually(t, func() bool {
			answer, err := a.kube.AuthorizationV1().SelfSubjectAccessReviews().Create(labtest.Context(t), &authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
					Verb: r.Verb, Group: r.Group, Resource: resource, Subresource: sub, Namespace: r.Namespace, Name: r.Name,
				}},
			}, metav1.CreateOptions{})
			return err == nil && answer.Status.Allowed == allowed
		}, 20*time.Second, 10*time.Millisecond, "%s", r)
	}
}

// take takes one verb out of a rule, and returns the rights that are gone.
func (a *account) take(t *testing.T, granted helmx.RBAC, rule, verb int) []helmx.Right {
	t.Helper()
	rules := granted.Namespaces[a.namespace]
	gone := *rules[rule].DeepCopy()
	gone.Verbs = gone.Verbs[verb : verb+1]
	left := slices.Clone(rules)
	left[rule].Verbs = slices.Delete(slices.Clone(left[rule].Verbs), verb, verb+1)
	if len(left[rule].Verbs) == 0 {
		left = slices.Delete(left, rule, rule+1)
	}
	roles, err := a.w.kube.RbacV1().Roles(a.namespace).List(labtest.Context(t), metav1.ListOptions{FieldSelector: "metadata.name=" + a.role})
	require.NoError(t, err)
	role := &roles.Items[0]
	role.Rules = left
	_, err = a.w.kube.RbacV1().Roles(a.namespace).Update(labtest.Context(t), role, metav1.UpdateOptions{})
	require.NoError(t, err)
	rights := rightsOf([]rbacv1.PolicyRule{gone}, a.namespace)
	a.requireRights(t, rights, false)
	return rights
}

func rightsOf(rules []rbacv1.PolicyRule, namespace string) []helmx.Right {
	var out []helmx.Right
	for _, rule := range rules {
		for _, verb := range rule.Verbs {
			for _, resource := range rule.Resources {
				right := helmx.Right{Verb: verb, Group: rule.APIGroups[0], Resource: resource, Namespace: namespace}
				if len(rule.ResourceNames) == 0 {
					out = append(out, right)
				}
				for _, right.Name = range rule.ResourceNames {
					out = append(out, right)
				}
			}
		}
	}
	return out
}

// versions returns what is in a namespace, and as of when.
func (w *world) versions(t *testing.T, namespace string) map[string]string {
	t.Helper()
	ctx, all, out := labtest.Context(t), metav1.ListOptions{}, map[string]string{}
	note := func(kind string, o metav1.Object) { out[kind+" "+o.GetName()] = o.GetResourceVersion() }
	maps, err := w.kube.CoreV1().ConfigMaps(namespace).List(ctx, all)
	require.NoError(t, err)
	for i := range maps.Items {
		note("ConfigMap", &maps.Items[i])
	}
	secrets, err := w.kube.CoreV1().Secrets(namespace).List(ctx, all)
	require.NoError(t, err)
	for i := range secrets.Items {
		note("Secret", &secrets.Items[i])
	}
	jobs, err := w.kube.BatchV1().Jobs(namespace).List(ctx, all)
	require.NoError(t, err)
	for i := range jobs.Items {
		note("Job", &jobs.Items[i])
	}
	leases, err := w.kube.CoordinationV1().Leases(namespace).List(ctx, all)
	require.NoError(t, err)
	for i := range leases.Items {
		note("Lease", &leases.Items[i])
	}
	bindings, err := w.kube.RbacV1().RoleBindings(namespace).List(ctx, all)
	require.NoError(t, err)
	for i := range bindings.Items {
		note("RoleBinding", &bindings.Items[i])
	}
	return out
}

func (a *account) requireRestored(t *testing.T, d *helmx.Deployer, run string, cp stages.Checkpoint) {
	t.Helper()
	restored, err := d.Restore(labtest.Context(t), run, cp)
	require.NoError(t, err)
	require.Equal(t, stages.Restored, restored.Outcome, restored.Message)
}

// TestRBAC does everything as an account that has the emitted rules only, and
// takes them away one by one.
func TestRBAC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, mode := range []helmx.ApplyMode{helmx.ClientSide, helmx.ServerSide} {
		t.Run(string(mode), func(t *testing.T) {
			ctx, ns := labtest.Context(t), w.namespace(t)
			bot := w.account(t, ns)
			first := map[string]string{"a.yaml": colours, "b.yaml": sizes, "hook.yaml": w.migration()}
			second := map[string]string{"a.yaml": coloursAtNight, "c.yaml": weights, "role.yaml": reader, "hook.yaml": w.migration()}
			as := func(access *rest.Config, templates map[string]string) *helmx.Deployer {
				return w.parts(t, ns, templates, func(cfg *helmx.Config) {
					cfg.Apply.Mode, cfg.Kubernetes.REST, cfg.HistoryMax = mode, access, 2
				})
			}
			for _, step := range []struct {
				name      string
				templates map[string]string
			}{{"install", first}, {"upgrade", second}} {
				t.Run(step.name, func(t *testing.T) {
					granted, err := as(w.rest, step.templates).RequiredRBAC(ctx, stages.PlanRequest{}, helmx.RBACOptions{Once: true})
					require.NoError(t, err)
					bot.grant(t, granted)
					d := as(bot.rest, step.templates)
					bot.requireEachRight(t, granted, func() error {
						_, err := d.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "refused"})
						return err
					})

					bot.grant(t, granted)
					_, err = d.Plan(ctx, stages.PlanRequest{})
					require.NoError(t, err)
					before, err := d.Checkpoint(ctx, stages.CheckpointRequest{Run: step.name})
					require.NoError(t, err)
					requireDeployed(t, d, step.name)
					bot.requireRestored(t, d, step.name, before)
				})
				if t.Failed() {
					return
				}
				requireDeployed(t, as(w.rest, first), "between")
			}
		})
	}
}

// requireEachRight takes one right after the other, and requires that deploy names
// exactly it, and that nothing is changed.
func (a *account) requireEachRight(t *testing.T, granted helmx.RBAC, deploy func() error) {
	t.Helper()
	before := a.w.versions(t, a.namespace)
	for i, rule := range granted.Namespaces[a.namespace] {
		for j, verb := range rule.Verbs {
			gone := a.take(t, granted, i, j)
			err := deploy()
			var refused *helmx.PrivilegeError
			require.ErrorAs(t, err, &refused, "%s of %v", verb, rule)
			assert.True(t, stages.IsPermanent(err))
			assert.ElementsMatch(t, gone, refused.Missing)
			assert.Equal(t, "system:serviceaccount:"+a.namespace+":cd-bot", refused.Subject)
			for _, word := range []string{verb, rule.Resources[0], a.namespace, refused.Subject, "kind: Role\n"} {
				assert.ErrorContains(t, err, word)
			}
		}
	}
	assert.Equal(t, before, a.w.versions(t, a.namespace))
}

// TestRBACLasts derives the rules once, and releases revision after revision.
func TestRBACLasts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	bot := w.account(t, ns)
	cluster, err := helmx.Connect(helmx.Kubernetes{REST: bot.rest})
	require.NoError(t, err)
	defer cluster.Close()
	deployer := func(access helmx.Kubernetes, shared *helmx.Cluster, number int) *helmx.Deployer {
		return w.parts(t, ns, map[string]string{
			"a.yaml":    strings.ReplaceAll(colours, "blue", fmt.Sprintf("blue-%d", number)),
			"hook.yaml": w.migration(),
		}, func(cfg *helmx.Config) { cfg.HistoryMax, cfg.Kubernetes, cfg.Cluster = 2, access, shared })
	}
	granted, err := deployer(helmx.Kubernetes{REST: w.rest}, nil, 0).RequiredRBAC(labtest.Context(t), stages.PlanRequest{}, helmx.RBACOptions{})
	require.NoError(t, err)
	bot.grant(t, granted)
	for number := range 4 {
		requireDeployed(t, deployer(helmx.Kubernetes{}, cluster, number), fmt.Sprint("run-", number))
	}
	d := deployer(helmx.Kubernetes{}, cluster, 5)
	before, err := d.Checkpoint(labtest.Context(t), stages.CheckpointRequest{Run: "run-5"})
	require.NoError(t, err)
	requireDeployed(t, d, "run-5")
	bot.requireRestored(t, d, "run-5", before)
	questions := map[string]int{}
	for call, n := range cluster.Calls() {
		if call.Group == "authorization.k8s.io" {
			questions[call.Resource] += n
		}
	}
	assert.Equal(t, map[string]int{"selfsubjectrulesreviews": 5}, questions, "one for each deployment")
}

// TestRBACOfANewNamespace needs rights in the whole cluster, because no Role can
// be where there is no namespace yet.
func TestRBACOfANewNamespace(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t) + "-new"
	d := w.parts(t, ns, map[string]string{"a.yaml": colours}, func(cfg *helmx.Config) { cfg.CreateNamespace = true })
	granted, err := d.RequiredRBAC(labtest.Context(t), stages.PlanRequest{}, helmx.RBACOptions{})
	require.NoError(t, err)
	assert.Empty(t, granted.Namespaces)
	assert.Contains(t, fmt.Sprint(granted.Notes), ns+" does not exist")

	bot := w.account(t, w.namespace(t))
	manifests, err := granted.Manifests(bot.namespace + "/cd-bot")
	require.NoError(t, err)
	for doc := range strings.SplitSeq(string(manifests), "---\n") {
		var object unstructured.Unstructured
		require.NoError(t, yaml.Unmarshal([]byte(doc), &object.Object))
		switch object.GetKind() {
		case "ClusterRole":
			role, err := w.kube.RbacV1().ClusterRoles().Create(labtest.Context(t), into[rbacv1.ClusterRole](t, object), metav1.CreateOptions{})
			require.NoError(t, err)
			t.Cleanup(func() {
				assert.NoError(t, w.kube.RbacV1().ClusterRoles().Delete(context.Background(), role.Name, metav1.DeleteOptions{}))
			})
		case "ClusterRoleBinding":
			binding, err := w.kube.RbacV1().ClusterRoleBindings().Create(labtest.Context(t), into[rbacv1.ClusterRoleBinding](t, object), metav1.CreateOptions{})
			require.NoError(t, err)
			t.Cleanup(func() {
				assert.NoError(t, w.kube.RbacV1().ClusterRoleBindings().Delete(context.Background(), binding.Name, metav1.DeleteOptions{}))
			})
		}
	}
	bot.requireRights(t, []helmx.Right{{Verb: "create", Resource: "namespaces"}, {Verb: "list", Resource: "secrets", Namespace: ns}}, true)
	as := w.parts(t, ns, map[string]string{"a.yaml": colours}, func(cfg *helmx.Config) { cfg.CreateNamespace, cfg.Kubernetes.REST = true, bot.rest })
	before, err := as.Checkpoint(labtest.Context(t), stages.CheckpointRequest{Run: "run-1"})
	require.NoError(t, err)
	requireDeployed(t, as, "run-1")
	bot.requireRestored(t, as, "run-1", before)
	assert.Empty(t, w.versions(t, ns))
}

// TestUninstallWithEmittedRights deploys and removes a release, hooks included, with
// the rights that were emitted for it and no others.
func TestUninstallWithEmittedRights(t *testing.T) {
	w := newWorld(t)
	ctx := labtest.Context(t)
	ns := w.namespace(t)
	farewell := strings.Replace(w.migration(), "pre-install,pre-upgrade,post-rollback", "pre-delete,post-delete", 1)
	templates := map[string]string{"a.yaml": colours, "b.yaml": weights, "hook.yaml": farewell}
	bot := w.account(t, ns)
	rules, err := w.parts(t, ns, templates).RequiredRBAC(ctx, stages.PlanRequest{}, helmx.RBACOptions{Once: true, Uninstall: true})
	require.NoError(t, err)
	bot.grant(t, rules)
	d := w.parts(t, ns, templates, func(cfg *helmx.Config) { cfg.Kubernetes = helmx.Kubernetes{REST: bot.rest} })
	requireDeployed(t, d, "run-1")
	removal, err := d.Uninstall(ctx, "run-2")
	require.NoError(t, err)
	assert.Len(t, removal.Removed, 2)
	jobs, err := w.kube.BatchV1().Jobs(ns).List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	assert.Empty(t, jobs.Items, "the hooks ran, and their Jobs are gone")
}
