package e2e_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	boxes = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: GROUP}
spec:
  group: NAMESPACE.example.com
  names: {kind: Box, plural: boxes, singular: box}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: SIZE}}}}}}
`
	annex = "apiVersion: v1\nkind: Namespace\nmetadata: {name: NAMESPACE-annex}\n"
	data  = `apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, annotations: {ANNOTATION: x}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
`
	// scratch is made, and made anew, by a hook.
	scratch = `apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: scratch, annotations: {"helm.sh/hook": "pre-install,pre-upgrade"}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
`
)

// TestPlanNamesDangers has a plan name what can't be taken back, and a gate refuse
// it.
func TestPlanNamesDangers(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	fill := func(text string, more ...string) string {
		return strings.NewReplacer(append(more, "GROUP", "boxes."+ns+".example.com", "NAMESPACE", ns, "ANNOTATION", "a")...).Replace(text)
	}
	first := w.parts(t, ns, map[string]string{
		"a.yaml": colours, "crd.yaml": fill(boxes, "SIZE", "string"), "namespace.yaml": fill(annex), "claim.yaml": fill(data), "hook.yaml": scratch,
	})
	before, err := first.Checkpoint(ctx, stages.CheckpointRequest{Run: "run-1"})
	require.NoError(t, err)
	t.Cleanup(func() { w.deleteNamespace(t, ns+"-annex") })
	requireDeployed(t, first, "run-1")

	plan, err := w.parts(t, ns, map[string]string{"a.yaml": colours, "crd.yaml": fill(boxes, "SIZE", "integer"), "hook.yaml": scratch}).
		Plan(ctx, stages.PlanRequest{Run: "run-2"})
	require.NoError(t, err)
	found := map[stages.DangerClass]string{}
	for _, d := range plan.AllDangers() {
		found[d.Class] += d.Object.String()
	}
	assert.Equal(t, map[stages.DangerClass]string{
		stages.DangerCRD:       "CustomResourceDefinition boxes." + ns + ".example.com",
		stages.DangerNamespace: "Namespace " + ns + "-annex",
		stages.DangerStorage:   "PersistentVolumeClaim " + ns + "/data",
		stages.DangerHook:      "PersistentVolumeClaim " + ns + "/scratch",
	}, found)

	all, err := helmx.RefuseDangers()
	require.NoError(t, err)
	decision, err := all.Decide(ctx, plan)
	require.NoError(t, err)
	assert.Equal(t, stages.Fail, decision.Verdict)
	assert.Len(t, decision.Reasons, 4)
	one, err := helmx.RefuseDangers(stages.DangerImmutable)
	require.NoError(t, err)
	decision, err = one.Decide(ctx, plan)
	require.NoError(t, err)
	assert.Equal(t, stages.Pass, decision.Verdict)
	assert.Len(t, decision.Warnings, 4)

	restored, err := first.Restore(ctx, "run-1", before)
	require.NoError(t, err)
	assert.Equal(t, stages.Restored, restored.Outcome, restored.Message)
}
