package traffic_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// stuck is a call that heeds no context, until the test ends.
func stuck(t *testing.T) (call func(), free func()) {
	ended := make(chan struct{})
	timer := time.AfterFunc(24*time.Hour, func() { t.Error("it hung"); close(ended) })
	return func() { <-ended }, func() {
		if timer.Stop() {
			close(ended)
		}
	}
}

func TestGateThatHeedsNoContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		hang, free := stuck(t)
		defer free()
		deaf := stages.GateFunc[stages.Release](func(context.Context, stages.Release) (stages.Decision, error) {
			hang()
			return stages.Decision{Verdict: stages.Pass}, nil
		})
		began := time.Now()
		_, err := p.canaryOf(parts{steps: twoSteps(deaf, p.gate(stages.Pass, stages.Fail))}).Deploy(t.Context(), request(t, newImage, "run-1"))
		require.ErrorIs(t, err, stages.ErrGateRefused)
		assert.Less(t, time.Since(began), 2*time.Minute)
		c.requireCalm(oldImage)
	})
}

// textError is one that a nil pointer is not.
type textError struct{ text string }

func (e *textError) Error() string { return e.text }

// TestGateWithANilError fails, and not the whole process.
func TestGateWithANilError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		fails := stages.GateFunc[stages.Release](func(context.Context, stages.Release) (stages.Decision, error) {
			var err *textError
			return stages.Decision{}, err
		})
		_, err := p.canaryOf(parts{steps: twoSteps(fails)}).Deploy(t.Context(), request(t, newImage, "run-1"))
		require.ErrorIs(t, err, stages.ErrInconclusive)
		c.requireCalm(oldImage)
	})
}

func TestGateThatNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		exits := stages.GateFunc[stages.Release](func(context.Context, stages.Release) (stages.Decision, error) {
			runtime.Goexit()
			return stages.Decision{}, nil
		})
		_, err := p.canaryOf(parts{steps: twoSteps(exits)}).Deploy(t.Context(), request(t, newImage, "run-1"))
		require.ErrorIs(t, err, stages.ErrInconclusive)
		c.requireCalm(oldImage)
	})
}

// canaryWatched is one with a watch of its own, and other changes.
func canaryWatched(t *testing.T, p *process, watch stages.Verifier, change func(*traffic.CanaryConfig), gates ...stages.Gate[stages.Release]) *traffic.Canary {
	config := traffic.CanaryConfig{
		Stable: stableDeployer{p}, Canary: canaryDeployer{p}, Verifiers: []stages.Verifier{verifier{p}},
		Router: processRouter{p}, State: processState{p}, Steps: twoSteps(gates...), Watch: watch,
	}
	if change != nil {
		change(&config)
	}
	c, err := traffic.NewCanary(config)
	require.NoError(t, err)
	return c
}

func TestWatchThatHeedsNoContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		hang, free := stuck(t)
		defer free()
		watch := stages.VerifierFunc(func(context.Context, stages.Release) (stages.Verification, error) {
			hang()
			return stages.Verification{}, errInjected
		})
		_, err := canaryWatched(t, p, watch, nil, p.gate(stages.Fail)).Deploy(t.Context(), request(t, newImage, "run-1"))
		require.ErrorIs(t, err, stages.ErrGateRefused)
		c.requireCalm(oldImage)
	})
}
