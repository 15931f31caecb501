package traffic_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestGatesThatMisbehave are never a pass.
func TestGatesThatMisbehave(t *testing.T) {
	for name, decide := range map[string]func(ctx context.Context) (stages.Decision, error){
		"fails": func(context.Context) (stages.Decision, error) {
			return stages.Decision{Verdict: stages.Pass}, errInjected
		},
		"panics":          func(context.Context) (stages.Decision, error) { panic("oh") },
		"hangs":           func(ctx context.Context) (stages.Decision, error) { <-ctx.Done(); return stages.Decision{}, ctx.Err() },
		"decides nothing": func(context.Context) (stages.Decision, error) { return stages.Decision{}, nil },
		"says nonsense":   func(context.Context) (stages.Decision, error) { return stages.Decision{Verdict: 7}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				p := &process{cluster: c}
				gate := stages.GateFunc[stages.Release](func(ctx context.Context, _ stages.Release) (stages.Decision, error) { return decide(ctx) })
				_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps(p.gate(stages.Pass), gate)}), "run-1", newImage)
				require.ErrorIs(t, err, stages.ErrInconclusive)
				c.requireCalm(oldImage)
			})
		})
	}
}

// TestPanicIsOneLine keeps the stack out of reasons, which people read.
func TestPanicIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		gate := stages.GateFunc[stages.Release](func(context.Context, stages.Release) (stages.Decision, error) { panic("oh") })
		_, err := p.canaryOf(parts{steps: twoSteps(gate)}).Deploy(t.Context(), request(t, newImage, "run-1"))
		require.ErrorContains(t, err, "panicked: oh;")
		assert.NotContains(t, err.Error(), "\n")

		p.fault = func(call string, _ int, _ bool) error {
			if call == "deploy canary" {
				panic("oh")
			}
			return nil
		}
		_, err = p.canaryOf(parts{steps: twoSteps()}).Deploy(t.Context(), request(t, newImage, "run-2"))
		require.ErrorIs(t, err, stages.ErrPanicked)
		assert.NotContains(t, err.Error(), "\n")
		facts := stages.EvidenceOf(err)
		require.NotEmpty(t, facts)
		assert.NotEmpty(t, facts[0].Logs)
	})
}

// TestBreachComesWithWhatTheCanarySays has a gate refuse a canary whose pods run.
func TestBreachComesWithWhatTheCanarySays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps(p.gate(stages.Fail))}), "run-1", newImage)
		require.ErrorIs(t, err, stages.ErrGateRefused)
		facts := stages.EvidenceOf(err)
		require.Len(t, facts, 2)
		assert.Equal(t, stages.Evidence{Subject: "pod canary", Reason: "Running", Logs: []string{"no stock"}}, facts[0])
		c.requireCalm(oldImage)
	})
}

// TestHarmIsNotKeptWaiting has a gate that hangs beside one that says Fail.
func TestHarmIsNotKeptWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		hangs := stages.GateFunc[stages.Release](func(ctx context.Context, _ stages.Release) (stages.Decision, error) {
			<-ctx.Done()
			return stages.Decision{}, ctx.Err()
		})
		began := time.Now()
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps(hangs, p.gate(stages.Fail))}), "run-1", newImage)
		require.ErrorIs(t, err, stages.ErrGateRefused)
		assert.Less(t, time.Since(began), 10*time.Second)
	})
}

// TestSlowGateHidesNothing has a gate watch for minutes while others see harm.
func TestSlowGateHidesNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		harm    []stages.Verdict
		foreign bool
		asked   bool
		want    func(t *testing.T, err error)
	}{
		"a breach": {harm: []stages.Verdict{stages.Pass, stages.Pass, stages.Pass, stages.Fail}, want: func(t *testing.T, err error) { require.ErrorIs(t, err, stages.ErrGateRefused) }},
		"weights":  {foreign: true, want: func(t *testing.T, err error) { require.ErrorContains(t, err, "somebody else has changed it") }},
		"a word":   {asked: true, want: func(t *testing.T, err error) { require.ErrorIs(t, err, traffic.ErrAbortAsked) }},
		"nothing":  {want: func(t *testing.T, err error) { require.NoError(t, err) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				p, q := &process{cluster: c}, &process{cluster: c}
				slow := stages.GateFunc[stages.Release](func(ctx context.Context, _ stages.Release) (stages.Decision, error) {
					select {
					case <-time.After(5 * time.Minute):
						return stages.Decision{Verdict: stages.Pass}, nil
					case <-ctx.Done():
						return stages.Decision{}, context.Cause(ctx)
					}
				})
				if tt.harm == nil {
					tt.harm = []stages.Verdict{stages.Pass}
				}
				timer := time.AfterFunc(25*time.Second, func() {
					if tt.foreign {
						c.router.Set(77)
					}
					if tt.asked {
						assert.ErrorIs(t, q.canaryOf(parts{steps: twoSteps()}).Abort(t.Context(), "fire"), stages.ErrLocked)
					}
				})
				defer timer.Stop()
				canary, err := traffic.NewCanary(traffic.CanaryConfig{
					Stable: stableDeployer{p}, Canary: canaryDeployer{p}, Verifiers: []stages.Verifier{verifier{p}},
					Router: processRouter{p}, State: processState{p}, Steps: twoSteps(slow, p.gate(tt.harm...)), GateTimeout: 10 * time.Minute,
				})
				require.NoError(t, err)
				began := time.Now()
				_, err = p.deliver(t.Context(), canary, "run-1", newImage)
				tt.want(t, err)
				if err != nil {
					assert.Less(t, time.Since(began), time.Minute)
					c.requireCalm(oldImage)
				} else {
					c.requireCalm(newImage)
				}
			})
		})
	}
}

// seriesGate passes at the third look of a series, and never by itself.
type seriesGate struct{ begun []int }

func (g *seriesGate) Decide(context.Context, stages.Release) (stages.Decision, error) {
	return stages.Decision{Gate: "patient"}, nil
}

func (g *seriesGate) Series(of int) stages.Gate[stages.Release] {
	g.begun = append(g.begun, of)
	looks := 0
	return stages.GateFunc[stages.Release](func(context.Context, stages.Release) (stages.Decision, error) {
		if looks++; looks < 3 {
			return stages.Decision{Gate: "patient"}, nil
		}
		return stages.Decision{Gate: "patient", Verdict: stages.Pass}, nil
	})
}

// TestLooksOfAStepAreASeries has each step begin one, and go on with it.
func TestLooksOfAStepAreASeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := &process{cluster: c}
		gate := &seriesGate{}
		steps := append(twoSteps(gate), traffic.Step{Weight: 60})
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: steps}), "run-1", newImage)
		require.NoError(t, err)
		c.requireCalm(newImage)
		assert.Equal(t, []int{2, 2}, gate.begun, "of two steps with gates")
	})
}
