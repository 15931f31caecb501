package smoke

import (
	"context"
	"errors"
	"fmt"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// The defaults of the tests.
const (
	DefaultTimeout        = time.Minute
	DefaultRequestTimeout = 5 * time.Second
	DefaultCleanupTimeout = 15 * time.Second
	DefaultUser           = 65532
)

// Test is one smoke test. It is safe for concurrent use, and can be repeated
// unless it is a function that can't; see [FuncConfig.Once].
type Test struct {
	name    string // for errors that have no better
	timeout time.Duration
	once    bool
	// run does the test within timeout. Its errors say nothing of the release.
	run func(ctx context.Context, rel stages.Release) (stages.Check, error)
	// rules are what the test needs; nil for nothing of the cluster.
	rules func(rel stages.Release) (map[string][]rbacv1.PolicyRule, error)
	close func()
}

var (
	_ stages.Verifier   = (*Test)(nil)
	_ stages.Closer     = (*Test)(nil)
	_ stages.Idempotent = (*Test)(nil)
)

// Verify runs the test. It returns a permanent [*rollout.Failure] if the release
// doesn't answer as expected; a permanent error that names the verb if something
// is not permitted; an error matching [stages.ErrIndeterminate] if the cluster
// can't be asked until the timeout; [context.Cause] if ctx is done before.
// What it made in the cluster is deleted before it returns.
func (t *Test) Verify(ctx context.Context, rel stages.Release) (stages.Verification, error) {
	subject := rel.Namespace + "/" + rel.Name
	wrap := func(err error) error { return fmt.Errorf("%s of release %s: %w", t.name, subject, err) }
	switch {
	case rel.Image.IsZero(), rel.Name == "", rel.Namespace == "":
		return stages.Verification{}, wrap(fmt.Errorf("%w: the release needs an image, a name and a namespace", stages.ErrInvalid))
	case ctx.Err() != nil:
		return stages.Verification{}, wrap(context.Cause(ctx))
	}
	bounded, cancel := context.WithTimeoutCause(ctx, t.timeout, errTimeout)
	defer cancel()
	began := time.Now()
	check, err := t.run(bounded, rel)
	if err == nil {
		check.Elapsed = time.Since(began)
		return stages.Verification{Image: rel.Image, Checks: []stages.Check{check}}, nil
	}
	if f, ok := errors.AsType[*rollout.Failure](err); ok && ctx.Err() == nil {
		f.Release, f.Elapsed = subject, time.Since(began)
		return stages.Verification{}, stages.Permanent(err)
	}
	if ctx.Err() == nil && errors.Is(err, errTimeout) {
		err = fmt.Errorf("%w after %s: %w", stages.ErrIndeterminate, t.timeout, err)
	}
	return stages.Verification{}, wrap(err)
}

// errTimeout is why a test's context ends at its timeout.
var errTimeout = errors.New("the smoke test's time is up")

// Idempotent reports whether the test can be repeated.
func (t *Test) Idempotent() bool { return !t.once }

// Close lets go of idle connections.
func (t *Test) Close() error {
	if t.close != nil {
		t.close()
	}
	return nil
}

// failure is a smoke test that failed, as evidence has it.
func failure(rel stages.Release, evidence stages.Evidence) *rollout.Failure {
	evidence.Reason = string(rollout.SmokeFailed)
	return &rollout.Failure{
		Release: rel.Namespace + "/" + rel.Name, Workload: workload(rel), Cause: rollout.SmokeFailed, Decisive: evidence,
	}
}

func workload(rel stages.Release) stages.Object {
	return stages.Object{Kind: "Smoke", Namespace: rel.Namespace, Name: rel.Name}
}
