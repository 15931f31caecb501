package metric

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/rollout/sequential"
	"github.com/fairlead-dev/fairlead/stages"
)

// Series begins a series of decisions that count on: what one has counted is
// evidence for the next, so that a decision which ends too early is not lost, and
// the probability that any of them fails a harmless canary is at most Alpha.
//
// Of several series, as of a canary's steps, each counts anew, because the split of
// the traffic changes between them, and has its share of Alpha. Beta isn't shared:
// to get through, harm has to pass for safe in every one of them.
func (c *Comparison) Series(of int) stages.Gate[stages.Release] {
	config := c.config
	config.Rate.Alpha, config.Rate.Beta = share(config.Rate.Alpha, config.Rate.Beta, of)
	config.Quantile.Alpha, config.Quantile.Beta = share(config.Quantile.Alpha, config.Quantile.Beta, of)
	gate, err := newComparison(config)
	return &comparisonSeries{name: config.Name, gate: gate, err: err, turn: make(chan struct{}, 1)}
}

// share returns the probabilities of error of one of several series or measures.
func share(alpha, beta float64, of int) (float64, float64) {
	alpha = cmp.Or(alpha, sequential.DefaultAlpha)
	return alpha / float64(max(of, 1)), cmp.Or(beta, alpha)
}

// comparisonSeries are decisions that share what they have counted.
type comparisonSeries struct {
	name string
	gate *Comparison
	err  error         // why there is no gate
	turn chan struct{} // whoever has put something in decides
	run  *comparisonRun
}

// Decide goes on counting where the last decision ended.
func (s *comparisonSeries) Decide(ctx context.Context, rel stages.Release) (stages.Decision, error) {
	d := stages.Decision{Gate: s.name}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return d, fmt.Errorf("metric gate %s: an earlier decision has not ended: %w", s.name, context.Cause(ctx))
	}
	if err := s.about(rel); err != nil {
		return d, fmt.Errorf("metric gate %s: %w", s.name, err)
	}
	return s.gate.config.Watch.decide(ctx, s.name, s.run.look)
}

// about begins to count, unless that has begun already.
func (s *comparisonSeries) about(rel stages.Release) error {
	if s.err != nil {
		return s.err
	}
	if err := validate(rel); err != nil {
		return err
	}
	if s.run == nil {
		s.run = &comparisonRun{Comparison: s.gate, rel: rel, began: time.Now()}
	}
	if was := s.run.rel; was.Name != rel.Name || was.Namespace != rel.Namespace || was.Revision != rel.Revision {
		return fmt.Errorf("%w: the series is about revision %d of release %s/%s: begin another", stages.ErrInvalid, was.Revision, was.Namespace, was.Name)
	}
	return nil
}
