package metric

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/rollout/sequential"
	"github.com/fairlead-dev/fairlead/stages"
)

// Decide counts from now on, and looks until the canary is shown to do harm or to
// be safe. Undecided at the timeout is inconclusive, and the decision says about
// how many more requests it would have taken.
func (c *Comparison) Decide(ctx context.Context, rel stages.Release) (stages.Decision, error) {
	if err := validate(rel); err != nil {
		return stages.Decision{Gate: c.config.Name}, fmt.Errorf("metric gate %s: %w", c.config.Name, err)
	}
	run := &comparisonRun{Comparison: c, rel: rel, began: time.Now()}
	return c.config.Watch.decide(ctx, c.config.Name, run.look)
}

// comparisonRun is one decision on its way.
type comparisonRun struct {
	*Comparison
	rel              stages.Release
	began            time.Time
	counting         bool // since the first look at which every side answered
	canary, baseline sideTally
	source           string
	warnings         []stages.Reason
}

// sideTally is what one side has counted.
type sideTally struct {
	requests, failures, latency tally
	siblings                    map[time.Time]sighting // of all three
}

// add takes in one look's points. It returns the series of which some counts are
// lost.
func (s *sideTally) add(now sidePoints) (lost []string) {
	// The first failure may come later: then it is counted from zero.
	s.failures.began, s.failures.since = s.requests.began, s.requests.since
	for _, one := range []struct {
		into *tally
		now  []point
	}{{&s.requests, now.requests}, {&s.failures, now.failures}, {&s.latency, now.latency}} {
		one.into.siblings = s.siblings
		lost = append(lost, one.into.add(one.now)...)
	}
	s.notice(slices.Concat(now.requests, now.failures, now.latency))
	return lost
}

// notice remembers which starts there are, for the looks to come.
func (s *sideTally) notice(points []point) {
	if s.siblings == nil {
		s.siblings = map[time.Time]sighting{}
	}
	for _, p := range points {
		seen, known := s.siblings[p.start]
		if !known {
			seen.first = p.time
		}
		if p.time.After(seen.last) {
			seen.last = p.time
		}
		s.siblings[p.start] = seen
	}
}

func (s *sideTally) counts() sequential.Counts {
	requests, failures := s.requests.requests(), s.failures.requests()
	// The two may have been read a scrape apart.
	return sequential.Counts{Requests: requests, Failures: min(failures, requests)}
}

func (r *comparisonRun) look(ctx context.Context) look {
	r.warnings = nil
	var l look
	if err := r.count(ctx); err != nil {
		l = failedLook(r.source, err)
	} else {
		l = r.judge()
	}
	l.warnings = r.warnings
	return l
}

// side is one side of the comparison.
type side struct {
	name string
	from sideExpressions
	into *sideTally
}

func (r *comparisonRun) sides() []side {
	sides := []side{{"canary", r.Comparison.canary, &r.canary}}
	if !r.alone {
		sides = append(sides, side{"baseline", r.Comparison.baseline, &r.baseline})
	}
	return sides
}

// count takes in what all sides have counted, evaluated at one time, or nothing,
// so that they are counted over the same period.
func (r *comparisonRun) count(ctx context.Context) error {
	sides := r.sides()
	now := make([]sidePoints, len(sides))
	var at time.Time
	var err error
	for i, s := range sides {
		if now[i], at, err = r.reading(ctx, s, at); err != nil {
			return err
		}
	}
	if !r.counting && !at.IsZero() {
		for _, s := range sides {
			if err := r.remember(ctx, s, at); err != nil {
				return err
			}
		}
	}
	for i, s := range sides {
		r.lost(s, s.into.add(now[i]))
	}
	r.counting = true
	return nil
}

// remember takes in the series that there were before. Those that lapsed since
// may come back with all that they had ever counted.
func (r *comparisonRun) remember(ctx context.Context, s side, at time.Time) error {
	past, _, err := r.reading(ctx, s, at.Add(-r.config.Watch.MaxAge), ErrNoData, ErrStale, ErrNotFinite)
	if err != nil {
		return fmt.Errorf("before the beginning: %w", err)
	}
	s.into.requests.remember(past.requests)
	s.into.failures.remember(past.failures)
	s.into.latency.remember(past.latency)
	return nil
}

// sidePoints is what one side's counters say at one time.
type sidePoints struct{ requests, failures, latency []point }

// reading asks for what one side's counters say. Problems with the data that are
// accepted are passed over.
func (r *comparisonRun) reading(ctx context.Context, s side, at time.Time, accept ...error) (p sidePoints, _ time.Time, err error) {
	if s.from.requests != nil {
		a, err := r.ask(ctx, s, s.from.requests, at, accept)
		if err != nil {
			return p, at, err
		}
		at = orTime(at, a.Evaluated)
		failed, err := r.failures(ctx, s, a, at, accept)
		if err != nil {
			return p, at, err
		}
		if p.requests, err = counters(a.fit); err != nil {
			return p, at, err
		}
		if p.failures, err = counters(failed); err != nil {
			return p, at, err
		}
	}
	if s.from.latency != nil {
		a, err := r.ask(ctx, s, s.from.latency, at, accept)
		if err != nil {
			return p, at, err
		}
		at = orTime(at, a.Evaluated)
		if p.latency, err = histograms(a.fit); err != nil {
			return p, at, err
		}
	}
	return p, at, nil
}

func (r *comparisonRun) failures(ctx context.Context, s side, requests answer, at time.Time, accept []error) ([]Sample, error) {
	if s.from.failures != nil {
		if r.config.AbsentFailuresAreNone {
			accept = append(accept[:len(accept):len(accept)], ErrNoData)
		}
		a, err := r.ask(ctx, s, s.from.failures, at, accept)
		return a.fit, err
	}
	var failed []Sample
	for _, one := range requests.fit {
		value, ok := one.Labels[r.config.FailureLabel]
		if !ok {
			return nil, unusable(ErrUnfit, "%s: %s has no label %s to tell failures by", s.name, one.series(), r.config.FailureLabel)
		}
		if r.failed.MatchString(value) {
			failed = append(failed, one)
		}
	}
	return failed, nil
}

// ask asks for series of counters. Some of them may be stale as long as others
// are fresh: what they had counted stays counted. Other problems have to be
// accepted by the caller.
func (r *comparisonRun) ask(ctx context.Context, s side, e *expression, at time.Time, accept []error) (answer, error) {
	text, err := e.render(r.rel, window(r.rel, r.began))
	if err != nil {
		return answer{}, err
	}
	a := r.asker.ask(ctx, question{expression: text, at: at, histograms: true})
	r.source = nameOf(a.Result)
	r.warnings = addWarnings(r.warnings, a.warnings())
	switch {
	case a.problem == nil, slices.ContainsFunc(accept, func(kind error) bool { return errors.Is(a.problem, kind) }):
		return a, nil
	case errors.Is(a.problem, ErrStale) && len(a.sound) > 0:
		r.warnings = addWarnings(r.warnings, []stages.Reason{{Rule: ruleStale, Subject: s.name, Message: a.problem.Error()}})
		return a, nil
	}
	return a, fmt.Errorf("%s: %w", s.name, a.problem)
}

func (r *comparisonRun) lost(s side, series []string) {
	for _, one := range series {
		r.warnings = addWarnings(r.warnings, []stages.Reason{{Rule: "buckets-changed", Subject: s.name, Message: one + " has other buckets than before: what it counted in between is not known"}})
	}
}

// judge weighs what the sides have counted. To be safe takes all measures.
func (r *comparisonRun) judge() look {
	safe := true
	l := look{sound: true}
	for _, m := range []struct {
		rule    string
		applies bool
		compare func() (sequential.Result, error)
	}{
		{"failure-rate", r.Comparison.canary.requests != nil, r.compareRates},
		{"latency", r.Comparison.canary.latency != nil, r.compareLatencies},
	} {
		if !m.applies {
			continue
		}
		result, err := m.compare()
		if err != nil {
			if l.verdict == stages.Fail {
				return l // harm in one measure is enough
			}
			return failedLook(r.source, comparisonError(m.rule, err))
		}
		reason := stages.Reason{Rule: m.rule, Subject: r.source, Message: fmt.Sprintf("%s of the canary: %s", m.rule, result)}
		l.status = joinStatus(l.status, reason.Message)
		switch result.Outcome {
		case sequential.Safe:
			continue
		case sequential.Harm:
			l.verdict = stages.Fail
		default:
			reason.Rule += "-undecided"
			safe = false
		}
		l.reasons = append(l.reasons, reason)
	}
	if safe && l.verdict == stages.Inconclusive {
		l.verdict = stages.Pass
	}
	return l
}

func (r *comparisonRun) compareRates() (sequential.Result, error) {
	if r.alone {
		return r.rate.Against(r.canary.counts(), r.config.MaxFailureRate)
	}
	return r.rate.Compare(r.canary.counts(), r.baseline.counts())
}

func (r *comparisonRun) compareLatencies() (sequential.Result, error) {
	canary, baseline, err := align(&r.canary.latency, &r.baseline.latency)
	switch {
	case err != nil:
		return sequential.Result{}, err
	case r.alone:
		return r.quantile.Against(canary, r.config.MaxLatency.Seconds())
	}
	return r.quantile.Compare(canary, baseline)
}

// comparisonError classes what can't be compared.
func comparisonError(rule string, err error) error {
	if errors.Is(err, ErrUnfit) {
		return fmt.Errorf("%s: %w", rule, err)
	}
	return unusable(ErrUnfit, "%s: %v", rule, err)
}

func joinStatus(have, more string) string {
	if have == "" {
		return more
	}
	return have + "; " + more
}
