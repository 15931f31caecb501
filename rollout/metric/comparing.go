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
	canary, baseline sideTally
	source           string
	warnings         []stages.Reason
}

// sideTally is what one side has counted.
type sideTally struct {
	requests, failures, latency tally
	began                       bool
}

func (s *sideTally) counts() sequential.Counts {
	requests, failures := s.requests.requests(), s.failures.requests()
	// The two may have been read a scrape apart.
	return sequential.Counts{Requests: requests, Failures: min(failures, requests)}
}

func (r *comparisonRun) look(ctx context.Context) look {
	r.warnings = nil
	at, err := r.read(ctx, "canary", r.Comparison.canary, &r.canary, time.Time{})
	if err == nil && !r.alone {
		_, err = r.read(ctx, "baseline", r.Comparison.baseline, &r.baseline, at)
	}
	if err != nil {
		l := failedLook(r.source, err)
		l.warnings = r.warnings
		return l
	}
	l := r.judge()
	l.warnings = r.warnings
	return l
}

// read takes in what one side has counted. All of it is evaluated at one time,
// which it returns.
func (r *comparisonRun) read(ctx context.Context, side string, from sideExpressions, into *sideTally, at time.Time) (time.Time, error) {
	now, at, err := r.reading(ctx, side, from, at)
	if err != nil {
		return at, err
	}
	if !into.began && !at.IsZero() {
		if err := r.remember(ctx, side, from, into, at); err != nil {
			return at, err
		}
	}
	// The first failure may come later: then it is counted from zero.
	into.failures.began = into.requests.began
	r.lost(side, into.requests.add(now.requests))
	r.lost(side, into.failures.add(now.failures))
	r.lost(side, into.latency.add(now.latency))
	into.began = true
	return at, nil
}

// remember takes in the series that there were before. Those that lapsed since
// may come back with all that they had ever counted.
func (r *comparisonRun) remember(ctx context.Context, side string, from sideExpressions, into *sideTally, at time.Time) error {
	past, _, err := r.reading(ctx, side, from, at.Add(-r.config.Watch.MaxAge), ErrNoData, ErrStale, ErrNotFinite)
	if err != nil {
		return fmt.Errorf("before the beginning: %w", err)
	}
	into.requests.remember(past.requests)
	into.failures.remember(past.failures)
	into.latency.remember(past.latency)
	return nil
}

// sidePoints is what one side's counters say at one time.
type sidePoints struct{ requests, failures, latency []point }

// reading asks for what one side's counters say. Problems with the data that are
// accepted are passed over.
func (r *comparisonRun) reading(ctx context.Context, side string, from sideExpressions, at time.Time, accept ...error) (p sidePoints, _ time.Time, err error) {
	if from.requests != nil {
		a, err := r.ask(ctx, side, from.requests, at, accept)
		if err != nil {
			return p, at, err
		}
		at = orTime(at, a.Evaluated)
		failed, err := r.failures(ctx, side, from, a, at, accept)
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
	if from.latency != nil {
		a, err := r.ask(ctx, side, from.latency, at, accept)
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

func (r *comparisonRun) failures(ctx context.Context, side string, from sideExpressions, requests answer, at time.Time, accept []error) ([]Sample, error) {
	if from.failures != nil {
		if r.config.AbsentFailuresAreNone {
			accept = append(accept[:len(accept):len(accept)], ErrNoData)
		}
		a, err := r.ask(ctx, side, from.failures, at, accept)
		return a.fit, err
	}
	var failed []Sample
	for _, s := range requests.fit {
		value, ok := s.Labels[r.config.FailureLabel]
		if !ok {
			return nil, unusable(ErrUnfit, "%s: %s has no label %s to tell failures by", side, s.series(), r.config.FailureLabel)
		}
		if r.failed.MatchString(value) {
			failed = append(failed, s)
		}
	}
	return failed, nil
}

// ask asks for series of counters. Some of them may be stale as long as others
// are fresh: what they had counted stays counted. Other problems have to be
// accepted by the caller.
func (r *comparisonRun) ask(ctx context.Context, side string, e *expression, at time.Time, accept []error) (answer, error) {
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
		r.warnings = addWarnings(r.warnings, []stages.Reason{{Rule: ruleStale, Subject: side, Message: a.problem.Error()}})
		return a, nil
	}
	return a, fmt.Errorf("%s: %w", side, a.problem)
}

func (r *comparisonRun) lost(side string, series []string) {
	for _, s := range series {
		r.warnings = addWarnings(r.warnings, []stages.Reason{{Rule: "buckets-changed", Subject: side, Message: s + " has other buckets than before: what it counted in between is not known"}})
	}
}

// judge weighs what both sides have counted. Harm in one measure is enough; to be
// safe takes all.
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
			failed := failedLook(r.source, comparisonError(m.rule, err))
			if l.verdict == stages.Fail {
				failed = l
			}
			return failed
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

func orTime(t, otherwise time.Time) time.Time {
	if t.IsZero() {
		return otherwise
	}
	return t
}

func joinStatus(have, more string) string {
	if have == "" {
		return more
	}
	return have + "; " + more
}
