package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Retry says how often, how fast and for how long a stage is tried. The zero
// value tries once, without a limit of time. Only the engine should retry: turn
// off what a stage's own client does.
type Retry struct {
	// Attempts is how often the stage is tried in all; 0 and 1 mean once.
	Attempts int
	// Initial is the wait before the second attempt, by default 1 s. Each further
	// wait is Multiplier times as long, by default 2, up to Max, by default 30 s.
	Initial    time.Duration
	Max        time.Duration
	Multiplier float64
	// Jitter varies each wait at random by up to this fraction of it, either way;
	// from 0, which is none, to 1.
	Jitter float64
	// Elapsed ends the attempts: none begins later than this after the first has
	// begun. 0 means no limit.
	Elapsed time.Duration
	// Timeout bounds each attempt. 0 means no limit.
	Timeout time.Duration
	// Retryable says whether an attempt that failed with err is worth another. By
	// default it is unless [stages.IsPermanent]. A panic never is.
	Retryable func(err error) bool
}

// Backoff returns a policy of that many attempts with waits of 1 s, 2 s, 4 s and
// so on up to 30 s, each varied by a fifth.
func Backoff(attempts int) Retry { return Retry{Attempts: attempts, Jitter: 0.2} }

// Retries holds a policy for each stage. Deploy, and Verify where a verifier is
// a [stages.Compensator], may only be tried more than once if the stage is
// [stages.Idempotent]; [New] refuses it otherwise. A gate's policy also holds for
// inconclusive decisions, and a compensator's for its checkpoint.
type Retries struct {
	Build           Retry
	Scan            Retry
	ScanGate        Retry
	Plan            Retry
	PlanGate        Retry
	Sign            Retry
	VerifySignature Retry
	Deploy          Retry
	Verify          Retry
	ReleaseGate     Retry
}

func (c Config) validateRetries() (problems []error) {
	r := c.Retries
	for _, p := range []struct {
		stage  Stage
		policy Retry
	}{
		{StageBuild, r.Build}, {StageScan, r.Scan}, {StageScanGate, r.ScanGate}, {StagePlan, r.Plan},
		{StagePlanGate, r.PlanGate}, {StageSign, r.Sign}, {StageVerifySignature, r.VerifySignature},
		{StageDeploy, r.Deploy}, {StageVerify, r.Verify}, {StageReleaseGate, r.ReleaseGate},
	} {
		if err := p.policy.validate(); err != nil {
			problems = append(problems, fmt.Errorf("retry of %s: %w", p.stage, err))
		}
	}
	if r.Deploy.Attempts > 1 && !isIdempotent(c.Deployer) {
		problems = append(problems, fmt.Errorf("deploy must not be retried: %T doesn't declare itself idempotent", c.Deployer))
	}
	for _, v := range c.Verifiers {
		if _, mutates := v.(stages.Compensator); mutates && r.Verify.Attempts > 1 && !isIdempotent(v) {
			problems = append(problems, fmt.Errorf("verify must not be retried: %T changes something and doesn't declare itself idempotent", v))
		}
	}
	return problems
}

func isIdempotent(stage any) bool {
	i, ok := stage.(stages.Idempotent)
	return ok && !isNil(stage) && i.Idempotent()
}

func (p Retry) validate() error {
	switch {
	case p.Attempts < 0, p.Initial < 0, p.Max < 0, p.Elapsed < 0, p.Timeout < 0:
		return errors.New("attempts and times must not be negative")
	case p.Multiplier != 0 && !(p.Multiplier >= 1) || math.IsInf(p.Multiplier, 1):
		return fmt.Errorf("multiplier %g must be at least 1", p.Multiplier)
	case !(p.Jitter >= 0 && p.Jitter <= 1):
		return fmt.Errorf("jitter %g must be from 0 to 1", p.Jitter)
	}
	return nil
}

// wait returns the pause after the given attempt, which counts from 1.
func (p Retry) wait(attempt int) time.Duration {
	initial, limit, multiplier := p.Initial, p.Max, p.Multiplier
	if initial == 0 {
		initial = time.Second
	}
	if limit == 0 {
		limit = max(initial, 30*time.Second)
	}
	if multiplier == 0 {
		multiplier = 2
	}
	pause := min(float64(initial)*math.Pow(multiplier, float64(attempt-1)), float64(limit))
	pause *= 1 + p.Jitter*(2*rand.Float64()-1) //nolint:gosec // nothing secret depends on when a retry comes
	return time.Duration(min(pause, float64(limit)))
}

// retryable is false for a classifier that panics: nothing is known then.
func (p Retry) retryable(err error) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	switch {
	case errors.Is(err, stages.ErrPanicked):
		return false
	case p.Retryable != nil:
		return p.Retryable(err)
	default:
		return !stages.IsPermanent(err)
	}
}

// timeoutError is the cause of an attempt's own deadline.
type timeoutError struct{ after time.Duration }

func (e *timeoutError) Error() string { return fmt.Sprintf("timed out after %s", e.after) }
func (e *timeoutError) Unwrap() error { return context.DeadlineExceeded }

// attempt tries f as s.policy says and returns how often it did.
func attempt[T any](ctx context.Context, r *run, s step, f func(context.Context) (T, error)) (value T, attempts int, err error) {
	start := time.Now()
	for n := 1; ; n++ {
		if value, err = once(ctx, r, s, n, f); err == nil {
			return value, n, nil
		}
		if ctx.Err() != nil {
			return value, n, interrupted(ctx, err)
		}
		if s.policy.Attempts <= 1 || !s.policy.retryable(err) {
			return value, n, err
		}
		pause := s.policy.wait(n)
		if n >= s.policy.Attempts || s.policy.Elapsed > 0 && time.Since(start)+pause > s.policy.Elapsed {
			return value, n, fmt.Errorf("%w after attempt %d of %d, %s: %w",
				stages.ErrRetryExhausted, n, s.policy.Attempts, round(time.Since(start)), err)
		}
		r.emit(Event{Stage: s.name, Kind: KindRetrying, Subject: s.subject, Attempt: n, Elapsed: time.Since(start),
			Message: fmt.Sprintf("attempt %d of %d failed, trying again in %s", n, s.policy.Attempts, round(pause)), Error: err.Error()})
		if !sleep(ctx, pause) {
			return value, n, interrupted(ctx, err)
		}
	}
}

// once makes one attempt, bounded by the policy's timeout.
func once[T any](ctx context.Context, r *run, s step, n int, f func(context.Context) (T, error)) (T, error) {
	bounded, cancel := ctx, context.CancelFunc(func() {})
	if s.policy.Timeout > 0 {
		bounded, cancel = context.WithTimeoutCause(ctx, s.policy.Timeout, &timeoutError{s.policy.Timeout})
	}
	defer cancel()
	value, err := guard(r.reporting(bounded, s, n), r.stalled(s, n), f)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = interrupted(bounded, err)
	}
	return value, err
}

// sleep reports whether it lasted as long as it should have.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second / 10)
}
