package metric

import (
	"context"
	"time"
)

// onset is when the first requests since the deployment were measured. That is often
// long after it: a canary gets none before it is verified, and a night is quiet.
type onset struct {
	known bool
	// watched is when the release began to be watched, at the earliest, and serving a
	// time from which on it had requests for sure. Both are the deployment if it had
	// requests all the time.
	watched, serving time.Time
}

// findOnset asks, once, over the times from the deployment on, until the first request
// is known to within a look, or an eighth of the time since. What is measured has data
// only after two scrapes, which the shortest window with data leaves time for.
func (r *burnRun) findOnset(ctx context.Context, asked readings, age time.Duration) error {
	if r.onset.known {
		return nil
	}
	shortest, _, err := asked.latest(ctx, r.config.Watch.Interval, min(r.config.Windows[0].Short, max(age, time.Second)))
	if err != nil {
		return err
	}
	now := time.Now()
	silent, serving := r.deployed.Add(shortest), now
	found, err := r.hadRequests(ctx, silent)
	if err != nil {
		return err
	}
	if found {
		r.onset = onset{known: true, watched: r.deployed, serving: r.deployed}
		return nil
	}
	for serving.Sub(silent) > max(r.config.Watch.Interval, now.Sub(silent)/8) {
		between := silent.Add(serving.Sub(silent) / 2)
		found, err := r.hadRequests(ctx, between)
		switch {
		case err != nil:
			return err
		case found:
			serving = between
		default:
			silent = between
		}
	}
	r.onset = onset{known: true, watched: silent.Add(-shortest), serving: serving}
	return nil
}

// hadRequests reports whether there were some from the deployment until then: of the
// release, if Traffic counts those, and otherwise of what the ratio is about.
func (r *burnRun) hadRequests(ctx context.Context, then time.Time) (bool, error) {
	if !then.Before(time.Now()) {
		return true, nil
	}
	var err error
	requests := 1.0
	if past := then.Sub(r.deployed); r.traffic.expression == nil {
		_, err = r.burnRate(ctx, past, then)
	} else {
		requests, _, err = r.traffic.count(ctx, r.asker, r.rel, past, then)
	}
	if saysNothing(err) {
		return false, nil
	}
	return err == nil && requests > 0, err
}
