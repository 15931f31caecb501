package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// plans is a release whose plans are held against what becomes of the cluster.
type plans struct {
	*world
	ns    string
	image stages.Image
}

func newPlans(t *testing.T) *plans {
	t.Helper()
	w := newWorld(t)
	img, err := stages.ParseImage(w.box.Base.Base)
	require.NoError(t, err)
	return &plans{w, w.namespace(t), img}
}

func (p *plans) chart(t *testing.T, access *rest.Config, values ...string) *helmx.Deployer {
	t.Helper()
	cfg := helmx.Config{
		Chart: "testdata/plan", Release: "web", Namespace: p.ns,
		Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
		Kubernetes: helmx.Kubernetes{REST: access},
	}
	for _, v := range values {
		cfg.Values.Overrides = append(cfg.Values.Overrides, helmx.Set(v))
	}
	d, err := helmx.New(cfg)
	require.NoError(t, err)
	return d
}

func (p *plans) plan(t *testing.T, d *helmx.Deployer) stages.Plan {
	t.Helper()
	plan, err := d.Plan(labtest.Context(t), stages.PlanRequest{Image: p.image, Run: "plan"})
	require.NoError(t, err)
	data, err := json.Marshal(plan)
	require.NoError(t, err)
	require.NotContains(t, string(data), "password-canary", "a secret is in the plan")
	return plan
}

func (p *plans) apply(t *testing.T, d *helmx.Deployer, digest string) error {
	t.Helper()
	clearance, err := stages.BypassGates(p.image, "test of plans")
	require.NoError(t, err)
	_, err = d.Deploy(labtest.Context(t), stages.DeployRequest{Clearance: clearance, Run: "run", Plan: digest})
	return err
}

// versions tells of each object of the release when it was last changed: by its
// generation where it has one, because statuses change all the time.
func (p *plans) versions(t *testing.T) map[string]string {
	t.Helper()
	client, err := dynamic.NewForConfig(p.rest)
	require.NoError(t, err)
	out := map[string]string{}
	for _, r := range []schema.GroupVersionResource{
		{Version: "v1", Resource: "configmaps"}, {Version: "v1", Resource: "secrets"}, {Version: "v1", Resource: "services"},
		{Version: "v1", Resource: "persistentvolumeclaims"}, {Group: "apps", Version: "v1", Resource: "deployments"},
	} {
		list, err := client.Resource(r).Namespace(p.ns).List(labtest.Context(t), metav1.ListOptions{})
		require.NoError(t, err)
		for _, o := range list.Items {
			if o.GetName() != "web" || o.GetDeletionTimestamp() != nil {
				continue
			}
			version := o.GetResourceVersion()
			if o.GetGeneration() > 0 {
				version = fmt.Sprint("generation ", o.GetGeneration())
			}
			out[stages.Object{Kind: o.GetKind(), Namespace: p.ns, Name: o.GetName()}.String()] = string(o.GetUID()) + " " + version
		}
	}
	return out
}

// requireTruth deploys what was planned, and checks that exactly the objects that
// the plan names have changed.
func (p *plans) requireTruth(t *testing.T, d *helmx.Deployer) stages.Plan {
	t.Helper()
	plan := p.plan(t, d)
	before := p.versions(t)
	require.NoError(t, p.apply(t, d, plan.Digest))
	after := p.versions(t)
	var changed, planned []string
	all := maps.Clone(before)
	maps.Copy(all, after)
	for id := range all {
		if before[id] != after[id] {
			changed = append(changed, id)
		}
	}
	for _, c := range plan.Changes {
		planned = append(planned, c.Object.String())
		switch c.Action {
		case stages.Create:
			assert.Empty(t, before[c.Object.String()], c.Object)
		case stages.Delete:
			assert.Empty(t, after[c.Object.String()], c.Object)
		case stages.Update, stages.Adopt:
			assert.NotEmpty(t, c.Fields, c.Object)
		case stages.Recreate:
			assert.Fail(t, "a plan with a recreation was deployed")
		}
	}
	slices.Sort(changed)
	slices.Sort(planned)
	require.Equal(t, planned, changed, "the plan and what became of it; %+v", plan.Changes)
	return plan
}

func change(t *testing.T, plan stages.Plan, kind string) stages.Change {
	t.Helper()
	i := slices.IndexFunc(plan.Changes, func(c stages.Change) bool { return c.Object.Kind == kind })
	require.GreaterOrEqual(t, i, 0, "no change of a %s in %+v", kind, plan.Changes)
	return plan.Changes[i]
}

func field(t *testing.T, fields []stages.FieldChange, path string) stages.FieldChange {
	t.Helper()
	i := slices.IndexFunc(fields, func(f stages.FieldChange) bool { return f.Path == path })
	require.GreaterOrEqual(t, i, 0, "no %s in %+v", path, fields)
	return fields[i]
}

// edit changes a Deployment as kubectl edit does.
func (p *plans) edit(t *testing.T, patch string) {
	t.Helper()
	_, err := p.kube.AppsV1().Deployments(p.ns).Patch(labtest.Context(t), "web", types.StrategicMergePatchType, []byte(patch),
		metav1.PatchOptions{FieldManager: "kubectl-edit"})
	require.NoError(t, err)
}

func TestPlansAreTrue(t *testing.T) {
	p := newPlans(t)
	first := p.requireTruth(t, p.chart(t, p.rest, "claim=true"))
	assert.Len(t, first.Changes, 5)

	same := p.requireTruth(t, p.chart(t, p.rest, "claim=true"))
	assert.Empty(t, same.Changes)
	assert.Empty(t, same.Drift)

	d := p.chart(t, p.rest, "claim=true", "message=new", "password=second-password-canary")
	plan := p.requireTruth(t, d)
	assert.Equal(t, stages.FieldChange{Path: "data.password", From: `"` + helmx.Redacted + `"`, To: `"` + helmx.Redacted + `"`, Secret: true},
		field(t, change(t, plan, "Secret").Fields, "data.password"))
	dsn := field(t, change(t, plan, "Deployment").Fields, "spec.template.spec.containers[name=app].env[name=DSN].value")
	assert.True(t, dsn.Secret)
	assert.Equal(t, `"new"`, field(t, change(t, plan, "ConfigMap").Fields, "data.message").To)
	assert.Len(t, plan.Changes, 3)

	// Somebody edits; the release heals what it names and leaves the rest.
	p.edit(t, `{"metadata":{"labels":{"note":"mine"}},"spec":{"template":{"spec":{"containers":[{"name":"app","env":[{"name":"ENV","value":"edited"}]}]}}}}`)
	plan = p.requireTruth(t, d)
	const env = "spec.template.spec.containers[name=app].env[name=ENV].value"
	assert.Equal(t, stages.FieldChange{Path: env, From: `"edited"`, To: `"one"`, Owner: "kubectl-edit", Overwritten: true},
		field(t, change(t, plan, "Deployment").Fields, env))
	require.Len(t, plan.Drift, 1)
	assert.Equal(t, []stages.FieldChange{{Path: env, From: `"one"`, To: `"edited"`, Owner: "kubectl-edit", Overwritten: true}}, plan.Drift[0].Fields)
	assert.Empty(t, p.plan(t, d).Drift, "the label is nobody's concern")

	// Somebody deletes; the release makes it anew.
	require.NoError(t, p.kube.CoreV1().ConfigMaps(p.ns).Delete(labtest.Context(t), "web", metav1.DeleteOptions{}))
	plan = p.requireTruth(t, d)
	assert.Equal(t, stages.Create, change(t, plan, "ConfigMap").Action)
	require.Len(t, plan.Drift, 1)
	assert.True(t, plan.Drift[0].Missing)

	// The claim goes with its data.
	gate, err := helmx.RefuseDangers()
	require.NoError(t, err)
	d = p.chart(t, p.rest, "message=new", "password=second-password-canary")
	plan = p.plan(t, d)
	assert.Equal(t, stages.DangerStorage, change(t, plan, "PersistentVolumeClaim").Dangers[0].Class)
	decision, err := gate.Decide(t.Context(), plan)
	require.NoError(t, err)
	assert.Equal(t, stages.Fail, decision.Verdict)
	p.requireTruth(t, d)
}

func TestPlanNamesTheAutoscaler(t *testing.T) {
	p := newPlans(t)
	ctx := labtest.Context(t)
	d := p.chart(t, p.rest)
	require.NoError(t, p.apply(t, d, ""))
	least := int32(2)
	_, err := p.kube.AutoscalingV2().HorizontalPodAutoscalers(p.ns).Create(ctx, &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			MinReplicas: &least, MaxReplicas: 3,
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	p.await(t, func(d *appsv1.Deployment) bool { return *d.Spec.Replicas == least })

	want := stages.FieldChange{Path: "spec.replicas", From: "2", To: "1", Owner: "kube-controller-manager/scale", Overwritten: true}
	plan := p.plan(t, d)
	assert.Equal(t, want, field(t, change(t, plan, "Deployment").Fields, "spec.replicas"))
	want.From, want.To = want.To, want.From
	assert.Equal(t, want, field(t, plan.Drift[0].Fields, "spec.replicas"))
	require.NoError(t, p.kube.AutoscalingV2().HorizontalPodAutoscalers(p.ns).Delete(ctx, "web", metav1.DeleteOptions{}))
	p.requireTruth(t, d)
}

// await watches the Deployment until it is as wanted.
func (p *plans) await(t *testing.T, done func(*appsv1.Deployment) bool) {
	t.Helper()
	w, err := p.kube.AppsV1().Deployments(p.ns).Watch(labtest.Context(t), metav1.SingleObject(metav1.ObjectMeta{Name: "web"}))
	require.NoError(t, err)
	defer w.Stop()
	for event := range w.ResultChan() {
		if d, ok := event.Object.(*appsv1.Deployment); ok && done(d) {
			return
		}
	}
	require.Fail(t, "the watch has ended")
}

func TestPlanFindsWhatCantBeChanged(t *testing.T) {
	p := newPlans(t)
	require.NoError(t, p.apply(t, p.chart(t, p.rest, "claim=true"), ""))
	d := p.chart(t, p.rest, "claim=true", "selector=other")
	before := p.versions(t)
	plan := p.plan(t, d)
	c := change(t, plan, "Deployment")
	assert.Equal(t, stages.Recreate, c.Action)
	require.NotEmpty(t, c.Dangers)
	assert.Equal(t, stages.DangerImmutable, c.Dangers[0].Class)
	assert.Contains(t, c.Dangers[0].Why, "spec.selector")
	require.NotNil(t, c.Refusal)
	assert.Equal(t, `"other"`, field(t, c.Fields, "spec.selector.matchLabels.app").To)
	assert.Equal(t, stages.Update, change(t, plan, "Service").Action, "a Service's selector can be changed")
	assert.Equal(t, before, p.versions(t), "planning has changed something")
	require.Error(t, p.apply(t, d, plan.Digest), "Helm fails on it, as the plan says")
}

func TestPlanMeetsAdmission(t *testing.T) {
	p := newPlans(t)
	ctx := labtest.Context(t)
	d := p.chart(t, p.rest)

	ns, err := p.kube.CoreV1().Namespaces().Get(ctx, p.ns, metav1.GetOptions{})
	require.NoError(t, err)
	ns.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	_, err = p.kube.CoreV1().Namespaces().Update(ctx, ns, metav1.UpdateOptions{})
	require.NoError(t, err)
	refusal := change(t, p.plan(t, d), "Deployment").Refusal
	require.NotNil(t, refusal)
	assert.Equal(t, string(helmx.AdmissionDenied), refusal.Reason)
	assert.Contains(t, refusal.Message, "PodSecurity")

	quota, err := p.kube.CoreV1().ResourceQuotas(p.ns).Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "none"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/deployments.apps": resource.MustParse("0")}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	refusal = change(t, p.plan(t, d), "Deployment").Refusal
	require.NotNil(t, refusal)
	assert.Equal(t, string(helmx.QuotaExceeded), refusal.Reason)
	require.NoError(t, p.kube.CoreV1().ResourceQuotas(p.ns).Delete(ctx, quota.Name, metav1.DeleteOptions{}))

	p.forbid(t, "object.data.message != 'no'", "no message is no message")
	require.Eventually(t, func() bool { // A policy takes a moment to be known.
		c := change(t, p.plan(t, p.chart(t, p.rest, "message=no")), "ConfigMap")
		return c.Refusal != nil && c.Refusal.Reason == string(helmx.AdmissionDenied) && strings.Contains(c.Refusal.Message, "no message is no message")
	}, rolloutTimeout, 500_000_000)
	assert.Empty(t, p.versions(t), "planning has changed something")
}

// forbid makes an admission policy for the ConfigMaps of the namespace.
func (p *plans) forbid(t *testing.T, expression, message string) {
	t.Helper()
	ctx := labtest.Context(t)
	policies := p.kube.AdmissionregistrationV1()
	match := &admissionv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": p.ns}}}
	_, err := policies.ValidatingAdmissionPolicies().Create(ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: p.ns},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.OperationAll},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}}}},
			Validations: []admissionv1.Validation{{Expression: expression, Message: message}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, policies.ValidatingAdmissionPolicies().Delete(context.WithoutCancel(ctx), p.ns, metav1.DeleteOptions{}))
	})
	_, err = policies.ValidatingAdmissionPolicyBindings().Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: p.ns},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: p.ns, MatchResources: match, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, policies.ValidatingAdmissionPolicyBindings().Delete(context.WithoutCancel(ctx), p.ns, metav1.DeleteOptions{}))
	})
}

func TestBoundDeploymentRefusesWhatMoved(t *testing.T) {
	p := newPlans(t)
	ctx := labtest.Context(t)
	require.NoError(t, p.apply(t, p.chart(t, p.rest), ""))
	d := p.chart(t, p.rest, "env=two")
	plan := p.plan(t, d)

	// A status is no reason.
	_, err := p.kube.AppsV1().Deployments(p.ns).Patch(ctx, "web", types.StrategicMergePatchType,
		[]byte(`{"status":{"conditions":[{"type":"Touched","status":"True"}]}}`), metav1.PatchOptions{}, "status")
	require.NoError(t, err)
	require.NoError(t, p.apply(t, d, plan.Digest))

	for name, move := range map[string]func(){
		"Deployment " + p.ns + "/web was changed (spec.replicas by": func() {
			scale, err := p.kube.AppsV1().Deployments(p.ns).GetScale(ctx, "web", metav1.GetOptions{})
			require.NoError(t, err)
			scale.Spec.Replicas++
			scale.ResourceVersion = "" // The controller writes to the deployment at the same time.
			_, err = p.kube.AppsV1().Deployments(p.ns).UpdateScale(ctx, "web", scale, metav1.UpdateOptions{FieldManager: "kubectl"})
			require.NoError(t, err)
		},
		"spec.template.spec.containers[name=app].env[name=ENV].value by kubectl-edit": func() {
			p.edit(t, `{"spec":{"template":{"spec":{"containers":[{"name":"app","env":[{"name":"ENV","value":"theirs"}]}]}}}}`)
		},
		"ConfigMap " + p.ns + "/web is gone": func() {
			require.NoError(t, p.kube.CoreV1().ConfigMaps(p.ns).Delete(ctx, "web", metav1.DeleteOptions{}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, p.apply(t, d, p.plan(t, d).Digest))
			plan := p.plan(t, d)
			move()
			before := p.versions(t)
			err := p.apply(t, d, plan.Digest)
			require.ErrorIs(t, err, stages.ErrPlanStale)
			require.ErrorContains(t, err, name)
			assert.Equal(t, before, p.versions(t))
			moved, ok := errors.AsType[*helmx.MovedError](err)
			require.True(t, ok)
			assert.NotEmpty(t, moved.Moved)

			// Another process knows that something has moved as well.
			require.ErrorIs(t, p.apply(t, p.chart(t, p.rest, "env=two"), plan.Digest), stages.ErrPlanStale)
		})
	}
}

func TestPlanWithFewRights(t *testing.T) {
	p := newPlans(t)
	ctx := labtest.Context(t)
	require.NoError(t, p.apply(t, p.chart(t, p.rest), ""))
	all := []string{"get", "list", "watch", "create", "update", "patch", "delete"}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "few"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets", "services"}, Verbs: all},
		{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: []string{"get"}},
	}}
	_, err := p.kube.RbacV1().Roles(p.ns).Create(ctx, role, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = p.kube.RbacV1().RoleBindings(p.ns).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "few"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "few"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "few"}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	access := rest.CopyConfig(p.rest)
	access.Impersonate.UserName = "few"
	plan := p.plan(t, p.chart(t, access, "message=new", "env=two"))
	blind := map[string]bool{}
	for _, n := range plan.Notes {
		if n.Kind == stages.NoteNotCompared {
			blind[n.Object.Kind] = true
		}
	}
	assert.Equal(t, map[string]bool{"ConfigMap": true, "Deployment": true}, blind)
	assert.Equal(t, stages.BasisRelease, change(t, plan, "ConfigMap").Basis)
	assert.Equal(t, stages.BasisRelease, change(t, plan, "Deployment").Basis)
	assert.Len(t, plan.Changes, 2)
}

func TestPlanAdopts(t *testing.T) {
	p := newPlans(t)
	ctx := labtest.Context(t)
	theirs := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Data: map[string]string{"message": "theirs"}}
	theirs, err := p.kube.CoreV1().ConfigMaps(p.ns).Create(ctx, theirs, metav1.CreateOptions{})
	require.NoError(t, err)
	d := p.chart(t, p.rest)
	c := change(t, p.plan(t, d), "ConfigMap")
	assert.Equal(t, stages.Adopt, c.Action)
	require.NotNil(t, c.Refusal)
	assert.Equal(t, string(helmx.NotOwned), c.Refusal.Reason)
	require.Error(t, p.apply(t, d, ""), "Helm refuses, as the plan says")

	object, err := json.Marshal(unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{
		"labels":      map[string]any{"app.kubernetes.io/managed-by": "Helm"},
		"annotations": map[string]any{"meta.helm.sh/release-name": "web", "meta.helm.sh/release-namespace": p.ns},
	}}}.Object)
	require.NoError(t, err)
	_, err = p.kube.CoreV1().ConfigMaps(p.ns).Patch(ctx, theirs.Name, types.MergePatchType, object, metav1.PatchOptions{})
	require.NoError(t, err)
	plan := p.requireTruth(t, d)
	c = change(t, plan, "ConfigMap")
	assert.Equal(t, stages.Adopt, c.Action)
	assert.Nil(t, c.Refusal)
	assert.Equal(t, `"theirs"`, field(t, c.Fields, "data.message").From)
}
