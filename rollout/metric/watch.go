package metric

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Watch says how a gate looks at its source. The zero value is useful.
type Watch struct {
	// Interval is between two looks. Default 15 seconds.
	Interval time.Duration
	// Timeout bounds a decision: what isn't decided by then is inconclusive, as it is
	// shortly before the deadline of the context, if that comes first. Default 5
	// minutes.
	Timeout time.Duration
	// QueryTimeout bounds one query. Default 10 seconds.
	QueryTimeout time.Duration
	// MaxAge is how old a sample may be, by the source's clock. Default 2 minutes.
	MaxAge time.Duration
	// AllowUndecided passes, with a warning, where sound data was not enough to
	// decide until the timeout, never where the context allowed less. Missing, stale or
	// unfit data, failing queries and anything that was out of bounds at any look stay
	// inconclusive all the same; of too little traffic, what is so at the last look.
	AllowUndecided bool
}

// The defaults of [Watch].
const (
	DefaultInterval     = 15 * time.Second
	DefaultTimeout      = 5 * time.Minute
	DefaultQueryTimeout = 10 * time.Second
	DefaultMaxAge       = 2 * time.Minute
)

func (w Watch) complete() (Watch, error) {
	if w.Interval < 0 || w.Timeout < 0 || w.QueryTimeout < 0 || w.MaxAge < 0 {
		return w, fmt.Errorf("%w: Interval, Timeout, QueryTimeout and MaxAge can't be negative", stages.ErrInvalid)
	}
	w.Interval = cmp.Or(w.Interval, DefaultInterval)
	w.Timeout = cmp.Or(w.Timeout, DefaultTimeout)
	w.QueryTimeout = cmp.Or(w.QueryTimeout, DefaultQueryTimeout)
	w.MaxAge = cmp.Or(w.MaxAge, DefaultMaxAge)
	return w, nil
}

// look is what a gate makes of one look at its source.
type look struct {
	// verdict is Inconclusive as long as the gate has to look again.
	verdict stages.Verdict
	// reasons are why it isn't a pass.
	reasons []stages.Reason
	// warnings are kept, whatever later looks say.
	warnings []stages.Reason
	// sound says that nothing is wrong with the data or the release: there is just
	// not enough of it yet.
	sound bool
	// final says that looking again can't help.
	final bool
	// status is for people who watch.
	status string
}

// failedLook is a look at data that can't be decided on.
func failedLook(subject string, err error) look {
	failed, ok := errors.AsType[*QueryError](err)
	return look{
		reasons: []stages.Reason{{Rule: ruleOf(err), Subject: subject, Message: err.Error()}},
		final:   ok && failed.Class.lasting() || errors.Is(err, errTemplate),
		status:  err.Error(),
	}
}

// maxWarnings bounds the warnings of a decision.
const maxWarnings = 20

// span is the time that a decision has.
type span struct {
	last time.Time // when the last look begins
	end  time.Time // when looks are cut off; zero for never
	// short says that the caller allows less than Timeout.
	short   bool
	allowed time.Duration
}

// maxReserve bounds what is kept of the caller's time, so that the decision is made
// before it is over: a tenth, and twice as much for the last look.
const maxReserve = 500 * time.Millisecond

func (w Watch) span(ctx context.Context) span {
	s := span{last: time.Now().Add(w.Timeout)}
	deadline, bounded := ctx.Deadline()
	if !bounded {
		return s
	}
	s.allowed = time.Until(deadline)
	reserve := min(maxReserve, s.allowed/10)
	s.end = deadline.Add(-reserve)
	if last := s.end.Add(-2 * reserve); last.Before(s.last) {
		s.last, s.short = last, true
	}
	return s
}

// look looks, and reports whether it had the time to.
func (s span) look(ctx context.Context, next func(context.Context) look) (look, bool) {
	if s.end.IsZero() {
		return next(ctx), true
	}
	bounded, cancel := context.WithDeadline(ctx, s.end)
	defer cancel()
	l := next(bounded)
	return l, bounded.Err() == nil || l.verdict != stages.Inconclusive
}

// decide looks until a look decides, until looking again can't help or until the
// timeout, when it looks once more. Where ctx leaves less time, it is done shortly
// before that is over, and if ctx ends it all the same, the decision beside the error
// has the reasons of the last look.
func (w Watch) decide(ctx context.Context, gate string, next func(context.Context) look) (stages.Decision, error) {
	d := stages.Decision{Gate: gate}
	var last look
	for s := w.span(ctx); ; {
		if ctx.Err() != nil {
			return ended(ctx, d, last)
		}
		l, whole := s.look(ctx, next)
		if ctx.Err() != nil {
			return ended(ctx, d, last)
		}
		if whole || last.reasons == nil {
			last = l
		}
		d.Warnings = addWarnings(d.Warnings, l.warnings)
		stages.ReportProgress(ctx, stages.Progress{ID: gate, Message: gate + ": " + l.status})
		left := time.Until(s.last)
		if last.verdict != stages.Inconclusive || last.final || left <= 0 || !whole {
			last.sound = last.sound && whole
			return w.conclude(d, last, s), nil
		}
		if err := wait(ctx, min(left, w.Interval)); err != nil {
			return ended(ctx, d, last)
		}
	}
}

// ended is what is left to say when ctx is done.
func ended(ctx context.Context, d stages.Decision, last look) (stages.Decision, error) {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		d.Reasons = last.reasons
	}
	return d, fmt.Errorf("metric gate %s: %w", d.Gate, context.Cause(ctx))
}

func (w Watch) conclude(d stages.Decision, last look, s span) stages.Decision {
	d.Verdict = last.verdict
	switch {
	case last.verdict == stages.Pass:
	case last.verdict == stages.Inconclusive && last.sound && w.AllowUndecided && !s.short:
		d.Verdict = stages.Pass
		for _, r := range last.reasons {
			r.Message = "passed without a decision, as AllowUndecided says: " + r.Message
			d.Warnings = append(d.Warnings, r)
		}
	default:
		d.Reasons = last.reasons
		if last.verdict == stages.Inconclusive && !last.final && s.short {
			message := fmt.Sprintf("the caller allows %s, and this gate may take %s to decide: allow more", s.allowed.Round(time.Millisecond), w.Timeout)
			d.Reasons = append(slices.Clip(d.Reasons), stages.Reason{Rule: "out-of-time", Subject: d.Gate, Message: message})
		}
	}
	return d
}

func addWarnings(have, more []stages.Reason) []stages.Reason {
	seen := make(map[stages.Reason]bool, len(have))
	for _, r := range have {
		seen[r] = true
	}
	for _, r := range more {
		if !seen[r] && len(have) < maxWarnings {
			seen[r] = true
			have = append(have, r)
		}
	}
	return have
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func orTime(t, otherwise time.Time) time.Time {
	if t.IsZero() {
		return otherwise
	}
	return t
}

// window is how long rel has been deployed; at least since began, if that isn't
// known.
func window(rel stages.Release, began time.Time) time.Duration {
	if rel.Deployed.IsZero() {
		return time.Since(began)
	}
	return time.Since(rel.Deployed)
}

func validate(rel stages.Release) error {
	if rel.Name == "" || rel.Namespace == "" {
		return fmt.Errorf("%w: the release needs a name and a namespace", stages.ErrInvalid)
	}
	return nil
}
