package e2e_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestTakesOwnership releases a chart over objects that somebody has made with
// kubectl, and over one of another release.
func TestTakesOwnership(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, mode := range []helmx.ApplyMode{helmx.ServerSide, helmx.ClientSide} {
		t.Run(string(mode), func(t *testing.T) {
			ns := w.namespace(t)
			ctx := labtest.Context(t)
			_, err := w.kube.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "colours", Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "{}"}},
				Data:       map[string]string{"sky": "red", "sea": "blue"},
			}, metav1.CreateOptions{FieldManager: "kubectl-client-side-apply"})
			require.NoError(t, err)
			w.other(t, ns, "others", sizes)

			chart := func(take bool) *helmx.Deployer {
				return w.parts(t, ns, map[string]string{"a.yaml": colours, "b.yaml": sizes}, func(cfg *helmx.Config) {
					cfg.Apply.Mode, cfg.TakeOwnership = mode, take
				})
			}
			plan, err := chart(false).Plan(ctx, stages.PlanRequest{Run: "run-1"})
			require.NoError(t, err)
			for _, c := range plan.Changes {
				assert.Equal(t, string(helmx.NotOwned), c.Refusal.Reason, "%s", c.Object)
				assert.Contains(t, c.Refusal.Message, "TakeOwnership")
			}
			_, err = chart(false).DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "run-1"})
			require.ErrorContains(t, err, "cannot be imported into the current release")

			d := chart(true)
			before, err := d.Checkpoint(ctx, stages.CheckpointRequest{Run: "run-2"})
			require.NoError(t, err)
			plan, err = d.Plan(ctx, stages.PlanRequest{Run: "run-2"})
			require.NoError(t, err)
			require.Len(t, plan.Changes, 2)
			for _, c := range plan.Changes {
				assert.Equal(t, stages.Adopt, c.Action, "%s", c.Object)
				assert.Nil(t, c.Refusal)
			}
			dangers := plan.AllDangers()
			require.Len(t, dangers, 1)
			assert.Equal(t, stages.DangerOwnership, dangers[0].Class)
			assert.Contains(t, dangers[0].Why, ns+"/others")
			assert.Equal(t, mode == helmx.ServerSide, strings.Contains(notes(plan), "data.sea"), "what is dropped is said: %s", notes(plan))

			_, err = d.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "run-2", Plan: plan.Digest})
			require.NoError(t, err)
			want := map[string]string{"sky": "blue", "grass": "green"}
			if mode == helmx.ClientSide {
				want["sea"] = "blue" // As with helm --take-ownership.
			}
			assert.Equal(t, want, w.configMap(t, ns, "colours").Data)
			plan, err = chart(false).Plan(ctx, stages.PlanRequest{Run: "run-3"})
			require.NoError(t, err)
			assert.Empty(t, plan.Changes, "from then on it is the release's own")

			restored, err := d.Restore(ctx, "run-2", before)
			require.NoError(t, err)
			assert.Equal(t, stages.Diverged, restored.Outcome, "%+v", restored)
			for _, name := range []string{"colours", "sizes"} {
				assert.Contains(t, restored.Message, "ConfigMap "+ns+"/"+name+" was there before the run")
				assert.NotNil(t, w.configMap(t, ns, name), "what was there before must survive")
			}
		})
	}
}

// notes returns what a plan notes, as one text.
func notes(plan stages.Plan) string {
	var out strings.Builder
	for _, n := range plan.Notes {
		out.WriteString(n.Object.String() + ": " + n.Message + "\n")
	}
	return out.String()
}

// other releases a chart of one template under another name.
func (w *world) other(t *testing.T, namespace, name, template string) {
	t.Helper()
	requireDeployed(t, w.parts(t, namespace, map[string]string{"a.yaml": template}, func(cfg *helmx.Config) { cfg.Release = name }), "run-0")
}

// TestPlanShowsHooks compares the hooks of a chart with those of the release.
func TestPlanShowsHooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	hook := func(name, text, token string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: " + name + ", annotations: {\"helm.sh/hook\": \"pre-install,pre-upgrade\"}}\n" +
			"stringData: {text: " + text + ", token: " + token + "}\n"
	}
	requireDeployed(t, w.parts(t, ns, map[string]string{
		"a.yaml": colours, "b.yaml": hook("stays", "canary-before", "{{ randAlphaNum 12 }}"), "c.yaml": hook("goes", "canary-gone", "x"),
	}), "run-1")
	d := w.parts(t, ns, map[string]string{"a.yaml": colours, "b.yaml": hook("stays", "canary-after", "{{ randAlphaNum 12 }}"), "c.yaml": hook("comes", "canary-new", "x")})
	plan, err := d.Plan(ctx, stages.PlanRequest{Run: "run-2"})
	require.NoError(t, err)
	assert.Empty(t, plan.Changes)
	found := map[string]stages.Action{}
	for _, c := range plan.Hooks {
		found[c.Object.Name] = c.Action
		assert.NotContains(t, c.Diff, "canary")
	}
	assert.Equal(t, map[string]stages.Action{"stays": stages.Update, "goes": stages.Delete, "comes": stages.Create}, found)

	same := w.parts(t, ns, map[string]string{
		"a.yaml": colours, "b.yaml": hook("stays", "canary-before", "{{ randAlphaNum 12 }}"), "c.yaml": hook("goes", "canary-gone", "x"),
	})
	plan, err = same.Plan(ctx, stages.PlanRequest{Run: "run-2"})
	require.NoError(t, err)
	assert.Empty(t, plan.Hooks, "what renders differently every time is no difference")
}
