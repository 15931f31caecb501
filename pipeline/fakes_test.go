package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

func image(t testing.TB, digit string) stages.Image {
	t.Helper()
	img, err := stages.ParseImage("registry.test/shop@sha256:" + strings.Repeat(digit, 64))
	require.NoError(t, err)
	return img
}

// fake is every stage of a pipeline, over one small "cluster". What a call does
// is said by on, by name: "build", "scan", "scan-gate", "plan", "plan-gate",
// "sign", "verify-signature", "checkpoint", "deploy", "verify", "release-gate",
// "restore". A call without a script succeeds.
type fake struct {
	img stages.Image

	mu      sync.Mutex
	on      map[string]func(ctx context.Context, attempt int) error
	calls   []string
	counts  map[string]int
	running int
	cluster string // digest that is deployed
	bound   string // the plan that the last deployment was bound to
}

func newFake(t testing.TB) *fake {
	return &fake{img: image(t, "a"), cluster: "before", on: map[string]func(context.Context, int) error{}, counts: map[string]int{}}
}

// fail makes a call fail always.
func (f *fake) fail(name string, err error) {
	f.on[name] = func(context.Context, int) error { return err }
}

func (f *fake) call(ctx context.Context, name string) error {
	f.mu.Lock()
	f.calls = append(f.calls, name)
	f.counts[name]++
	attempt, script := f.counts[name], f.on[name]
	f.running++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.running--
		f.mu.Unlock()
	}()
	if script == nil {
		return ctx.Err()
	}
	return script(ctx, attempt)
}

func (f *fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func (f *fake) Build(ctx context.Context, _ stages.Source) (stages.Image, error) {
	return f.img, f.call(ctx, "build")
}

func (f *fake) Scan(ctx context.Context, img stages.Image) (stages.Report, error) {
	return stages.Report{Image: img, Packages: 3}, f.call(ctx, "scan")
}

func (f *fake) Sign(ctx context.Context, img stages.Image) (stages.Signature, error) {
	return stages.Signature{Image: img, KeyID: "k"}, f.call(ctx, "sign")
}

func (f *fake) VerifySignature(ctx context.Context, img stages.Image) (stages.Signature, error) {
	return stages.Signature{Image: img, KeyID: "k"}, f.call(ctx, "verify-signature")
}

func (f *fake) Verify(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	return stages.Verification{Image: rel.Image, Checks: []stages.Check{{Name: "rollout"}}}, f.call(ctx, "verify")
}

// plannedDigest is what the plan is known by.
const plannedDigest = "digest of the plan"

// Deploy changes the cluster before it fails, as real ones do.
func (f *fake) Deploy(ctx context.Context, req stages.DeployRequest) (stages.Release, error) {
	if err := req.Clearance.Check(); err != nil {
		return stages.Release{}, err
	}
	f.mu.Lock()
	f.bound = req.Plan
	f.mu.Unlock()
	f.set("half " + req.Clearance.Image().Digest().Short())
	if err := f.call(ctx, "deploy"); err != nil {
		return stages.Release{}, err
	}
	f.set(req.Clearance.Image().Digest().Short())
	return stages.Release{Image: req.Clearance.Image(), Namespace: "shop", Name: "shop", Revision: 2, Previous: 1}, nil
}

func (f *fake) Plan(ctx context.Context, req stages.PlanRequest) (stages.Plan, error) {
	return stages.Plan{Image: req.Image, Release: "shop/shop", Digest: plannedDigest, Changes: []stages.Change{
		{Action: stages.Update, Object: stages.Object{Kind: "Deployment", Namespace: "shop", Name: "shop"}, Diff: "-a\n+b\n"},
	}}, f.call(ctx, "plan")
}

func (f *fake) Checkpoint(ctx context.Context, _ stages.CheckpointRequest) (stages.Checkpoint, error) {
	err := f.call(ctx, "checkpoint")
	state, _ := json.Marshal(f.state())
	return stages.Checkpoint{Subject: "release shop/shop", State: state}, err
}

func (f *fake) Restore(ctx context.Context, _ string, cp stages.Checkpoint) (stages.Restoration, error) {
	if err := f.call(ctx, "restore"); err != nil {
		return stages.Restoration{}, err
	}
	var before string
	if err := json.Unmarshal(cp.State, &before); err != nil {
		return stages.Restoration{}, err
	}
	outcome := stages.Restored
	if f.state() == before {
		outcome = stages.Unchanged
	}
	f.set(before)
	return stages.Restoration{Subject: cp.Subject, Outcome: outcome, Message: "now " + before}, nil
}

func (f *fake) set(state string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cluster = state
}

func (f *fake) state() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cluster
}

// gate passes unless its script fails: an error that is a verdict is a decision.
func gate[T any](f *fake, name string) stages.Gate[T] {
	return stages.GateFunc[T](func(ctx context.Context, _ T) (stages.Decision, error) {
		err := f.call(ctx, name)
		if v, ok := errors.AsType[verdict](err); ok {
			return stages.Decision{Gate: name, Verdict: stages.Verdict(v), Reasons: []stages.Reason{{Rule: "r1", Message: "because"}}}, nil
		}
		return stages.Decision{Gate: name, Verdict: stages.Pass}, err
	})
}

type verdict stages.Verdict

func (v verdict) Error() string { return fmt.Sprint("verdict ", stages.Verdict(v)) }

// idempotent is a fake whose deployment may be repeated.
type idempotent struct{ *fake }

func (idempotent) Idempotent() bool { return true }

// recorder keeps events.
type recorder struct {
	mu     sync.Mutex
	events []pipeline.Event
}

func (r *recorder) Observe(e pipeline.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) all() []pipeline.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// of returns the events of a kind.
func (r *recorder) of(kind pipeline.Kind) (found []pipeline.Event) {
	for _, e := range r.all() {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

// config composes every kind of stage from f.
func config(f *fake, observers ...pipeline.Observer) pipeline.Config {
	return pipeline.Config{
		Name: "shop", Builder: stages.BuilderFunc(f.Build), Scanner: stages.ScannerFunc(f.Scan),
		Signer: stages.SignerFunc(f.Sign), SignatureVerifier: stages.SignatureVerifierFunc(f.VerifySignature), Deployer: f,
		ScanGates:    []stages.Gate[stages.Report]{gate[stages.Report](f, "scan-gate")},
		PlanGates:    []stages.Gate[stages.Plan]{gate[stages.Plan](f, "plan-gate")},
		Verifiers:    []stages.Verifier{stages.VerifierFunc(f.Verify)},
		ReleaseGates: []stages.Gate[stages.Release]{gate[stages.Release](f, "release-gate")},
		Observers:    observers,
	}
}

func newPipeline(t testing.TB, c pipeline.Config) *pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.New(c)
	require.NoError(t, err)
	return p
}

var source = stages.Source{Dir: "src", Revision: "c0ffee"}
