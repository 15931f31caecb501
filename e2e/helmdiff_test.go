package e2e_test

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/stages"
)

// helmDiff is the real helm-diff, which the helm command calls as its plugin. It asks
// the helm command in turn.
type helmDiff struct {
	helmCommand
	path string
}

func (w *world) helmDiff(t testing.TB, namespace string) helmDiff {
	t.Helper()
	return helmDiff{w.helm(t, namespace), tool(t, "tools/helmdiff", "helm-diff", "github.com/databus23/helm-diff/v3")}
}

// diffHeading is what helm-diff writes above the diff of an object.
var diffHeading = regexp.MustCompile(`(?m)^[^,\s]+, ([^,]+), (\w+) \([^)]*\) has (?:been (added|removed)|(changed)):`)

// upgrade returns the objects that differ, as "Kind name", and all that it writes.
func (h helmDiff) upgrade(t *testing.T, args ...string) (changed []string, text string) {
	t.Helper()
	text = h.run(t, append([]string{"upgrade", "parts"}, args...)...)
	for _, m := range diffHeading.FindAllStringSubmatch(text, -1) {
		changed = append(changed, m[2]+" "+m[1])
	}
	slices.Sort(changed)
	return changed, text
}

func (h helmDiff) run(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(labtest.Context(t), h.path, append(args, "--no-color")...)
	cmd.Env = append(h.command(labtest.Context(t)).Env, "HELM_BIN="+h.helmCommand.path, "HELM_NAMESPACE="+h.namespace, "KUBECONFIG="+h.kubeconfig)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// TestHelmDiffSeesTheSame compares a plan with what helm-diff finds: of what was never
// released, of an upgrade, and against what somebody has changed by hand.
func TestHelmDiffSeesTheSame(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	diff := w.helmDiff(t, ns)
	secret := func(word string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: door}\nstringData: {word: " + word + "}\n"
	}
	day := map[string]string{"a.yaml": colours, "b.yaml": sizes, "c.yaml": weights, "d.yaml": secret("open-sesame-day")}
	night := map[string]string{"a.yaml": coloursAtNight, "c.yaml": weights, "d.yaml": secret("open-sesame-night"), "e.yaml": strings.ReplaceAll(sizes, "sizes", "shapes")}
	compare := func(templates map[string]string, flags ...string) {
		t.Helper()
		theirs, text := diff.upgrade(t, append([]string{writeChart(t, templates)}, flags...)...)
		plan, err := w.parts(t, ns, templates).Plan(labtest.Context(t), stages.PlanRequest{Run: "plan"})
		require.NoError(t, err)
		var ours []string
		for _, c := range plan.Changes {
			ours = append(ours, c.Object.Kind+" "+c.Object.Name)
			text += c.Diff
		}
		slices.Sort(ours)
		assert.Equal(t, theirs, ours)
		assert.NotContains(t, text, "open-sesame", "neither shows a secret")
	}
	compare(day, "--allow-unreleased")
	requireDeployed(t, w.parts(t, ns, day), "run-1")
	compare(day)
	compare(night)
	_, err := w.kube.CoreV1().ConfigMaps(ns).Patch(labtest.Context(t), "weights", types.MergePatchType,
		[]byte(`{"data":{"light":"2"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	require.NoError(t, err)
	changed := map[string]string{"a.yaml": colours, "b.yaml": sizes, "c.yaml": strings.ReplaceAll(weights, `"1"`, `"3"`), "d.yaml": secret("open-sesame-day")}
	compare(changed, "--three-way-merge")
}
