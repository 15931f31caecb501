package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	canaryRelease  = release + "-canary"
	stableReplicas = 2
)

// canaryParts makes a canary of the sample chart: two releases behind one Service,
// and nothing else that the cluster would have to have.
func canaryParts(access *rest.Config, namespace string) (traffic.CanaryConfig, error) {
	parts, err := twoReleases(access, namespace,
		map[string]any{"replicaCount": stableReplicas, "service": map[string]any{"shared": true}},
		map[string]any{"replicaCount": 0, "service": map[string]any{"canary": true}}) // No pods before the first step.
	if err != nil {
		return parts, err
	}
	parts.Router, err = traffic.NewReplicas(traffic.ReplicasConfig{REST: access, Namespace: namespace, Service: release, Stable: release, Canary: canaryRelease})
	return parts, err
}

// twoReleases are all parts of a canary but the router.
func twoReleases(access *rest.Config, namespace string, stableValues, canaryValues map[string]any) (traffic.CanaryConfig, error) {
	deployer := func(name string, values map[string]any) (*helmx.Deployer, error) {
		return helmx.New(helmx.Config{
			Chart: chartDir, Release: name, Namespace: namespace, Values: helmx.Values{Map: values},
			Image:      helmx.ImageValues{Repository: "image.repository", Digest: "image.digest"},
			Kubernetes: helmx.Kubernetes{REST: access}, Lock: helmx.LockConfig{TTL: 2 * time.Second},
		})
	}
	stable, err := deployer(release, stableValues)
	if err != nil {
		return traffic.CanaryConfig{}, err
	}
	canary, err := deployer(canaryRelease, canaryValues)
	if err != nil {
		return traffic.CanaryConfig{}, err
	}
	ready, err := rollout.New(rollout.Config{REST: access, Timeout: rolloutTimeout, AllowUnused: true})
	if err != nil {
		return traffic.CanaryConfig{}, err
	}
	state, err := traffic.NewConfigMap(traffic.ConfigMapConfig{REST: access, Namespace: namespace, Release: release})
	return traffic.CanaryConfig{
		Stable: stable, Canary: canary, Verifiers: []stages.Verifier{ready}, State: state,
		Steps:    []traffic.Step{{Weight: 30, For: time.Second}, {Weight: 50, For: time.Second, Extend: 30 * time.Second}},
		Interval: 250 * time.Millisecond, Drain: time.Second,
	}, err
}

// newCanary makes one for this process, whose gates are asked in the second step.
func (w *world) newCanary(t *testing.T, namespace string, gates ...stages.Gate[stages.Release]) *traffic.Canary {
	t.Helper()
	parts, err := canaryParts(w.rest, namespace)
	require.NoError(t, err)
	parts.Steps[1].Gates = gates
	canary, err := traffic.NewCanary(parts)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, canary.Close()) })
	return canary
}

func bypassed(t *testing.T, img stages.Image, run string) stages.DeployRequest {
	t.Helper()
	clearance, err := stages.BypassGates(img, "made by a test")
	require.NoError(t, err)
	return stages.DeployRequest{Clearance: clearance, Run: run}
}

// census requests the page all the time through the Service, and counts who
// answers. Nothing may fail.
type census struct {
	mu       sync.Mutex
	served   map[string]int
	failures []string
	stop     func()
}

func (w *world) census(t *testing.T, namespace string) *census {
	ctx, cancel := context.WithCancel(labtest.Context(t))
	c := &census{served: map[string]int{}}
	var visitors sync.WaitGroup
	for range 2 {
		visitors.Go(func() {
			ticker := time.NewTicker(20 * time.Millisecond)
			defer ticker.Stop()
			for ctx.Err() == nil {
				page, err := w.page(ctx, namespace)
				c.count(ctx, page, err)
				select {
				case <-ctx.Done():
				case <-ticker.C:
				}
			}
		})
	}
	c.stop = sync.OnceFunc(func() { cancel(); visitors.Wait() })
	t.Cleanup(c.stop)
	return c
}

func (c *census) count(ctx context.Context, page string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err != nil:
		c.failures = append(c.failures, time.Now().Format(time.TimeOnly)+" "+err.Error())
	default:
		version, _, _ := strings.Cut(page, ":")
		c.served[version]++
	}
}

func (c *census) now() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]int{}
	for version, n := range c.served {
		out[version] = n
	}
	return out
}

func (c *census) requireUnharmed(t *testing.T) {
	t.Helper()
	c.stop()
	require.Empty(t, c.failures, "requests failed; served were %v", c.served)
	t.Logf("served: %v", c.served)
}

// requireNoCanary checks that all traffic is on a stable release of this version,
// and that nothing of a canary is left.
func (w *world) requireNoCanary(t *testing.T, namespace, version string, img stages.Image) {
	t.Helper()
	ctx := labtest.Context(t)
	// A restore doesn't wait for pods.
	_, err := w.verifiers(t, w.rest)[0].Verify(ctx, stages.Release{Image: img, Name: release, Namespace: namespace,
		Objects: []stages.Object{{APIVersion: "apps/v1", Kind: "Deployment", Namespace: namespace, Name: release}}})
	require.NoError(t, err)
	status, err := w.newCanary(t, namespace).Status(ctx)
	require.NoError(t, err)
	assert.Nil(t, status.Record)
	assert.Zero(t, status.Traffic.Canary)
	deployments, err := w.kube.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, deployments.Items, 1)
	assert.EqualValues(t, stableReplicas, *deployments.Items[0].Spec.Replicas)
	assert.NotContains(t, deployments.Items[0].Annotations, "traffic.fairlead.dev/replicas")
	w.requirePage(t, namespace, version)
}

// TestCanary promotes a good release and takes a bad one back, with real pods
// behind a Service.
func TestCanary(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := stages.WithProgress(labtest.Context(t), func(p stages.Progress) { t.Logf("%s %s", p.ID, p.Message) })
	images := map[string]stages.Image{}
	for _, version := range []string{"1.0.0", "1.1.0", "1.2.0"} {
		img, err := w.builder(t, ns).Build(ctx, source(version))
		require.NoError(t, err)
		images[version] = img
	}
	first, err := w.newCanary(t, ns).Deploy(ctx, bypassed(t, images["1.0.0"], "run-1"))
	require.NoError(t, err, "the first install needs no canary")
	_, err = w.verifiers(t, w.rest)[0].Verify(ctx, first)
	require.NoError(t, err)
	c := w.census(t, ns)

	t.Run("is promoted", func(t *testing.T) {
		gate := c.gate(stages.Pass, "shop 1.0.0", "shop 1.1.0")
		began := time.Now()
		rel, err := w.newCanary(t, ns, gate).Deploy(ctx, bypassed(t, images["1.1.0"], "run-2"))
		require.NoError(t, err)
		assert.Equal(t, images["1.1.0"], rel.Image)
		assert.Equal(t, release, rel.Name)
		t.Logf("promoted within %s; in the step of 50%%: %v", time.Since(began).Round(100*time.Millisecond), gate.seen)
		share := float64(gate.seen["shop 1.1.0"]) / float64(gate.seen["shop 1.0.0"]+gate.seen["shop 1.1.0"])
		assert.InDelta(t, 0.5, share, 0.15, "the share of requests that the canary served")
		w.requireNoCanary(t, ns, "1.1.0", images["1.1.0"])
	})
	t.Run("is aborted by a breach", func(t *testing.T) {
		gate := c.gate(stages.Fail, "shop 1.1.0", "shop 1.2.0")
		_, err := w.newCanary(t, ns, gate).Deploy(ctx, bypassed(t, images["1.2.0"], "run-3"))
		var aborted *traffic.AbortError
		require.ErrorAs(t, err, &aborted)
		require.ErrorIs(t, err, stages.ErrGateRefused)
		assert.Equal(t, 2, aborted.Step)
		assert.Equal(t, 50, aborted.Weight)
		assert.Empty(t, aborted.Left)
		assert.NotEmpty(t, stages.EvidenceOf(err))
		w.requireNoCanary(t, ns, "1.1.0", images["1.1.0"])
		before := c.now()["shop 1.2.0"]
		assert.Positive(t, before, "the canary had traffic")
		w.requirePage(t, ns, "1.1.0")
		assert.Equal(t, before, c.now()["shop 1.2.0"], "nobody sees it any more")
		t.Log(err)
	})
	t.Run("is aborted as its pods fail", func(t *testing.T) {
		img, err := w.builder(t, ns).Build(ctx, source("1.3.0", crashing))
		require.NoError(t, err)
		_, err = w.newCanary(t, ns).Deploy(ctx, bypassed(t, img, "run-4"))
		var aborted *traffic.AbortError
		require.ErrorAs(t, err, &aborted)
		t.Log(err)
		assert.Empty(t, aborted.Left)
		assert.Zero(t, c.now()["shop 1.3.0"])
		w.requireNoCanary(t, ns, "1.1.0", images["1.1.0"])
	})
	c.requireUnharmed(t)
}

// TestBlueGreen switches a Service over, and back at once when the new colour is
// bad.
func TestBlueGreen(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	parts, err := twoReleases(w.rest, ns, map[string]any{"replicaCount": stableReplicas},
		map[string]any{"replicaCount": stableReplicas, "service": map[string]any{"canary": true}})
	require.NoError(t, err)
	parts.Router, err = traffic.NewSelector(traffic.SelectorConfig{REST: w.rest, Namespace: ns, Service: release, Stable: release, Canary: canaryRelease})
	require.NoError(t, err)
	deliver := func(version string, gates ...stages.Gate[stages.Release]) error {
		img, err := w.builder(t, ns).Build(ctx, source(version))
		require.NoError(t, err)
		parts.Steps = []traffic.Step{{Weight: 100, For: 2 * time.Second, Extend: 30 * time.Second, Gates: gates}}
		c, err := traffic.NewCanary(parts)
		require.NoError(t, err)
		rel, err := c.Deploy(ctx, bypassed(t, img, version))
		if err == nil {
			_, err = w.verifiers(t, w.rest)[0].Verify(ctx, rel)
		}
		return err
	}
	require.NoError(t, deliver("1.0.0"))
	c := w.census(t, ns)
	promoted := c.gate(stages.Pass, "shop 1.0.0", "shop 1.1.0")
	require.NoError(t, deliver("1.1.0", promoted))
	t.Logf("in the step of 100%%: %v", promoted.seen)
	w.requirePage(t, ns, "1.1.0")
	require.ErrorIs(t, deliver("1.2.0", c.gate(stages.Fail, "shop 1.1.0", "shop 1.2.0")), stages.ErrGateRefused)
	w.requirePage(t, ns, "1.1.0")
	c.requireUnharmed(t)
	assert.Positive(t, c.served["shop 1.2.0"], "the new colour had all the traffic")
}

// censusGate decides when both versions have answered often enough to tell a share.
type censusGate struct {
	census  *census
	verdict stages.Verdict
	of      []string
	before  map[string]int
	seen    map[string]int
}

func (c *census) gate(verdict stages.Verdict, of ...string) *censusGate {
	return &censusGate{census: c, verdict: verdict, of: of}
}

func (g *censusGate) Decide(context.Context, stages.Release) (stages.Decision, error) {
	now := g.census.now()
	if g.before == nil {
		g.before = now
	}
	g.seen = map[string]int{}
	total := 0
	for _, version := range g.of {
		g.seen[version] = now[version] - g.before[version]
		total += g.seen[version]
	}
	d := stages.Decision{Gate: "requests", Verdict: g.verdict, Reasons: []stages.Reason{{Rule: "share", Message: fmt.Sprintf("of %d requests: %v", total, g.seen)}}}
	if total < enoughRequests {
		d.Verdict = stages.Inconclusive
	}
	return d, nil
}

// enoughRequests tell a half from two thirds all but surely.
const enoughRequests = 120

// pilotEnv makes the test binary a process that delivers a canary, until it kills
// itself.
const pilotEnv = "FAIRLEAD_E2E_PILOT"

// pilot says what such a process delivers, and at which record it dies.
type pilot struct {
	Kubeconfig, Namespace, Run string
	Image                      stages.Image
	KillAt                     traffic.Phase
	Step                       int
}

// deadlyState kills the process as soon as a record is written.
type deadlyState struct {
	traffic.State
	pilot pilot
}

func (s deadlyState) Save(ctx context.Context, record traffic.Record, version string) (string, error) {
	saved, err := s.State.Save(ctx, record, version)
	if err == nil && record.Phase == s.pilot.KillAt && record.Step >= s.pilot.Step {
		die()
	}
	return saved, err
}

func bePilot(spec string) error {
	var p pilot
	if err := json.Unmarshal([]byte(spec), &p); err != nil {
		return err
	}
	access, err := helmx.Kubernetes{KubeconfigPath: p.Kubeconfig}.RESTConfig()
	if err != nil {
		return err
	}
	parts, err := canaryParts(access, p.Namespace)
	if err != nil {
		return err
	}
	parts.State = deadlyState{parts.State, p}
	canary, err := traffic.NewCanary(parts)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := canary.Lock(ctx, p.Run); err != nil {
		return err
	}
	cp, err := canary.Checkpoint(ctx, stages.CheckpointRequest{Run: p.Run, Image: p.Image})
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(cp); err != nil {
		return err
	}
	clearance, err := stages.BypassGates(p.Image, "made by a test")
	if err != nil {
		return err
	}
	_, err = canary.Deploy(ctx, stages.DeployRequest{Clearance: clearance, Run: p.Run})
	return fmt.Errorf("the delivery ended before it was killed: %w", err)
}

// fly starts the process, and returns its checkpoint once it is dead.
func (p pilot) fly(t *testing.T) stages.Checkpoint {
	t.Helper()
	spec, err := json.Marshal(p)
	require.NoError(t, err)
	cmd := exec.CommandContext(labtest.Context(t), os.Args[0])
	cmd.Env = append(os.Environ(), pilotEnv+"="+string(spec))
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	out := bufio.NewScanner(stdout)
	var cp stages.Checkpoint
	if out.Scan() {
		require.NoError(t, json.Unmarshal(out.Bytes(), &cp))
	}
	require.ErrorContains(t, cmd.Wait(), "killed")
	return cp
}

// TestKilledCanary kills a process at every record that it writes, and has others
// finish, abort or restore what it left.
func TestKilledCanary(t *testing.T) {
	w := newWorld(t)
	ns := w.namespace(t)
	ctx := labtest.Context(t)
	builder := w.builder(t, ns)
	old, err := builder.Build(ctx, source("1.0.0"))
	require.NoError(t, err)
	next, err := builder.Build(ctx, source("1.1.0"))
	require.NoError(t, err)
	first, err := w.newCanary(t, ns).Deploy(ctx, bypassed(t, old, "run-0"))
	require.NoError(t, err)
	_, err = w.verifiers(t, w.rest)[0].Verify(ctx, first)
	require.NoError(t, err)
	c := w.census(t, ns)

	restore := func(t *testing.T, run string, cp stages.Checkpoint) string {
		restored, err := w.newCanary(t, ns).Restore(ctx, run, cp)
		require.NoError(t, err)
		require.Equal(t, stages.Restored, restored.Outcome, restored.Message)
		return "1.0.0"
	}
	abort := func(t *testing.T, _ string, _ stages.Checkpoint) string {
		require.NoError(t, w.newCanary(t, ns).Abort(ctx, "left by a test"))
		return "1.0.0"
	}
	for i, k := range []struct {
		phase traffic.Phase
		step  int
		goOn  func(t *testing.T, run string, cp stages.Checkpoint) string
	}{
		{traffic.Deploying, 0, abort}, {traffic.Shifting, 1, restore}, {traffic.Shifting, 2, abort}, {traffic.Watching, 2, restore},
		{traffic.Promoting, 2, abort}, {traffic.Returning, 2, restore}, {traffic.Removing, 2, restore},
		{traffic.Watching, 1, func(t *testing.T, _ string, _ stages.Checkpoint) string {
			_, err := w.newCanary(t, ns).Promote(ctx, bypassed(t, next, "run-promote"))
			require.NoError(t, err)
			return "1.1.0"
		}},
		{traffic.Watching, 2, func(t *testing.T, _ string, _ stages.Checkpoint) string {
			_, err := w.newCanary(t, ns).Deploy(ctx, bypassed(t, old, "run-next"))
			require.NoError(t, err)
			return "1.0.0"
		}},
	} {
		t.Run(fmt.Sprintf("%s in step %d", k.phase, k.step), func(t *testing.T) {
			p := pilot{Kubeconfig: w.box.Kubeconfig, Namespace: ns, Run: fmt.Sprintf("killed-%d", i), Image: next, KillAt: k.phase, Step: k.step}
			if i == 8 {
				p.Image, err = builder.Build(ctx, source("1.2.0"))
				require.NoError(t, err)
			}
			cp := p.fly(t)
			status, err := w.newCanary(t, ns).Status(ctx)
			require.NoError(t, err)
			require.NotNil(t, status.Record, "the state was recorded")
			assert.Equal(t, k.phase, status.Record.Phase)
			assert.Equal(t, p.Run, status.Record.Run)
			t.Logf("left behind: %s, step %d, %s", status.Record.Phase, status.Record.Step, status.Traffic)
			version := k.goOn(t, p.Run, cp)
			w.requireNoCanary(t, ns, version, map[string]stages.Image{"1.0.0": old, "1.1.0": next}[version])
		})
	}
	c.requireUnharmed(t)
}
