package e2e_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestReleaseSetIsBoundToItsPlan applies what was planned, and is refused when the
// cluster has moved since.
func TestReleaseSetIsBoundToItsPlan(t *testing.T) {
	w := newWorld(t)
	ctx := labtest.Context(t)
	ns := w.namespace(t)
	cluster := w.connect(t)
	requireDeployedIn(t, tinySet(t, cluster, ns, 3, "one"), "set-1")

	next := tinySet(t, cluster, ns, 3, "two")
	plan, err := next.Plan(ctx, releaseset.PlanRequest{Run: "set-2"})
	require.NoError(t, err)
	_, err = w.kube.CoreV1().ConfigMaps(ns).Patch(ctx, "part-2", types.MergePatchType, []byte(`{"data":{"value":"by hand"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	require.NoError(t, err)
	result, err := next.Apply(ctx, releaseset.ApplyRequest{Run: "set-2", Plan: &plan})
	require.ErrorIs(t, err, stages.ErrPlanStale)
	require.ErrorIs(t, err, stages.ErrRolledBack)
	assert.ErrorContains(t, err, "part-2 was changed")
	assert.ErrorContains(t, err, "kubectl-edit")
	m, _ := result.Member(ns + "/part-2")
	assert.Contains(t, []releaseset.Outcome{releaseset.Unchanged, releaseset.NotStarted}, m.Outcome)
	assert.Equal(t, "one", w.configMap(t, ns, "part-0").Data["value"])
	assert.Equal(t, "by hand", w.configMap(t, ns, "part-2").Data["value"])

	plan, err = next.Plan(ctx, releaseset.PlanRequest{Run: "set-3"})
	require.NoError(t, err)
	_, err = next.Apply(ctx, releaseset.ApplyRequest{Run: "set-3", Plan: &plan})
	require.NoError(t, err)
	assert.Equal(t, "two", w.configMap(t, ns, "part-2").Data["value"])
}

// TestReleaseSetLocksToItsEnd has another run try a member that is done while the
// set still works.
func TestReleaseSetLocksToItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns := w.namespace(t)
	cluster := w.connect(t)
	stranger := w.parts(t, ns, map[string]string{"a.yaml": colours}, func(cfg *helmx.Config) { cfg.Release = "part-0" })
	var during error
	members := tinyMembers(t, cluster, ns, 2, "one")
	members[1].Needs = []string{"part-0"}
	members[1].Verify = stages.VerifierFunc(func(ctx context.Context, rel stages.Release) (stages.Verification, error) {
		// Longer than the lock lives without being renewed.
		select {
		case <-time.After(helmx.DefaultLockTTL + 5*time.Second):
		case <-ctx.Done():
		}
		_, during = stranger.DeployUnscanned(ctx, helmx.UnscannedRequest{Run: "stranger"})
		return stages.Verification{Checks: []stages.Check{{Name: "waited"}}}, context.Cause(ctx)
	})
	set, err := releaseset.New(releaseset.Config{Members: members})
	require.NoError(t, err)
	requireDeployedIn(t, set, "set-1")
	require.ErrorIs(t, during, stages.ErrLocked)
	leases, err := w.kube.CoordinationV1().Leases(ns).List(labtest.Context(t), metav1.ListOptions{})
	require.NoError(t, err)
	assert.Empty(t, leases.Items)
}

// TestTwoHundredReleases installs and upgrades them as one set, in memory that
// doesn't grow with their number.
func TestTwoHundredReleases(t *testing.T) {
	const members = 200
	w := newWorld(t)
	ns := w.namespace(t)
	cluster := w.connect(t)
	for _, run := range []string{"install", "upgrade"} {
		set := tinySet(t, cluster, ns, members, run)
		before := memory(t)
		var mu sync.Mutex
		var heap []uint64 // after every tenth member
		done := 0
		ctx := stages.WithProgress(labtest.Context(t), func(p stages.Progress) {
			mu.Lock()
			defer mu.Unlock()
			if !strings.HasPrefix(p.Message, "deployed ") {
				return
			}
			if done++; done%10 == 0 {
				heap = append(heap, memory(t))
			}
		})
		asked, began := sum(cluster.Calls()), time.Now()
		result, err := set.Apply(ctx, releaseset.ApplyRequest{Run: run})
		require.NoError(t, err)
		took := time.Since(began)
		for _, m := range result.Members {
			require.Equal(t, releaseset.Deployed, m.Outcome, m.Member)
		}
		require.Len(t, heap, members/10)
		first, last := heap[1], heap[len(heap)-1]
		t.Logf("%s of %d releases: %s, %d calls, heap %d KiB before, %d KiB after 20 releases, %d KiB after 200, %s",
			run, members, took.Round(time.Second/10), sum(cluster.Calls())-asked, before>>10, first>>10, last>>10, resident(t))
		// What is left of a member is its result, and its lock with what renews it.
		const perMember = 64 << 10
		assert.Less(t, int64(last)-int64(first), int64(members*perMember), "memory grows with the members")
		assert.Less(t, took, 2*time.Minute)
	}
	found, err := w.kube.CoreV1().ConfigMaps(ns).List(labtest.Context(t), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=Helm"})
	require.NoError(t, err)
	assert.Len(t, found.Items, members)
	leases, err := w.kube.CoordinationV1().Leases(ns).List(labtest.Context(t), metav1.ListOptions{})
	require.NoError(t, err)
	assert.Empty(t, leases.Items)
}

// memory is what is in use on the heap, without what can be collected.
func memory(t *testing.T) uint64 {
	t.Helper()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// resident is what the process takes of the machine's memory, as the kernel says.
func resident(t *testing.T) string {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "resident size unknown"
	}
	for line := range strings.Lines(string(status)) {
		if size, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return "resident " + strings.TrimSpace(size)
		}
	}
	return "resident size unknown"
}

// tinyMembers are releases of one ConfigMap each, which all have the same value.
func tinyMembers(t *testing.T, cluster *helmx.Cluster, namespace string, count int, value string) []releaseset.Member {
	t.Helper()
	chart := writeChart(t, map[string]string{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\ndata: {value: " + fmt.Sprintf("%q", value) + "}\n"})
	var out []releaseset.Member
	for i := range count {
		name := fmt.Sprint("part-", i)
		out = append(out, releaseset.Member{
			Namespace: namespace, Name: name, Unscanned: true,
			Open: func(context.Context) (releaseset.Deployer, error) {
				return helmx.New(helmx.Config{Chart: chart, Release: name, Namespace: namespace, Unscanned: "made by a test", Cluster: cluster})
			},
		})
	}
	return out
}

func tinySet(t *testing.T, cluster *helmx.Cluster, namespace string, count int, value string) *releaseset.Set {
	t.Helper()
	set, err := releaseset.New(releaseset.Config{Members: tinyMembers(t, cluster, namespace, count, value)})
	require.NoError(t, err)
	return set
}
