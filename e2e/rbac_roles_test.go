package e2e_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// warden is a role of a chart that grants more than its deployer has.
const warden = `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: warden}
rules:
- {apiGroups: [""], resources: [services], verbs: [watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: warden}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: warden}
subjects: [{kind: ServiceAccount, name: default}]
`

// TestRolesThatStay upgrades a chart with a role as an account that could not have
// made that role.
func TestRolesThatStay(t *testing.T) {
	w := newWorld(t)
	ctx, ns := labtest.Context(t), w.namespace(t)
	bot := w.account(t, ns)
	admin := func(templates map[string]string) *helmx.Deployer { return w.parts(t, ns, templates) }
	as := func(templates map[string]string) *helmx.Deployer {
		return w.parts(t, ns, templates, func(cfg *helmx.Config) { cfg.Kubernetes.REST = bot.rest })
	}
	first := map[string]string{"a.yaml": colours, "role.yaml": warden}
	next := map[string]string{"a.yaml": coloursAtNight, "role.yaml": warden}
	requireDeployed(t, admin(first), "by-admin")

	granted, err := admin(next).RequiredRBAC(ctx, stages.PlanRequest{}, helmx.RBACOptions{Once: true})
	require.NoError(t, err)
	for _, right := range rightsOf(granted.Namespaces[ns], ns) {
		assert.NotEqual(t, "services", right.Resource)
		assert.NotContains(t, []string{"escalate", "bind"}, right.Verb)
	}
	bot.grant(t, granted)
	d := as(next)
	before, err := d.Checkpoint(ctx, stages.CheckpointRequest{Run: "by-bot"})
	require.NoError(t, err)
	requireDeployed(t, d, "by-bot")
	bot.requireRestored(t, d, "by-bot", before)

	grown := map[string]string{"a.yaml": colours, "role.yaml": strings.Replace(warden, "[watch]", "[watch, list]", 1)}
	unchanged := w.versions(t, ns)
	refused := requireMissing(t, as(grown))
	for _, verb := range []string{"list", "watch"} {
		assert.Contains(t, refused, helmx.Right{Verb: verb, Resource: "services", Namespace: ns})
	}

	// A role that somebody has edited is written again, and then its rights count.
	role, err := w.kube.RbacV1().Roles(ns).Get(ctx, "warden", metav1.GetOptions{})
	require.NoError(t, err)
	role.Rules = nil
	_, err = w.kube.RbacV1().Roles(ns).Update(ctx, role, metav1.UpdateOptions{})
	require.NoError(t, err)
	assert.Contains(t, requireMissing(t, as(next)), helmx.Right{Verb: "watch", Resource: "services", Namespace: ns})
	assert.Equal(t, unchanged, w.versions(t, ns))
}

// requireMissing returns the rights for the want of which a deployment is refused.
func requireMissing(t *testing.T, d *helmx.Deployer) []helmx.Right {
	t.Helper()
	_, err := d.DeployUnscanned(labtest.Context(t), helmx.UnscannedRequest{Run: "refused"})
	var refused *helmx.PrivilegeError
	require.ErrorAs(t, err, &refused)
	return refused.Missing
}

// TestRolesThatCannotBeRead binds roles of the cluster as an account that may not
// look at them: whether it may bind them is for the API server to say.
func TestRolesThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	ctx := labtest.Context(t)
	for name, c := range map[string]struct {
		role    rbacv1.PolicyRule
		more    []rbacv1.PolicyRule
		missing bool
	}{
		"which grants what the account has": {
			role: rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"colours"}, Verbs: []string{"get"}},
		},
		"which grants more": {
			role:    rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"watch"}},
			missing: true,
		},
		"which grants more, and may be bound": {
			role: rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"watch"}},
			more: []rbacv1.PolicyRule{{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}, Verbs: []string{"bind"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := w.namespace(t)
			bot := w.account(t, ns)
			role, err := w.kube.RbacV1().ClusterRoles().Create(ctx,
				&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}, Rules: []rbacv1.PolicyRule{c.role}}, metav1.CreateOptions{})
			require.NoError(t, err)
			t.Cleanup(func() {
				assert.NoError(t, w.kube.RbacV1().ClusterRoles().Delete(context.Background(), role.Name, metav1.DeleteOptions{}))
			})
			templates := map[string]string{"a.yaml": colours, "binding.yaml": `apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: bound}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ` + role.Name + `}
subjects: [{kind: ServiceAccount, name: default}]
`}
			granted, err := w.parts(t, ns, templates).RequiredRBAC(ctx, stages.PlanRequest{}, helmx.RBACOptions{Once: true})
			require.NoError(t, err)
			bind := helmx.Right{Verb: "bind", Group: rbacv1.GroupName, Resource: "clusterroles", Namespace: ns, Name: role.Name}
			require.Contains(t, rightsOf(granted.Namespaces[ns], ns), bind, "which is what the derivation asks for, and is taken here")
			for i := range c.more {
				c.more[i].ResourceNames = []string{role.Name}
			}
			rules := c.more
			for _, r := range granted.Namespaces[ns] {
				if r.Verbs[0] != "bind" {
					rules = append(rules, r)
				}
			}
			granted.Namespaces[ns] = rules
			bot.grant(t, granted)
			bot.requireRights(t, []helmx.Right{{Verb: "get", Group: rbacv1.GroupName, Resource: "clusterroles", Name: role.Name}}, false)

			d := w.parts(t, ns, templates, func(cfg *helmx.Config) { cfg.Kubernetes.REST = bot.rest })
			if c.missing {
				before := w.versions(t, ns)
				assert.Equal(t, []helmx.Right{bind}, requireMissing(t, d))
				assert.Equal(t, before, w.versions(t, ns))
				return
			}
			requireDeployed(t, d, "run-1")
			_, err = w.kube.RbacV1().RoleBindings(ns).Get(ctx, "bound", metav1.GetOptions{})
			require.NoError(t, err)
		})
	}
}
