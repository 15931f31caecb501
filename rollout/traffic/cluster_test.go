package traffic_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/rollout/traffic/traffictest"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

var (
	oldImage   = stagestest.Image("old")
	newImage   = stagestest.Image("new")
	otherImage = stagestest.Image("other")
)

// cluster is a fake of everything that outlives a process. It checks, at every
// call, that no request can fail because of the canary.
type cluster struct {
	t      *testing.T
	stable stagestest.Deployer
	router traffictest.Router
	rig    *rig // what divides the traffic instead, if it is set
	state  traffictest.State

	mu       sync.Mutex
	canary   stages.Image // what it runs, if it is there
	verified bool         // the canary was seen to run
	holder   *process
	holding  string // the run that holds the lock
	breached bool   // a gate has said Fail
	sick     bool   // the canary does not run
	doomed   bool   // the stable release will not run the new image
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t}
	clearance, err := stages.BypassGates(oldImage, "test")
	require.NoError(t, err)
	_, err = c.stable.Deploy(t.Context(), stages.DeployRequest{Clearance: clearance, Run: "run-0"})
	require.NoError(t, err)
	return c
}

// divider is what divides the traffic.
func (c *cluster) divider() traffic.Router {
	if c.rig != nil {
		return c.rig
	}
	return &c.router
}

// weight is the canary's.
func (c *cluster) weight() int {
	if c.rig != nil {
		return c.rig.weight()
	}
	return c.router.Weight()
}

// requireCalm checks that the stable release runs img, with all traffic, and that
// there is no canary.
func (c *cluster) requireCalm(img stages.Image) {
	c.t.Helper()
	current, err := c.stable.State(c.t.Context())
	require.NoError(c.t, err)
	require.Equal(c.t, img.String(), current, "what the stable release runs")
	require.Zero(c.t, c.weight(), "the canary's weight")
	require.True(c.t, c.canary.IsZero(), "the canary must be gone")
	record, _, err := c.state.Load(c.t.Context())
	require.NoError(c.t, err)
	require.Nil(c.t, record, "the record must be gone")
}

// process is one that works on the cluster until it dies.
type process struct {
	*cluster
	calls int
	// fault is asked before and after the effect of every call, by one at a time.
	faults sync.Mutex
	fault  func(call string, n int, after bool) error
	log    []string
}

// die has every call fail from now on.
func (p *process) die() {
	p.faults.Lock()
	defer p.faults.Unlock()
	p.fault = func(string, int, bool) error { return errDead }
}

var errDead = errors.New("the process is dead")

// call has an effect, unless something comes between.
func (p *process) call(ctx context.Context, name string, effect func() error) error {
	p.mu.Lock()
	p.calls++
	n := p.calls
	p.log = append(p.log, name)
	p.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := p.check(name, n, false); err != nil {
		return err
	}
	if err := effect(); err != nil {
		return err
	}
	return p.check(name, n, true)
}

func (p *process) check(name string, n int, after bool) error {
	p.faults.Lock()
	defer p.faults.Unlock()
	if p.fault == nil {
		return nil
	}
	return p.fault(name, n, after)
}

// parts is what a canary is made of, in this process.
type parts struct {
	steps  []traffic.Step
	resume bool
	stable stages.Deployer // by default a stableDeployer
	canary stages.Deployer // by default a canaryDeployer
	router traffic.Router  // by default the cluster's
}

func (p *process) canaryOf(parts parts) *traffic.Canary {
	p.t.Helper()
	if parts.stable == nil {
		parts.stable = stableDeployer{p}
	}
	if parts.canary == nil {
		parts.canary = canaryDeployer{p}
	}
	if parts.router == nil {
		parts.router = processRouter{p}
	}
	c, err := traffic.NewCanary(traffic.CanaryConfig{
		Stable: parts.stable, Canary: parts.canary, Verifiers: []stages.Verifier{verifier{p}},
		Router: parts.router, State: processState{p}, Steps: parts.steps, Resume: parts.resume,
	})
	require.NoError(p.t, err)
	return c
}

// deliver does what the engine does: it locks, takes a checkpoint, deploys, and
// restores after a failure.
func (p *process) deliver(ctx context.Context, c *traffic.Canary, run string, img stages.Image) (cp *stages.Checkpoint, err error) {
	unlock, err := c.Lock(ctx, run)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unlock(context.WithoutCancel(ctx)) }()
	taken, err := c.Checkpoint(ctx, stages.CheckpointRequest{Run: run, Image: img})
	if err != nil {
		return nil, err
	}
	rel, err := c.Deploy(ctx, request(p.t, img, run))
	if err == nil {
		assert.Equal(p.t, img, rel.Image)
		return &taken, nil
	}
	_, restore := c.Restore(context.WithoutCancel(ctx), run, taken)
	return &taken, errors.Join(err, restore)
}

func request(t *testing.T, img stages.Image, run string) stages.DeployRequest {
	clearance, err := stages.BypassGates(img, "test")
	require.NoError(t, err)
	return stages.DeployRequest{Clearance: clearance, Run: run}
}

// verifier is one like package rollout's.
type verifier struct{ p *process }

func (v verifier) Verify(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	return v.p.verify(ctx, "verify "+rel.Name, rel)
}

func (v verifier) VerifyRestored(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	return v.p.verify(ctx, "verify restored "+rel.Name, rel)
}

func (v verifier) Examine(ctx context.Context, rel stages.Release) (facts []stages.Evidence, err error) {
	err = v.p.call(ctx, "examine "+rel.Name, func() error {
		facts = []stages.Evidence{{Subject: "pod " + rel.Name, Reason: "Running", Logs: []string{"no stock"}}}
		return nil
	})
	return facts, err
}

func (p *process) verify(ctx context.Context, call string, rel stages.Release) (v stages.Verification, err error) {
	err = p.call(ctx, call, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if rel.Name == "canary" && p.sick || rel.Name == "fake" && p.doomed && rel.Image == newImage {
			return stages.Permanent(&broken{rel.Name})
		}
		if rel.Name == "canary" {
			p.verified = true
		}
		v = stages.Verification{Image: rel.Image, Checks: []stages.Check{{Name: "runs"}}}
		return nil
	})
	return v, err
}

type broken struct{ name string }

func (e *broken) Error() string { return e.name + " does not run" }
func (e *broken) Evidence() []stages.Evidence {
	return []stages.Evidence{{Subject: "pod " + e.name, Reason: "CrashLoopBackOff"}}
}

// gate returns one that says these in turn, the last for ever.
func (p *process) gate(verdicts ...stages.Verdict) stages.Gate[stages.Release] {
	looks := 0
	return stages.GateFunc[stages.Release](func(ctx context.Context, rel stages.Release) (d stages.Decision, err error) {
		err = p.call(ctx, "gate", func() error {
			p.mu.Lock()
			defer p.mu.Unlock()
			verdict := verdicts[min(looks, len(verdicts)-1)]
			looks++
			d = stages.Decision{Gate: "errors", Verdict: verdict}
			if verdict != stages.Pass {
				d.Reasons = []stages.Reason{{Rule: "rate", Message: "5% of the requests fail"}}
			}
			assert.Equal(p.t, "canary", rel.Name, "gates are about the canary")
			return nil
		})
		p.mu.Lock()
		defer p.mu.Unlock()
		p.breached = p.breached || err == nil && d.Verdict == stages.Fail
		return d, err
	})
}

// stableDeployer is the fake of package stagestest under a lock like helmx's.
type stableDeployer struct{ p *process }

func (d stableDeployer) under(run string, f func() error) error {
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	if d.p.holder != nil && (d.p.holder != d.p || d.p.holding != run) {
		return fmt.Errorf("%w: by run %s", stages.ErrLocked, d.p.holding)
	}
	return f()
}

func (d stableDeployer) Lock(ctx context.Context, run string) (stages.Unlock, error) {
	err := d.p.call(ctx, "lock", func() error {
		return d.under(run, func() error {
			if d.p.holder != nil {
				return fmt.Errorf("%w: run %s holds it already", stages.ErrInvalid, run)
			}
			d.p.holder, d.p.holding = d.p, run
			return nil
		})
	})
	return func(ctx context.Context) error {
		return d.p.call(ctx, "unlock", func() error {
			d.p.mu.Lock()
			defer d.p.mu.Unlock()
			if d.p.holder == d.p && d.p.holding == run {
				d.p.holder = nil
			}
			return nil
		})
	}, err
}

func (d stableDeployer) Deploy(ctx context.Context, req stages.DeployRequest) (rel stages.Release, err error) {
	err = d.p.call(ctx, "deploy stable", func() error {
		return d.under(req.Run, func() error {
			assert.False(d.p.t, d.p.breached, "promoted after a breach")
			rel, err = d.p.stable.Deploy(ctx, req)
			return err
		})
	})
	return rel, err
}

func (d stableDeployer) Plan(ctx context.Context, req stages.PlanRequest) (plan stages.Plan, err error) {
	err = d.p.call(ctx, "plan stable", func() error { plan, err = d.p.stable.Plan(ctx, req); return err })
	return plan, err
}

func (d stableDeployer) Checkpoint(ctx context.Context, req stages.CheckpointRequest) (cp stages.Checkpoint, err error) {
	err = d.p.call(ctx, "checkpoint stable", func() error { cp, err = d.p.stable.Checkpoint(ctx, req); return err })
	return cp, err
}

func (d stableDeployer) Restore(ctx context.Context, run string, cp stages.Checkpoint) (r stages.Restoration, err error) {
	err = d.p.call(ctx, "restore stable", func() error {
		return d.under(run, func() error { r, err = d.p.stable.Restore(ctx, run, cp); return err })
	})
	return r, err
}

// canaryDeployer is a release of which there is at most one.
type canaryDeployer struct{ p *process }

func (d canaryDeployer) Deploy(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	rel := stages.Release{Image: req.Clearance.Image(), Name: "canary", Namespace: "default", Revision: 1, Objects: []stages.Object{{Kind: "Deployment", Name: "canary"}}}
	return rel, d.p.call(ctx, "deploy canary", func() error {
		d.p.mu.Lock()
		defer d.p.mu.Unlock()
		if d.p.weight() > 0 {
			assert.Equal(d.p.t, d.p.canary, rel.Image, "a canary that has traffic is replaced by another")
		}
		d.p.canary, d.p.verified = rel.Image, d.p.weight() > 0
		d.p.rig.canary(true)
		return nil
	})
}

func (d canaryDeployer) Uninstall(ctx context.Context, _ string) (stages.Removal, error) {
	return stages.Removal{}, d.p.call(ctx, "uninstall canary", func() error {
		d.p.mu.Lock()
		defer d.p.mu.Unlock()
		assert.Zero(d.p.t, d.p.weight(), "the canary is removed while it has traffic")
		d.p.canary, d.p.verified = stages.Image{}, false
		d.p.rig.canary(false)
		return nil
	})
}

// processRouter is the cluster's router as a process reaches it.
type processRouter struct{ p *process }

func (r processRouter) Nearest(ctx context.Context, weight int) (nearest int, err error) {
	err = r.p.call(ctx, "nearest", func() error { nearest, err = r.p.divider().Nearest(ctx, weight); return err })
	return nearest, err
}

func (r processRouter) Shift(ctx context.Context, from, to int) error {
	return r.p.call(ctx, fmt.Sprintf("shift to %d", to), func() error {
		r.p.mu.Lock()
		defer r.p.mu.Unlock()
		if to > 0 && r.p.weight() != to {
			assert.True(r.p.t, r.p.verified, "a canary that was not verified gets traffic")
			assert.False(r.p.t, r.p.breached, "a canary gets more traffic after a breach")
		}
		return r.p.divider().Shift(ctx, from, to)
	})
}

func (r processRouter) Isolate(ctx context.Context, planned []byte) error {
	isolator, ok := r.p.divider().(traffic.Isolator)
	if !ok {
		return nil
	}
	return r.p.call(ctx, "isolate", func() error { return isolator.Isolate(ctx, planned) })
}

func (r processRouter) Observe(ctx context.Context) (split traffic.Split, err error) {
	err = r.p.call(ctx, "observe", func() error { split, err = r.p.divider().Observe(ctx); return err })
	return split, err
}

// processState is the cluster's state as a process reaches it.
type processState struct{ p *process }

func (s processState) Load(ctx context.Context) (record *traffic.Record, version string, err error) {
	err = s.p.call(ctx, "load", func() error { record, version, err = s.p.state.Load(ctx); return err })
	return record, version, err
}

func (s processState) Save(ctx context.Context, record traffic.Record, version string) (saved string, err error) {
	err = s.p.call(ctx, "save "+string(record.Phase), func() error { saved, err = s.p.state.Save(ctx, record, version); return err })
	return saved, err
}

func (s processState) Delete(ctx context.Context, version string) error {
	return s.p.call(ctx, "delete", func() error { return s.p.state.Delete(ctx, version) })
}

// twoSteps are a canary's that look at a gate three times each.
func twoSteps(gates ...stages.Gate[stages.Release]) []traffic.Step {
	return []traffic.Step{{Weight: 10, For: 20 * time.Second, Gates: gates}, {Weight: 50, For: 20 * time.Second, Gates: gates}}
}

func inOrder(t *testing.T, log []string, want ...string) {
	t.Helper()
	rest := log
	for _, w := range want {
		i := slices.Index(rest, w)
		require.GreaterOrEqual(t, i, 0, "%q must come next in %q", w, log)
		rest = rest[i+1:]
	}
}
