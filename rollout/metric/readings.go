package metric

import (
	"context"
	"errors"
	"time"
)

// readings are burn rates at one time, zero for the present.
type readings struct {
	run *burnRun
	at  time.Time
	by  map[time.Duration]reading
}

type reading struct {
	rate float64
	err  error
}

func (r *burnRun) readings(at time.Time) readings {
	return readings{run: r, at: at, by: map[time.Duration]reading{}}
}

// state asks for windows. Those of the past that say nothing are left out, as long as
// anything is known of it.
func (r readings) state(ctx context.Context, windows []burn) (burnState, error) {
	var s burnState
	var silence error
	for _, b := range windows {
		err := r.fill(ctx, &b)
		switch {
		case err == nil:
			s.burns = append(s.burns, b)
		case r.at.IsZero() || !saysNothing(err):
			return burnState{}, err
		default:
			silence = err
		}
	}
	if r.run.config.Period > 0 {
		spent, err := r.over(ctx, r.run.config.Period)
		switch {
		case err == nil:
			s.spent, s.measured = spent, true
		case r.at.IsZero() || !saysNothing(err):
			return burnState{}, err
		default:
			silence = err
		}
	}
	if len(s.burns) == 0 && !s.measured {
		return burnState{}, silence
	}
	return s, nil
}

// fill asks for the rates of a pair of windows.
func (r readings) fill(ctx context.Context, b *burn) (err error) {
	if b.long, err = r.over(ctx, b.cut.Long); err != nil {
		return err
	}
	b.cut.Short, b.short, err = r.latest(ctx, b.cut.Short, min(b.window.Short, b.cut.Long))
	return err
}

// over returns the rate over a window, which is asked for once.
func (r readings) over(ctx context.Context, window time.Duration) (float64, error) {
	window = window.Truncate(time.Second)
	if known, ok := r.by[window]; ok {
		return known.rate, known.err
	}
	rate, err := r.run.burnRate(ctx, window, r.at)
	r.by[window] = reading{rate, err}
	return rate, err
}

// latest returns the rate over the shortest window with data, from least to most:
// how short it can be depends on how often what is measured is scraped.
func (r readings) latest(ctx context.Context, least, most time.Duration) (time.Duration, float64, error) {
	for window := min(least, most); ; window = min(2*window, most) {
		rate, err := r.over(ctx, window)
		if err == nil || window == most || !saysNothing(err) {
			return window, rate, err
		}
	}
}

// saysNothing tells of a time without data, or without traffic.
func saysNothing(err error) bool {
	return errors.Is(err, ErrNoData) || errors.Is(err, ErrNotFinite) || errors.Is(err, ErrStale)
}

// burnRate returns how many times faster than it may in the long run the budget
// burns over a window: 1 spends just all of it over the period.
func (r *burnRun) burnRate(ctx context.Context, window time.Duration, at time.Time) (float64, error) {
	text, err := r.ratio.render(r.rel, window)
	if err != nil {
		return 0, err
	}
	q := question{expression: text, at: at}
	if at.IsZero() {
		q.since = r.rel.Deployed
	}
	a := r.asker.ask(ctx, q)
	r.source = nameOf(a.Result)
	r.warnings = addWarnings(r.warnings, a.warnings())
	switch {
	case a.problem != nil:
		return 0, a.problem
	case len(a.sound) != 1:
		return 0, unusable(ErrUnfit, "%s has %d series: one ratio is needed, aggregate them", short(text), len(a.sound))
	case a.sound[0].Value < 0 || a.sound[0].Value > 1:
		return 0, unusable(ErrUnfit, "%s is %v, which is no share of requests from 0 to 1", short(text), a.sound[0].Value)
	}
	return a.sound[0].Value / (1 - r.config.Objective), nil
}
