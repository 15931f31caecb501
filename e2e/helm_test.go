package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// helmCommand is the real helm, of the version that this module requires.
type helmCommand struct{ path, kubeconfig, namespace, home string }

func (w *world) helm(t testing.TB, namespace string) helmCommand {
	t.Helper()
	return helmCommand{tool(t, ".", "helm", "helm.sh/helm/v3/cmd/helm"), w.box.Kubeconfig, namespace, t.TempDir()}
}

func (h helmCommand) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.path, append(args, "--kubeconfig", h.kubeconfig, "--namespace", h.namespace)...)
	cmd.Env = []string{"HOME=" + h.home, "PATH=" + os.Getenv("PATH")}
	return cmd
}

func (h helmCommand) run(t testing.TB, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := h.command(labtest.Context(t), args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "helm %v: %s", args, &stderr)
	return string(out)
}

type helmRevision struct {
	Revision    int    `json:"revision"`
	Status      string `json:"status"`
	Description string `json:"description"`
}

func (h helmCommand) history(t testing.TB, release string) []helmRevision {
	t.Helper()
	var out []helmRevision
	require.NoError(t, json.Unmarshal([]byte(h.run(t, "history", release, "-o", "json")), &out))
	return out
}

// TestHelmCommandTakesTurns has the helm command read, upgrade and roll back what
// this library releases, and the other way round.
func TestHelmCommandTakesTurns(t *testing.T) {
	w := newWorld(t)
	for name, mode := range map[string]helmx.ApplyMode{"client side": helmx.ClientSide, "server side": helmx.ServerSide} {
		t.Run(name, func(t *testing.T) {
			ns := w.namespace(t)
			helm := w.helm(t, ns)
			with := func(cfg *helmx.Config) { cfg.Apply.Mode = mode }
			day, night := map[string]string{"a.yaml": colours, "b.yaml": sizes}, map[string]string{"a.yaml": coloursAtNight}
			sky := func() string { return w.configMap(t, ns, "colours").Data["sky"] }

			requireDeployed(t, w.parts(t, ns, day, with), "run-1")
			assert.Contains(t, helm.run(t, "list", "-q"), "parts")
			assert.Contains(t, helm.run(t, "get", "manifest", "parts"), "sky: blue")
			assert.Contains(t, helm.history(t, "parts")[0].Description, "run-1")

			helm.run(t, "upgrade", "parts", writeChart(t, night))
			assert.Equal(t, "black", sky())
			assert.Nil(t, w.configMap(t, ns, "sizes"))

			rel := requireDeployed(t, w.parts(t, ns, day, with), "run-3")
			assert.Equal(t, 3, rel.Revision)
			assert.Equal(t, 2, rel.Previous)
			assert.Equal(t, "blue", sky())
			assert.NotNil(t, w.configMap(t, ns, "sizes"))

			helm.run(t, "rollback", "parts", "2")
			assert.Equal(t, "black", sky())
			assert.Nil(t, w.configMap(t, ns, "sizes"))

			d := w.parts(t, ns, day, with)
			before, err := d.Checkpoint(labtest.Context(t), stages.CheckpointRequest{Run: "run-5"})
			require.NoError(t, err)
			requireDeployed(t, d, "run-5")
			restored, err := d.Restore(labtest.Context(t), "run-5", before)
			require.NoError(t, err)
			assert.Equal(t, stages.Restored, restored.Outcome, restored.Message)
			assert.Equal(t, "black", sky())
			history := helm.history(t, "parts")
			assert.Equal(t, helmRevision{6, "deployed", `fairlead run "run-5": restored revision 4`}, history[len(history)-1])

			helm.run(t, "uninstall", "parts")
			assert.Nil(t, w.configMap(t, ns, "colours"))
			requireDeployed(t, w.parts(t, ns, day, with), "run-7")
		})
	}
}

// TestKilledHelmCommand goes on where a helm command was killed.
func TestKilledHelmCommand(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	helm := w.helm(t, ns)
	requireDeployed(t, w.parts(t, ns, map[string]string{"a.yaml": colours}), "run-1")

	hanging := `apiVersion: batch/v1
kind: Job
metadata: {name: hanging, annotations: {"helm.sh/hook": pre-upgrade}}
spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: x, image: x}]}}}
`
	pending, err := w.kube.CoreV1().Secrets(ns).Watch(labtest.Context(t), metav1.ListOptions{LabelSelector: "owner=helm,status=pending-upgrade"})
	require.NoError(t, err)
	defer pending.Stop()
	cmd := helm.command(labtest.Context(t), "upgrade", "parts", writeChart(t, map[string]string{"a.yaml": coloursAtNight, "hook.yaml": hanging}))
	require.NoError(t, cmd.Start())
	event := <-pending.ResultChan()
	require.Equal(t, watch.Added, event.Type)
	require.NoError(t, cmd.Process.Kill())
	require.ErrorContains(t, cmd.Wait(), "killed")

	_, err = w.parts(t, ns, map[string]string{"a.yaml": colours}).DeployUnscanned(labtest.Context(t), helmx.UnscannedRequest{Run: "run-3"})
	require.ErrorIs(t, err, stages.ErrLocked)
	var locked *helmx.LockedError
	require.ErrorAs(t, err, &locked)
	assert.Equal(t, 2, locked.Revision)
	assert.Equal(t, "pending-upgrade", locked.Status)

	patient := w.parts(t, ns, map[string]string{"a.yaml": colours}, func(cfg *helmx.Config) { cfg.Lock.ForeignAge = time.Nanosecond })
	assert.Equal(t, 3, requireDeployed(t, patient, "run-3").Revision)
	assert.Equal(t, "blue", w.configMap(t, ns, "colours").Data["sky"])
}
