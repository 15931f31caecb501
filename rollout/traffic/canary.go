package traffic

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/fairlead-dev/fairlead/stages"
)

// Canary deploys an image beside the stable release first, gives it traffic step
// by step, and then promotes it or aborts. It is a [stages.Deployer] in the place
// of the stable release's own. It is safe for concurrent use: canaries of the same
// release exclude each other by the lock of the stable release, and so do two calls
// for the same run.
type Canary struct {
	cfg CanaryConfig
	// The abilities of the two deployers.
	planner  stages.Planner
	restorer stages.Compensator
	locker   stages.Locker
	remover  stages.Uninstaller

	mu    sync.Mutex
	holds map[string]*hold
	busy  map[string]bool // the runs that an operation is under way for
}

// hold is the lock of one run.
type hold struct {
	// cleared says that another run's canary had to be put out of the way.
	cleared bool
	// holders are those that a record may name under the lock: whom the dead have left
	// it to, and this process. Any other has the lock by now.
	holders []string
}

// allows refuses the record of somebody who has taken the lock over.
func (h *hold) allows(r *Record) error {
	if h == nil || r == nil || slices.Contains(h.holders, r.Holder) {
		return nil
	}
	return takenOver(r)
}

func takenOver(r *Record) error {
	return fmt.Errorf("%w: run %q has taken the canary over", stages.ErrLockLost, r.Run)
}

// newHolder names this process as the holder of a run's canary.
func (h *hold) newHolder(run string) string {
	name := run + " " + rand.Text()[:10]
	if h != nil {
		h.holders = append(h.holders, name)
	}
	return name
}

var (
	_ stages.Deployer        = (*Canary)(nil)
	_ stages.Planner         = (*Canary)(nil)
	_ stages.Compensator     = (*Canary)(nil)
	_ stages.Locker          = (*Canary)(nil)
	_ stages.FailureRecorder = (*Canary)(nil)
	_ stages.Closer          = (*Canary)(nil)
)

// NewCanary returns a canary, without asking the cluster anything yet. Its error
// matches [stages.ErrInvalid].
func NewCanary(config CanaryConfig) (*Canary, error) {
	c := &Canary{holds: map[string]*hold{}, busy: map[string]bool{}}
	c.planner, _ = config.Stable.(stages.Planner)
	c.restorer, _ = config.Stable.(stages.Compensator)
	c.locker, _ = config.Stable.(stages.Locker)
	c.remover, _ = config.Canary.(stages.Uninstaller)
	problems := config.prepare()
	if c.planner == nil || c.restorer == nil {
		problems = append(problems, errors.New("Stable must be a deployer that can plan (stages.Planner) and restore (stages.Compensator)"))
	}
	if c.locker == nil {
		problems = append(problems, errors.New("Stable must be a deployer that can be locked (stages.Locker): without a lock, a second run would take a canary that lives for one whose process died"))
	}
	if c.remover == nil {
		problems = append(problems, errors.New("Canary must be a deployer that can remove its release (stages.Uninstaller)"))
	}
	if pointer := reflect.ValueOf(config.Stable); pointer.Kind() == reflect.Pointer && any(config.Stable) == any(config.Canary) {
		problems = append(problems, errors.New("Stable and Canary are the same deployer"))
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%w: canary configuration: %w", stages.ErrInvalid, errors.Join(problems...))
	}
	c.cfg = config
	return c, nil
}

// Deploy takes the image through the canary's steps and promotes it. It returns
// the stable release, upgraded and verified, with all traffic on it.
//
// It returns an [*AbortError] if the canary was aborted, which it then was already:
// unlike other deployers this one doesn't leave the cluster for a restore to put
// right, because a bad canary has users. Cancelling ctx aborts too. A
// [*RouteError] or [*ChangedError] that is not in an AbortError has changed
// nothing.
//
// Where there is no stable release that could keep the traffic, or where the
// deployment would change nothing of it, the stable release is deployed directly.
func (c *Canary) Deploy(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	if err := req.Clearance.Check(); err != nil {
		return stages.Release{}, fmt.Errorf("deploy a canary: %w", err)
	}
	if req.Run == "" {
		return stages.Release{}, fmt.Errorf("deploy a canary: %w: there is no run", stages.ErrInvalid)
	}
	h, done, err := c.locked(ctx, req.Run)
	if err != nil {
		return stages.Release{}, fmt.Errorf("deploy a canary: %w", err)
	}
	defer done()
	plan, err := c.plan(ctx, stages.PlanRequest{Image: req.Clearance.Image(), Run: req.Run, Source: req.Source})
	if err != nil {
		return stages.Release{}, fmt.Errorf("deploy a canary: %w", err)
	}
	if !plan.holds(req.Plan, h.cleared) {
		return stages.Release{}, fmt.Errorf("deploy a canary of release %s: %w: plan again", plan.Release, stages.ErrPlanStale)
	}
	f, err := c.begin(ctx, req, h)
	switch {
	case err != nil:
		return stages.Release{}, fmt.Errorf("deploy a canary of release %s: %w", plan.Release, err)
	case f == nil && plan.direct:
		c.reopen(ctx, req.Run, h)
		stages.ReportProgress(ctx, stages.Progress{ID: progressID, Message: "no canary is needed: " + plan.why})
		req.Plan = plan.stable
		return c.cfg.Stable.Deploy(ctx, req)
	case f == nil:
		if f, err = c.start(ctx, req, h); err != nil {
			return stages.Release{}, fmt.Errorf("deploy a canary of release %s: %w", plan.Release, err)
		}
	}
	f.planned = plan.canary
	rel, err := f.fly(ctx)
	if err != nil {
		return stages.Release{}, fmt.Errorf("release %s: %w", plan.Release, err)
	}
	return rel, nil
}

const progressID = "canary"

// Plan tells what would change in the end, and what of the canary would be made
// for the time being.
func (c *Canary) Plan(ctx context.Context, req stages.PlanRequest) (stages.Plan, error) {
	plan, err := c.plan(ctx, req)
	if err != nil {
		return stages.Plan{}, fmt.Errorf("plan a canary: %w", err)
	}
	return plan.Plan, nil
}

// plans is the plan of a canary, with what it was made of.
type plans struct {
	stages.Plan
	// stable is the digest of the stable release's own plan.
	stable string
	// canary are the manifests of the canary's release, if that is known.
	canary []byte
	// direct says that no canary is needed, and why.
	direct bool
	why    string
}

func (c *Canary) plan(ctx context.Context, req stages.PlanRequest) (plans, error) {
	stable, err := c.planner.Plan(ctx, req)
	if err != nil {
		return plans{}, err
	}
	p := plans{Plan: stable, stable: stable.Digest}
	live := slices.ContainsFunc(stable.Changes, func(ch stages.Change) bool { return ch.Action != stages.Create && ch.Action != stages.Adopt })
	canary := stages.Plan{}
	switch planner, ok := c.cfg.Canary.(stages.Planner); {
	case len(stable.Changes) == 0:
		p.direct, p.why = true, "nothing changes"
	case !live:
		p.direct, p.why = true, "there is no stable release yet"
	case ok:
		if canary, err = planner.Plan(ctx, req); err != nil {
			return plans{}, fmt.Errorf("the canary's release: %w", err)
		}
		if canary.Release == stable.Release {
			return plans{}, fmt.Errorf("%w: Stable and Canary both deploy release %s: give the canary's another name", stages.ErrInvalid, stable.Release)
		}
		p.canary = canary.Manifests
		p.Manifests = slices.Concat(stable.Manifests, []byte("---\n"), canary.Manifests)
		p.Changes = slices.Concat(stable.Changes, canary.Changes)
		p.Drift = slices.Concat(stable.Drift, canary.Drift)
		p.Dangers = slices.Concat(stable.Dangers, canary.Dangers)
		p.Notes = slices.Concat(stable.Notes, canary.Notes)
	}
	if stable.Digest != "" {
		p.Digest = sum(p.Manifests) + "." + sum([]byte(stable.Digest+"\n"+canary.Digest))
	}
	return p, nil
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])[:32]
}

// holds reports whether the plan with this digest is still true. Where the canary
// of a dead run was put out of the way since, only the manifests can be the same.
func (p plans) holds(digest string, cleared bool) bool {
	if cleared {
		manifests, _, _ := strings.Cut(p.Digest, ".")
		planned, _, _ := strings.Cut(digest, ".")
		return digest == "" || planned == manifests
	}
	return digest == "" || digest == p.Digest
}

// Lock takes the stable release's lock. It first puts out of the way what a run
// that died has left: see [CanaryConfig.Resume] and [Record].
func (c *Canary) Lock(ctx context.Context, run string) (stages.Unlock, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	cleared, err := c.clear(ctx, run)
	if err != nil {
		return nil, fmt.Errorf("put a dead run's canary out of the way: %w", err)
	}
	unlock, err := c.locker.Lock(ctx, run)
	if err != nil {
		return nil, err
	}
	h := &hold{cleared: cleared}
	left, _, err := c.cfg.State.Load(ctx)
	if err != nil {
		giveBack(ctx, unlock)
		return nil, err
	}
	if left != nil {
		h.holders = []string{left.Holder}
	}
	c.mu.Lock()
	c.holds[run] = h
	c.mu.Unlock()
	return func(ctx context.Context) error {
		c.mu.Lock()
		delete(c.holds, run)
		c.mu.Unlock()
		return unlock(ctx)
	}, nil
}

// enter begins an operation of a run, which has one at a time: two would share one
// lock, and one record. Its error matches [stages.ErrLocked].
func (c *Canary) enter(run string) (leave func(), _ error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy[run] {
		return nil, fmt.Errorf("%w: run %s is at work on the canary already", stages.ErrLocked, run)
	}
	c.busy[run] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.busy, run)
	}, nil
}

// locked makes sure that the run has the lock, and nothing else under way. What it
// takes, done gives back.
func (c *Canary) locked(ctx context.Context, run string) (h *hold, done func(), _ error) {
	leave, err := c.enter(run)
	if err != nil {
		return nil, nil, err
	}
	if h = c.held(run); h != nil {
		return h, leave, nil
	}
	unlock, err := c.Lock(ctx, run)
	if err != nil {
		leave()
		return nil, nil, err
	}
	return c.held(run), func() { giveBack(ctx, unlock); leave() }, nil
}

func (c *Canary) held(run string) *hold {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holds[run]
}

// giveBack gives a lock back that expires by itself otherwise.
func giveBack(ctx context.Context, unlock stages.Unlock) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTime)
	defer cancel()
	if err := unlock(ctx); err != nil {
		reporter(ctx)("the lock could not be given back; it expires by itself")
	}
}

// RecordFailure has the stable release's deployer keep why a run failed, if it
// can.
func (c *Canary) RecordFailure(ctx context.Context, run string, cause error) error {
	if recorder, ok := c.cfg.Stable.(stages.FailureRecorder); ok {
		return recorder.RecordFailure(ctx, run, cause)
	}
	return nil
}

// Close closes both deployers and the router.
func (c *Canary) Close() error {
	var errs []error
	for _, part := range []any{c.cfg.Stable, c.cfg.Canary, c.cfg.Router} {
		if closer, ok := part.(stages.Closer); ok {
			errs = append(errs, closer.Close())
		}
	}
	return errors.Join(errs...)
}

// checkpointState is what a checkpoint of a canary records.
type checkpointState struct {
	Format int               `json:"format"`
	Stable stages.Checkpoint `json:"stable"`
}

// Checkpoint records the stable release. A canary is never part of what there is
// to go back to.
func (c *Canary) Checkpoint(ctx context.Context, req stages.CheckpointRequest) (stages.Checkpoint, error) {
	stable, err := c.restorer.Checkpoint(ctx, req)
	if err != nil {
		return stages.Checkpoint{}, err
	}
	state, err := json.Marshal(checkpointState{Format: recordFormat, Stable: stable})
	return stages.Checkpoint{Subject: stable.Subject, State: state}, err
}

func decodeCheckpoint(cp stages.Checkpoint) (stages.Checkpoint, error) {
	var st checkpointState
	if err := json.Unmarshal(cp.State, &st); err != nil {
		return stages.Checkpoint{}, fmt.Errorf("%w: the checkpoint of %q can't be read: %w", stages.ErrInvalid, cp.Subject, err)
	}
	if st.Format != recordFormat {
		return stages.Checkpoint{}, fmt.Errorf("%w: the checkpoint of %q has format %d, this version reads %d", stages.ErrInvalid, cp.Subject, st.Format, recordFormat)
	}
	return st.Stable, nil
}
