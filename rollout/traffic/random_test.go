package traffic_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/traffic"
	"github.com/fairlead-dev/fairlead/stages"
)

var errInjected = errors.New("injected")

// dieAt kills a process at its nth call, before or after it had its effect.
func dieAt(n int, after bool) func(string, int, bool) error {
	dead := false
	return func(_ string, at int, done bool) error {
		dead = dead || at > n || at == n && done == after
		if dead {
			return errDead
		}
		return nil
	}
}

// comeNext is what may happen after a process died. Each leaves nothing behind.
var comeNext = map[string]func(t *testing.T, p *process, steps []traffic.Step, cp *stages.Checkpoint) stages.Image{
	"recover": func(t *testing.T, p *process, steps []traffic.Step, cp *stages.Checkpoint) stages.Image {
		if cp == nil {
			return stages.Image{} // Nothing was journalled.
		}
		c := p.canaryOf(parts{steps: steps})
		unlock, err := c.Lock(t.Context(), "run-1")
		require.NoError(t, err)
		got, err := c.Restore(t.Context(), "run-1", *cp)
		require.NoError(t, err)
		require.Contains(t, []stages.RestoreOutcome{stages.Restored, stages.Unchanged}, got.Outcome, got.Message)
		again, err := c.Restore(t.Context(), "run-1", *cp)
		require.NoError(t, err)
		require.Equal(t, stages.Unchanged, again.Outcome, again.Message)
		require.NoError(t, unlock(t.Context()))
		return oldImage
	},
	"deliver the same": func(t *testing.T, p *process, steps []traffic.Step, _ *stages.Checkpoint) stages.Image {
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: steps}), "run-2", newImage)
		require.NoError(t, err)
		return newImage
	},
	"deliver the same, resuming": func(t *testing.T, p *process, steps []traffic.Step, _ *stages.Checkpoint) stages.Image {
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: steps, resume: true}), "run-2", newImage)
		require.NoError(t, err)
		return newImage
	},
	"deliver something else": func(t *testing.T, p *process, steps []traffic.Step, _ *stages.Checkpoint) stages.Image {
		_, err := p.deliver(t.Context(), p.canaryOf(parts{steps: steps, resume: p.calls%2 == 0}), "run-2", otherImage)
		require.NoError(t, err)
		return otherImage
	},
	"deliver something bad": func(t *testing.T, p *process, _ []traffic.Step, _ *stages.Checkpoint) stages.Image {
		before, err := p.stable.State(t.Context())
		require.NoError(t, err)
		_, err = p.deliver(t.Context(), p.canaryOf(parts{steps: twoSteps(p.gate(stages.Fail))}), "run-2", otherImage)
		require.ErrorIs(t, err, stages.ErrGateRefused)
		if before == newImage.String() {
			return stages.Image{} // Old or new, as the first run was verified or not.
		}
		return oldImage
	},
	"abort": func(t *testing.T, p *process, steps []traffic.Step, _ *stages.Checkpoint) stages.Image {
		err := p.canaryOf(parts{steps: steps}).Abort(t.Context(), "")
		if !errors.Is(err, traffic.ErrNoCanary) {
			require.NoError(t, err)
		}
		return stages.Image{}
	},
}

// TestKilledAtEveryCall has a process die before and after each of its calls, and
// another one come.
func TestKilledAtEveryCall(t *testing.T) {
	for outcome, prepare := range map[string]func(c *cluster, p *process) []traffic.Step{
		"promoted":           func(_ *cluster, p *process) []traffic.Step { return twoSteps(p.gate(stages.Pass)) },
		"aborted":            func(_ *cluster, p *process) []traffic.Step { return twoSteps(p.gate(stages.Pass, stages.Fail)) },
		"promotion restored": func(c *cluster, p *process) []traffic.Step { c.doomed = true; return twoSteps(p.gate(stages.Pass)) },
	} {
		for next, come := range comeNext {
			t.Run(outcome+", then "+next, func(t *testing.T) { killAtCalls(t, 1, 1, nil, prepare, come) })
		}
	}
}

// thorough is for whoever changes this package. Otherwise the routers die at some of
// the calls only, and there are fewer random canaries.
var thorough = flag.Bool("thorough", false, "kill routers at every call, and try ten times as many random canaries by each (minutes)")

// TestKilledAtCallsOfEachRouter does so with all that a router leaves half done.
func TestKilledAtCallsOfEachRouter(t *testing.T) {
	stride := 6
	if *thorough {
		stride = 1
	}
	for name, newRig := range rigs {
		for first, next := range []string{"recover", "abort", "deliver the same, resuming"} {
			t.Run(name+", then "+next, func(t *testing.T) {
				killAtCalls(t, 1+first*stride/3, stride, newRig, func(_ *cluster, p *process) []traffic.Step { return twoSteps(p.gate(stages.Pass)) }, comeNext[next])
			})
		}
	}
}

// killAtCalls lets a process die at the first call, and at each stride further on.
func killAtCalls(t *testing.T, first, stride int, newRig func(*testing.T) *rig, prepare func(*cluster, *process) []traffic.Step,
	come func(*testing.T, *process, []traffic.Step, *stages.Checkpoint) stages.Image,
) {
	for n := first; ; n += stride {
		ended := false
		for _, after := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				if newRig != nil {
					c.rig = newRig(t)
				}
				p := &process{cluster: c, fault: dieAt(n, after)}
				cp, err := p.deliver(t.Context(), p.canaryOf(parts{steps: prepare(c, p)}), "run-1", newImage)
				if !errors.Is(err, errDead) && p.calls < n {
					ended = true
					return
				}
				c.died()
				q := &process{cluster: c}
				want := come(t, q, twoSteps(q.gate(stages.Pass)), cp)
				if want.IsZero() {
					want = c.oldOrNew()
				}
				c.requireCalm(want)
			})
			if t.Failed() {
				t.Fatalf("killed at call %d, after it: %t", n, after)
			}
		}
		if ended {
			require.Greater(t, n, 30, "there are many calls to die at")
			return
		}
	}
}

// died forgets what only the dead process knew.
func (c *cluster) died() {
	c.holder, c.breached, c.sick, c.doomed = nil, false, false, false
	if c.rig != nil {
		c.rig.fault = nil
	}
}

// oldOrNew is what the stable release runs, which must be one of the two.
func (c *cluster) oldOrNew() stages.Image {
	current, err := c.stable.State(c.t.Context())
	require.NoError(c.t, err)
	if current == newImage.String() {
		return newImage
	}
	return oldImage
}

// TestRandomCanaries tries canaries whose calls fail, hang and die at random, by each
// router, whose requests fail, too, and whose objects somebody else edits.
func TestRandomCanaries(t *testing.T) {
	t.Run("in memory", func(t *testing.T) {
		outcomes := randomCanaries(t, 3000, nil)
		for _, outcome := range []string{"promoted", "aborted", "not complete"} {
			require.Positive(t, outcomes[outcome], outcome)
		}
	})
	runs := 20
	if *thorough {
		runs = 200
	}
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) { randomCanaries(t, runs, newRig) })
	}
}

func randomCanaries(t *testing.T, runs int, newRig func(*testing.T) *rig) map[string]int {
	seed := uint64(time.Now().UnixNano())
	outcomes := map[string]int{}
	for i := range runs {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		synctest.Test(t, func(t *testing.T) { outcomes[randomCanary(t, rng, newRig)]++ })
		if t.Failed() {
			t.Fatalf("seed %d, run %d", seed, i)
		}
	}
	t.Logf("seed %d: %v", seed, outcomes)
	return outcomes
}

// faults makes some calls fail: the nth of all, and, for good, those of a name.
func faults(rng *rand.Rand) func(string, int, bool) error {
	single := map[int]bool{}
	for range rng.IntN(4) {
		single[1+rng.IntN(60)] = true
	}
	broken := ""
	if rng.IntN(4) == 0 {
		names := []string{"save", "load", "delete", "shift to 0", "shift", "observe", "nearest", "deploy canary", "deploy stable",
			"restore stable", "uninstall", "verify canary", "verify fake", "gate", "unlock"}
		broken = names[rng.IntN(len(names))]
	}
	afterwards, since := rng.IntN(2) == 0, rng.IntN(40)
	return func(call string, n int, after bool) error {
		if after != afterwards {
			return nil
		}
		if single[n] || broken != "" && n > since && strings.HasPrefix(call, broken) {
			return fmt.Errorf("%w: %s", errInjected, call)
		}
		return nil
	}
}

// requestFaults makes single requests of a router fail, and one of them the last of its
// process.
func requestFaults(rng *rand.Rand, p *process) func(after bool) error {
	single := map[int]bool{}
	for range rng.IntN(4) {
		single[1+rng.IntN(100)] = true
	}
	last := 1 + rng.IntN(400)
	afterwards := rng.IntN(2) == 0
	n := 0
	return func(after bool) error {
		if !after {
			n++
		}
		switch {
		case n >= last && (after == afterwards || n > last):
			p.die()
			return errDead
		case single[n] && after == afterwards:
			return fmt.Errorf("%w: request %d", errInjected, n)
		}
		return nil
	}
}

func randomCanary(t *testing.T, rng *rand.Rand, newRig func(*testing.T) *rig) string {
	c := newCluster(t)
	c.router.Lag = rng.IntN(4)
	c.sick, c.doomed = rng.IntN(12) == 0, rng.IntN(6) == 0
	p := &process{cluster: c, fault: faults(rng)}
	if rng.IntN(4) == 0 {
		p.fault = dieAt(rng.IntN(80), rng.IntN(2) == 0)
	}
	if newRig != nil {
		c.rig = newRig(t)
		c.rig.fault = requestFaults(rng, p)
	}
	var verdicts []stages.Verdict
	for range 1 + rng.IntN(8) {
		verdicts = append(verdicts, []stages.Verdict{stages.Pass, stages.Pass, stages.Pass, stages.Pass, stages.Inconclusive, stages.Fail}[rng.IntN(6)])
	}
	steps := twoSteps(p.gate(verdicts...))
	steps[rng.IntN(2)].Extend = time.Duration(rng.IntN(60)) * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var timers []*time.Timer
	if rng.IntN(4) == 0 {
		timers = append(timers, time.AfterFunc(time.Duration(rng.IntN(120))*time.Second, cancel))
	}
	if rng.IntN(2) == 0 {
		timers = append(timers, time.AfterFunc(time.Duration(rng.IntN(60))*time.Second, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			switch {
			case rng.IntN(4) == 0 || c.weight() == 0:
				c.sick = true
			case c.rig != nil:
				c.rig.meddle(rng)
			default:
				c.router.Set(rng.IntN(101))
			}
		}))
	}

	canary := p.canaryOf(parts{steps: steps})
	cp, err := p.deliver(ctx, canary, "run-1", newImage)
	for _, timer := range timers {
		timer.Stop()
	}
	synctest.Wait()
	breached := c.breached
	outcome := c.requireConsequence(err)
	if outcome == "promoted" {
		require.False(t, breached, "a breach always aborts")
	}
	// Whatever was left, the next one ends it.
	c.died()
	q := &process{cluster: c}
	switch {
	case outcome == "promoted":
		_, err := q.deliver(t.Context(), q.canaryOf(parts{steps: twoSteps()}), "run-2", newImage)
		require.NoError(t, err)
		c.requireCalm(newImage)
	case cp == nil:
		_, err := q.deliver(t.Context(), q.canaryOf(parts{steps: twoSteps()}), "run-2", otherImage)
		require.NoError(t, err)
		c.requireCalm(otherImage)
	default:
		got, err := q.canaryOf(parts{steps: steps}).Restore(t.Context(), "run-1", *cp)
		require.NoError(t, err)
		require.Contains(t, []stages.RestoreOutcome{stages.Restored, stages.Unchanged}, got.Outcome, got.Message)
		c.requireCalm(oldImage)
	}
	if c.rig != nil {
		// Where the objects are put in order, the next canary goes well.
		require.NoError(t, c.rig.pristine())
		_, err := q.deliver(t.Context(), q.canaryOf(parts{steps: twoSteps(q.gate(stages.Pass))}), "run-3", otherImage)
		require.NoError(t, err)
		c.requireCalm(otherImage)
	}
	return outcome
}

// requireConsequence checks what a delivery says against what there is.
func (c *cluster) requireConsequence(err error) string {
	if err == nil {
		current, err := c.stable.State(c.t.Context())
		require.NoError(c.t, err)
		require.Equal(c.t, newImage.String(), current)
		require.Zero(c.t, c.weight())
		record, _, err := c.state.Load(c.t.Context())
		require.NoError(c.t, err)
		if record != nil { // It could not be cleaned up, which the next run does.
			require.Equal(c.t, traffic.Removing, record.Phase)
		}
		return "promoted"
	}
	aborted, ok := errors.AsType[*traffic.AbortError](err)
	switch {
	case !ok:
		return "refused"
	case len(aborted.Left) > 0:
		return "not complete"
	}
	c.requireCalm(oldImage)
	return "aborted"
}
