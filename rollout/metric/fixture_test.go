package metric_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// release is one that was deployed just now.
func release() stages.Release {
	return stages.Release{Image: stagestest.Image("v2"), Name: "shop", Namespace: "prod", Revision: 7, Previous: 6, Deployed: time.Now()}
}

// value answers with one fresh sample.
func value(v float64) metric.Result {
	return metric.Result{Source: "script", Samples: []metric.Sample{{Labels: map[string]string{"job": "shop"}, Time: time.Now(), Value: v}}}
}

// script answers each expression by a function of how often it was asked, from 1.
type script struct {
	mu      sync.Mutex
	asked   map[string]int
	queries []metric.Query
	answers map[string]func(n int, q metric.Query) (metric.Result, error)
}

func (s *script) Query(ctx context.Context, q metric.Query) (metric.Result, error) {
	if ctx.Err() != nil {
		return metric.Result{}, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked == nil {
		s.asked = map[string]int{}
	}
	s.asked[q.Expression]++
	s.queries = append(s.queries, q)
	answer, ok := s.answers[q.Expression]
	if !ok {
		return metric.Result{}, &metric.QueryError{Source: "script", Expression: q.Expression, Class: metric.BadExpression}
	}
	return answer(s.asked[q.Expression], q)
}

// values answers with one value after another, and repeats the last.
func values(list ...float64) func(int, metric.Query) (metric.Result, error) {
	return func(n int, _ metric.Query) (metric.Result, error) { return value(list[min(n, len(list))-1]), nil }
}

// always answers every expression alike.
func always(answer func() (metric.Result, error)) metric.Source {
	return metric.SourceFunc(func(ctx context.Context, _ metric.Query) (metric.Result, error) {
		if ctx.Err() != nil {
			return metric.Result{}, context.Cause(ctx)
		}
		return answer()
	})
}

func decide(t *testing.T, gate stages.Gate[stages.Release], rel stages.Release) stages.Decision {
	t.Helper()
	d, err := gate.Decide(t.Context(), rel)
	require.NoError(t, err)
	return d
}

func rules(reasons []stages.Reason) []string {
	var out []string
	for _, r := range reasons {
		out = append(out, r.Rule)
	}
	return out
}
