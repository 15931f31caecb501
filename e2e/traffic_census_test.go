package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/stages"
)

// census requests the page all the time through the Service, and counts who
// answers. Nothing may fail.
type census struct {
	mu       sync.Mutex
	served   map[string]int
	failures []string
	stop     func()
}

func (w *world) census(t *testing.T, namespace string) *census {
	ctx, cancel := context.WithCancel(labtest.Context(t))
	c := &census{served: map[string]int{}}
	var visitors sync.WaitGroup
	for range 2 {
		visitors.Go(func() {
			ticker := time.NewTicker(20 * time.Millisecond)
			defer ticker.Stop()
			for ctx.Err() == nil {
				page, err := w.page(ctx, namespace)
				c.count(ctx, page, err)
				select {
				case <-ctx.Done():
				case <-ticker.C:
				}
			}
		})
	}
	c.stop = sync.OnceFunc(func() { cancel(); visitors.Wait() })
	t.Cleanup(c.stop)
	return c
}

func (c *census) count(ctx context.Context, page string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err != nil:
		c.failures = append(c.failures, time.Now().Format(time.TimeOnly)+" "+err.Error())
	default:
		version, _, _ := strings.Cut(page, ":")
		c.served[version]++
	}
}

func (c *census) now() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.served)
}

func (c *census) requireUnharmed(t *testing.T) {
	t.Helper()
	c.stop()
	require.Empty(t, c.failures, "requests failed; served were %v", c.served)
	require.NotEmpty(t, c.served)
	t.Logf("served: %v", c.served)
}

// censusGate decides when both versions have answered often enough to tell a share.
type censusGate struct {
	census  *census
	verdict stages.Verdict
	of      []string
	before  map[string]int
	seen    map[string]int
}

func (c *census) gate(verdict stages.Verdict, of ...string) *censusGate {
	return &censusGate{census: c, verdict: verdict, of: of}
}

func (g *censusGate) Decide(context.Context, stages.Release) (stages.Decision, error) {
	now := g.census.now()
	if g.before == nil {
		g.before = now
	}
	g.seen = map[string]int{}
	total := 0
	for _, version := range g.of {
		g.seen[version] = now[version] - g.before[version]
		total += g.seen[version]
	}
	d := stages.Decision{Gate: "requests", Verdict: g.verdict, Reasons: []stages.Reason{{Rule: "share", Message: fmt.Sprintf("of %d requests: %v", total, g.seen)}}}
	if total < enoughRequests {
		d.Verdict = stages.Inconclusive
	}
	return d, nil
}

// enoughRequests tell a half from two thirds all but surely.
const enoughRequests = 120
