package stagestest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Deployer is a fake with a cluster of one release in memory. It plans,
// compensates, uninstalls, and records failures. Its zero value has nothing
// deployed and is ready to use.
type Deployer struct {
	// Err, if not nil, fails every deployment after it has changed the cluster.
	Err error

	mu       sync.Mutex
	history  []fakeRevision
	undone   map[string]bool // by run
	failures []string
}

type fakeRevision struct {
	revision int
	image    stages.Image
	run      string
}

// State describes what is deployed; "" means that nothing is.
func (d *Deployer) State(context.Context) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current().image.String(), nil
}

func (d *Deployer) current() fakeRevision {
	if len(d.history) == 0 {
		return fakeRevision{}
	}
	return d.history[len(d.history)-1]
}

// Deploy implements [stages.Deployer].
func (d *Deployer) Deploy(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	if err := req.Clearance.Check(); err != nil {
		return stages.Release{}, err
	}
	if err := ready(ctx, nil); err != nil {
		return stages.Release{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	previous := d.current()
	if req.Plan != "" && req.Plan != d.digest(req.Clearance.Image()) && previous.run != req.Run {
		return stages.Release{}, fmt.Errorf("%w: revision %d was deployed since", stages.ErrPlanStale, previous.revision)
	}
	next := fakeRevision{revision: previous.revision + 1, image: req.Clearance.Image(), run: req.Run}
	d.history = append(d.history, next)
	if d.Err != nil {
		return stages.Release{}, d.Err
	}
	return next.release(previous.revision), nil
}

func (r fakeRevision) release(previous int) stages.Release {
	return stages.Release{
		Image: r.image, Name: "fake", Namespace: "default", Revision: r.revision, Previous: previous,
		Objects: []stages.Object{fakeObject}, Deployed: time.Now(),
	}
}

// digest identifies what deploying img would do now.
func (d *Deployer) digest(img stages.Image) string {
	return fmt.Sprintf("%d %s", d.current().revision, img)
}

var fakeObject = stages.Object{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "default", Name: "fake"}

// Plan implements [stages.Planner].
func (d *Deployer) Plan(ctx context.Context, req stages.PlanRequest) (stages.Plan, error) {
	if err := ready(ctx, nil); err != nil {
		return stages.Plan{}, err
	}
	if err := requireImage(req.Image); err != nil {
		return stages.Plan{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	plan := stages.Plan{Image: req.Image, Release: "default/fake", Manifests: []byte("image: " + req.Image.String() + "\n"), Digest: d.digest(req.Image)}
	switch current := d.current(); current.image {
	case req.Image:
	case stages.Image{}:
		plan.Changes = []stages.Change{{Action: stages.Create, Object: fakeObject, Diff: "+ image: " + req.Image.String() + "\n"}}
	default:
		plan.Changes = []stages.Change{{Action: stages.Update, Object: fakeObject,
			Diff: "- image: " + current.image.String() + "\n+ image: " + req.Image.String() + "\n"}}
	}
	return plan, nil
}

// Checkpoint implements [stages.Compensator].
func (d *Deployer) Checkpoint(ctx context.Context, _ stages.CheckpointRequest) (stages.Checkpoint, error) {
	if err := ready(ctx, nil); err != nil {
		return stages.Checkpoint{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	state, err := json.Marshal(d.current().revision)
	return stages.Checkpoint{Subject: "release default/fake", State: state}, err
}

// Restore implements [stages.Compensator].
func (d *Deployer) Restore(ctx context.Context, run string, cp stages.Checkpoint) (stages.Restoration, error) {
	if err := ready(ctx, nil); err != nil {
		return stages.Restoration{}, err
	}
	var revision int
	if err := json.Unmarshal(cp.State, &revision); err != nil {
		return stages.Restoration{}, fmt.Errorf("%w: checkpoint of %s: %w", stages.ErrInvalid, cp.Subject, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	keep := slices.IndexFunc(d.history, func(r fakeRevision) bool { return r.revision > revision })
	if keep < 0 {
		return stages.Restoration{Subject: cp.Subject, Outcome: stages.Unchanged, Message: "nothing was deployed since", Release: d.restored(run)}, nil
	}
	for _, r := range d.history[keep:] {
		if r.run != run {
			return stages.Restoration{Subject: cp.Subject, Outcome: stages.Impossible,
				Message: fmt.Sprintf("revision %d was deployed by run %s since", r.revision, r.run)}, nil
		}
	}
	d.history = d.history[:keep]
	if d.undone == nil {
		d.undone = map[string]bool{}
	}
	d.undone[run] = true
	return stages.Restoration{
		Subject: cp.Subject, Outcome: stages.Restored, Message: fmt.Sprintf("back at revision %d", revision), Release: d.restored(run),
	}, nil
}

// restored returns what undoing run has brought back, if anything.
func (d *Deployer) restored(run string) *stages.Release {
	if !d.undone[run] || len(d.history) == 0 {
		return nil
	}
	rel := d.current().release(0)
	return &rel
}

// Uninstall implements [stages.Uninstaller].
func (d *Deployer) Uninstall(ctx context.Context, _ string) (stages.Removal, error) {
	if err := ready(ctx, nil); err != nil {
		return stages.Removal{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	removal := stages.Removal{Release: "default/fake"}
	if len(d.history) > 0 {
		removal.Removed = []stages.Object{fakeObject}
	}
	d.history = nil
	return removal, nil
}

// RecordFailure implements [stages.FailureRecorder].
func (d *Deployer) RecordFailure(ctx context.Context, run string, cause error) error {
	if err := ready(ctx, nil); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if current := d.current(); current.revision > 0 && current.run == run {
		d.failures = append(d.failures, fmt.Sprintf("revision %d failed: %v", current.revision, cause))
	}
	return nil
}

// Failures returns what was recorded of failures, a line each.
func (d *Deployer) Failures(context.Context) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.failures, "\n"), nil
}

var (
	_ stages.Deployer    = (*Deployer)(nil)
	_ stages.Planner     = (*Deployer)(nil)
	_ stages.Compensator = (*Deployer)(nil)
	_ stages.Uninstaller = (*Deployer)(nil)

	_ stages.FailureRecorder = (*Deployer)(nil)
)
