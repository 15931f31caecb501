package releaseset_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// cluster is what the fakes of a test share: the order of what was done, and how
// much was done at a time.
type cluster struct {
	mu      sync.Mutex
	log     []string
	open    int
	maxOpen int
	fakes   map[string]*fake
}

func newCluster() *cluster { return &cluster{fakes: map[string]*fake{}} }

func (c *cluster) note(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, what)
}

// did returns what was logged of one kind of work, such as "deploy".
func (c *cluster) did(what string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, entry := range c.log {
		if len(entry) > len(what) && entry[:len(what)+1] == what+" " {
			out = append(out, entry[len(what)+1:])
		}
	}
	return out
}

// fake is one release; its hooks, where set, come before the real thing.
type fake struct {
	stagestest.Deployer
	c         *cluster
	id        string
	onDeploy  func(ctx context.Context) error
	onRestore func(ctx context.Context) (stages.Restoration, error)
	onOpen    func() error
	onLock    func() error

	onUninstall func(ctx context.Context) error
	// defines returns what the member defines where others have defined that before.
	defines func(before []stages.Kind) []stages.Kind
}

func (f *fake) Lock(context.Context, string) (stages.Unlock, error) {
	if f.onLock != nil {
		if err := f.onLock(); err != nil {
			return nil, err
		}
	}
	f.c.note("lock " + f.id)
	return func(ctx context.Context) error {
		f.c.note("unlock " + f.id)
		return ctx.Err()
	}, nil
}

func (f *fake) Checkpoint(ctx context.Context, req stages.CheckpointRequest) (stages.Checkpoint, error) {
	f.c.note("checkpoint " + f.id)
	return f.Deployer.Checkpoint(ctx, req)
}

func (f *fake) Deploy(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	f.c.note("deploy " + f.id)
	if req.Plan != "" && req.Plan != f.id+"@1" {
		return stages.Release{}, stages.ErrPlanStale
	}
	req.Plan = "" // Checked.
	rel, err := f.Deployer.Deploy(ctx, req)
	if err == nil && f.onDeploy != nil {
		err = f.onDeploy(ctx)
	}
	f.c.note("done " + f.id)
	return rel, err
}

func (f *fake) Restore(ctx context.Context, run string, cp stages.Checkpoint) (stages.Restoration, error) {
	f.c.note("restore " + f.id)
	if f.onRestore != nil {
		return f.onRestore(ctx)
	}
	return f.Deployer.Restore(ctx, run, cp)
}

func (f *fake) Plan(ctx context.Context, req stages.PlanRequest) (stages.Plan, error) {
	if f.defines != nil {
		f.c.note("plan " + f.id)
		return stages.Plan{Release: f.id, Defines: f.defines(req.Defined)}, nil
	}
	if req.Image.IsZero() {
		return stages.Plan{Release: f.id, Manifests: []byte("vendor\n")}, nil
	}
	return f.Deployer.Plan(ctx, req)
}

// DeployUnscanned releases an image that stands for the vendor's.
func (f *fake) DeployUnscanned(ctx context.Context, req helmx.UnscannedRequest) (stages.Release, error) {
	clearance, err := stages.BypassGates(stagestest.Image("vendor"), "test")
	if err != nil {
		return stages.Release{}, err
	}
	return f.Deploy(ctx, stages.DeployRequest{Clearance: clearance, Run: req.Run, Source: req.Source, Plan: req.Plan})
}

// PlanRemoval names what is there.
func (f *fake) PlanRemoval(ctx context.Context, _ string) (stages.Plan, error) {
	state, err := f.State(ctx)
	plan := stages.Plan{Release: f.id, Digest: "remove " + state}
	if state != "" {
		plan.Changes = []stages.Change{{Action: stages.Delete, Object: stages.Object{Kind: "Deployment", Namespace: "ns", Name: f.id}}}
	}
	return plan, err
}

func (f *fake) Uninstall(ctx context.Context, run string) (stages.Removal, error) {
	f.c.note("uninstall " + f.id)
	if f.onUninstall != nil {
		if err := f.onUninstall(ctx); err != nil {
			return stages.Removal{}, err
		}
	}
	return f.Deployer.Uninstall(ctx, run)
}

func (f *fake) Forget(context.Context, string) error {
	f.c.note("forget " + f.id)
	return nil
}

func (f *fake) Close() error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.c.open--
	return nil
}

// member makes a member with an image of ours, whose release is called name in
// the namespace "ns".
func (c *cluster) member(t testing.TB, name string, needs ...string) releaseset.Member {
	t.Helper()
	img := stagestest.Image("v2")
	clearance, err := stages.BypassGates(img, "test")
	require.NoError(t, err)
	f := &fake{c: c, id: "ns/" + name}
	c.fakes[name] = f
	return releaseset.Member{
		Namespace: "ns", Name: name, Needs: needs, Clearance: clearance,
		Open: func(context.Context) (releaseset.Deployer, error) {
			if f.onOpen != nil {
				if err := f.onOpen(); err != nil {
					return nil, err
				}
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.open++
			c.maxOpen = max(c.maxOpen, c.open)
			return f, nil
		},
	}
}

func newSet(t testing.TB, concurrency int, members ...releaseset.Member) *releaseset.Set {
	t.Helper()
	set, err := releaseset.New(releaseset.Config{Members: members, Concurrency: concurrency})
	require.NoError(t, err)
	return set
}

func (f *fake) state(t testing.TB) string {
	t.Helper()
	state, err := f.State(t.Context())
	require.NoError(t, err)
	return state
}

// before reports whether a comes before b in log.
func before(log []string, a, b string) bool {
	i, j := slices.Index(log, a), slices.Index(log, b)
	return i >= 0 && i < j
}
