package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// doomedEnv makes the test binary a process that works on a release until it
// kills itself.
const doomedEnv = "FAIRLEAD_E2E_DOOMED"

// doomed says what such a process does, and when it dies.
type doomed struct {
	Kubeconfig, Namespace, Chart, Run string
	// Restore is what to go back to; nil to deploy, or to uninstall.
	Restore   *stages.Checkpoint
	Uninstall bool
	// KillAt is the changing request to die at, from 1; 0 for none. After is to die
	// once it has been answered.
	KillAt int32
	After  bool
}

// act does it, and prints how many changing requests it took.
func (d doomed) act(ctx context.Context) error {
	access, err := helmx.Kubernetes{KubeconfigPath: d.Kubeconfig}.RESTConfig()
	if err != nil {
		return err
	}
	var sent atomic.Int32
	access.Wrap(func(base http.RoundTripper) http.RoundTripper { return &deadly{base, d, &sent} })
	deployer, err := helmx.New(fragile(access, d.Namespace, d.Chart))
	if err != nil {
		return err
	}
	defer deployer.Close()
	switch {
	case d.Restore != nil:
		_, err = deployer.Restore(ctx, d.Run, *d.Restore)
	case d.Uninstall:
		_, err = deployer.Uninstall(ctx, d.Run)
	default:
		_, err = deployer.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: d.Run})
	}
	fmt.Println(sent.Load())
	return err
}

// fragile is a deployer whose lock would take long to expire, so that a slow machine
// doesn't lose it. Where a process was killed, bury shortens that.
func fragile(access *rest.Config, namespace, chart string) helmx.Config {
	return helmx.Config{
		Chart: chart, Release: "parts", Namespace: namespace, Unscanned: "made by a test",
		Kubernetes: helmx.Kubernetes{REST: access},
		Lock:       helmx.LockConfig{TTL: time.Minute},
	}
}

// deadly kills the process in the middle of its work.
type deadly struct {
	base http.RoundTripper
	d    doomed
	sent *atomic.Int32
}

func (t *deadly) RoundTrip(req *http.Request) (*http.Response, error) {
	renewal := req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/leases/")
	if req.Method == http.MethodGet || renewal || strings.Contains(req.URL.Path, "/selfsubject") {
		return t.base.RoundTrip(req)
	}
	last := t.sent.Add(1) == t.d.KillAt
	if last && !t.d.After {
		die()
	}
	resp, err := t.base.RoundTrip(req)
	if last {
		die()
	}
	return resp, err
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // There is nobody left to tell.
	select {}
}

func beDoomed(spec string) error {
	var d doomed
	if err := json.Unmarshal([]byte(spec), &d); err != nil {
		return err
	}
	return d.act(context.Background())
}

// run starts the process. It returns the number of requests, or false if the
// process died of itself.
func (d doomed) run(t *testing.T) (requests int, ended bool) {
	t.Helper()
	cmd := player(labtest.Context(t), t, doomedEnv, d)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		require.ErrorContains(t, err, "killed", "%s", &stderr)
		return 0, false
	}
	requests, err = strconv.Atoi(strings.TrimSpace(string(out)))
	require.NoError(t, err)
	return requests, true
}

// rooms is a chart of ConfigMaps, one of which a hook makes.
func rooms(t *testing.T, contents map[string]string) string {
	t.Helper()
	templates := map[string]string{"hook.yaml": `apiVersion: v1
kind: ConfigMap
metadata:
  name: hook
  annotations: {"helm.sh/hook": "pre-install,pre-upgrade,pre-rollback,pre-delete,post-delete"}
`}
	for name, content := range contents {
		templates[name+".yaml"] = fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {content: %q}\n", name, content)
	}
	return writeChart(t, templates)
}

var (
	before = map[string]string{"kitchen": "stove", "cellar": "wine"}
	during = map[string]string{"kitchen": "oven", "attic": "dust"}
	after  = map[string]string{"kitchen": "hob", "cellar": "beer"}
)

// TestKilledAtEveryStep kills a process before and after every request that
// changes something, and has another one go on.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, c := range map[string]struct {
		// prepare returns the work that is to be killed.
		prepare func(t *testing.T, ns string) doomed
		// goOn is what the next process does, and what there is to be then.
		goOn func(t *testing.T, ns string, d doomed) map[string]string
	}{
		"install": {
			prepare: func(t *testing.T, ns string) doomed { return doomed{Chart: rooms(t, during), Run: "run-1"} },
			goOn: func(t *testing.T, ns string, _ doomed) map[string]string {
				w.furnish(t, ns, after, "run-2")
				return after
			},
		},
		"upgrade": {
			prepare: func(t *testing.T, ns string) doomed {
				w.furnish(t, ns, before, "run-0")
				return doomed{Chart: rooms(t, during), Run: "run-1"}
			},
			goOn: func(t *testing.T, ns string, _ doomed) map[string]string {
				w.furnish(t, ns, after, "run-2")
				return after
			},
		},
		"rollback": {
			prepare: func(t *testing.T, ns string) doomed {
				w.furnish(t, ns, before, "run-0")
				d := w.room(t, ns, during)
				cp, err := d.Checkpoint(labtest.Context(t), stages.CheckpointRequest{Run: "run-1"})
				require.NoError(t, err)
				requireDeployed(t, d, "run-1")
				return doomed{Chart: rooms(t, during), Run: "run-1", Restore: &cp}
			},
			goOn: func(t *testing.T, ns string, d doomed) map[string]string {
				restored, err := w.room(t, ns, during).Restore(labtest.Context(t), "run-1", *d.Restore)
				require.NoError(t, err)
				assert.Contains(t, []stages.RestoreOutcome{stages.Restored, stages.Unchanged}, restored.Outcome, restored.Message)
				return before
			},
		},
		"uninstall, and uninstalled again": {
			prepare: func(t *testing.T, ns string) doomed {
				w.furnish(t, ns, before, "run-0")
				return doomed{Chart: rooms(t, before), Run: "run-1", Uninstall: true}
			},
			goOn: func(t *testing.T, ns string, _ doomed) map[string]string {
				_, err := w.room(t, ns, before).Uninstall(labtest.Context(t), "run-2")
				require.NoError(t, err)
				for name := range before {
					assert.Nil(t, w.configMap(t, ns, name))
				}
				records, err := w.kube.CoreV1().Secrets(ns).List(labtest.Context(t), metav1.ListOptions{LabelSelector: "owner=helm"})
				require.NoError(t, err)
				assert.Empty(t, records.Items)
				w.furnish(t, ns, after, "run-3")
				return after
			},
		},
		"uninstall, and deployed to": {
			prepare: func(t *testing.T, ns string) doomed {
				w.furnish(t, ns, before, "run-0")
				return doomed{Chart: rooms(t, before), Run: "run-1", Uninstall: true}
			},
			goOn: func(t *testing.T, ns string, _ doomed) map[string]string {
				w.furnish(t, ns, after, "run-2")
				return after
			},
		},
		"rollback, and deployed to without a restore": {
			prepare: func(t *testing.T, ns string) doomed {
				w.furnish(t, ns, before, "run-0")
				d := w.room(t, ns, during)
				cp, err := d.Checkpoint(labtest.Context(t), stages.CheckpointRequest{Run: "run-1"})
				require.NoError(t, err)
				requireDeployed(t, d, "run-1")
				return doomed{Chart: rooms(t, during), Run: "run-1", Restore: &cp}
			},
			goOn: func(t *testing.T, ns string, _ doomed) map[string]string {
				w.furnish(t, ns, after, "run-2")
				return after
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attempt := func(t *testing.T, at int, answered bool) (requests int) {
				ns := w.namespace(t)
				d := c.prepare(t, ns)
				d.Kubeconfig, d.Namespace, d.KillAt, d.After = w.box.Kubeconfig, ns, int32(at), answered
				requests, ended := d.run(t)
				require.Equal(t, at == 0, ended)
				if !ended {
					w.bury(t, ns)
				}
				w.requireRooms(t, ns, c.goOn(t, ns, d))
				return requests
			}
			requests := attempt(t, 0, false)
			t.Logf("%d requests change something", requests)
			require.Greater(t, requests, 5)
			for at := 1; at <= requests; at++ {
				for _, answered := range []bool{false, true} {
					moment := map[bool]string{false: "before", true: "after"}[answered]
					t.Run(fmt.Sprintf("%s request %d", moment, at), func(t *testing.T) { attempt(t, at, answered) })
				}
			}
		})
	}
}

// bury makes the lock of a killed process, if it had one, expire a second after it is
// next seen. Nobody renews it any more; that it has to expire stays as it is.
func (w *world) bury(t *testing.T, namespace string) {
	t.Helper()
	leases := w.kube.CoordinationV1().Leases(namespace)
	found, err := leases.List(labtest.Context(t), metav1.ListOptions{})
	require.NoError(t, err)
	for _, l := range found.Items {
		require.Positive(t, *l.Spec.LeaseDurationSeconds)
		_, err := leases.Patch(labtest.Context(t), l.Name, types.MergePatchType, []byte(`{"spec":{"leaseDurationSeconds":1}}`), metav1.PatchOptions{})
		require.NoError(t, err)
	}
}

// room returns a deployer of these contents.
func (w *world) room(t *testing.T, namespace string, contents map[string]string) *helmx.Deployer {
	t.Helper()
	d, err := helmx.New(fragile(w.rest, namespace, rooms(t, contents)))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	return d
}

func (w *world) furnish(t *testing.T, namespace string, contents map[string]string, run string) {
	t.Helper()
	requireDeployed(t, w.room(t, namespace, contents), run)
}

// requireRooms checks that history and live objects agree on these contents.
func (w *world) requireRooms(t *testing.T, namespace string, want map[string]string) {
	t.Helper()
	ctx := labtest.Context(t)
	found, err := w.kube.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=Helm"})
	require.NoError(t, err)
	got := map[string]string{}
	for _, cm := range found.Items {
		got[cm.Name] = cm.Data["content"]
	}
	assert.Equal(t, want, got)

	records, err := w.kube.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{LabelSelector: "owner=helm"})
	require.NoError(t, err)
	var deployed []string
	newest := 0
	for _, r := range records.Items {
		assert.NotContains(t, r.Labels["status"], "pending", r.Name)
		assert.NotEqual(t, "uninstalling", r.Labels["status"], r.Name)
		if r.Labels["status"] == "deployed" {
			deployed = append(deployed, r.Labels["version"])
		}
		version, err := strconv.Atoi(r.Labels["version"])
		require.NoError(t, err)
		newest = max(newest, version)
	}
	assert.Equal(t, []string{strconv.Itoa(newest)}, deployed, "the newest revision and no other is deployed")

	leases, err := w.kube.CoordinationV1().Leases(namespace).List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	assert.Empty(t, leases.Items, "the lock is given back")

	plan, err := w.room(t, namespace, want).Plan(ctx, stages.PlanRequest{Run: "look"})
	require.NoError(t, err)
	assert.Empty(t, plan.Changes)
	assert.Empty(t, plan.Drift)
}
