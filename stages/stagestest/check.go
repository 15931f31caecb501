package stagestest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// T is what a check needs of a test, so that the suites themselves can be
// tested against implementations that break the contract.
type T interface {
	require.TestingT
	Context() context.Context
}

// check is one rule of the contract, tried on a fresh harness.
type check[H any] struct {
	name string
	run  func(t T, h H)
}

func runChecks[H any](t *testing.T, newHarness func(*testing.T) H, checks []check[H]) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.run(t, newHarness(t)) })
	}
}

const (
	// promptly bounds how long a call may go on after its context is cancelled.
	promptly = 10 * time.Second
	// parallel is how many goroutines the concurrency checks use.
	parallel = 4
)

// requireCancelled checks that call, given a context that is already cancelled,
// fails promptly with the cancellation as its cause.
func requireCancelled(t T, call func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	err := call(ctx)
	require.Error(t, err, "a cancelled context must be an error")
	assert.ErrorIs(t, err, context.Canceled, "the error must match the context's cause")
	assert.Less(t, time.Since(start), promptly, "a cancelled call must return promptly")
}

// requireInvalid checks that err refuses bad input for good.
func requireInvalid(t T, err error, what string) {
	require.Error(t, err, "%s must be refused", what)
	assert.ErrorIs(t, err, stages.ErrInvalid, "%s must be refused as invalid", what)
	assert.True(t, stages.IsPermanent(err), "%s can't be mended by a retry", what)
}

// inParallel runs call from several goroutines at once and joins their errors.
func inParallel(call func() error) error {
	errs := make([]error, parallel)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = call() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
