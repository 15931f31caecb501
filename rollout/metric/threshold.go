package metric

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// ThresholdConfig configures a [Threshold].
type ThresholdConfig struct {
	// Name names the gate in decisions. Default "metric-threshold".
	Name string
	// Source answers, required.
	Source Source
	// Expression is what to ask, required; see the package comment for what its
	// template may contain. Every sample of the answer has to be within bounds.
	Expression string
	// Vars are values for the expressions.
	Vars Vars
	// Min and Max are the bounds, which are allowed themselves; one at least.
	Min, Max *float64
	// MinSeries is how many series the answer must have. Default 1.
	MinSeries int
	// Traffic asks how much there was to measure, such as the number of requests in
	// the window. While its samples add up to less than MinTraffic, which must be
	// above zero then, nothing is decided, and [Watch.AllowUndecided] passes only what
	// is within bounds or had no traffic at all.
	Traffic    string
	MinTraffic float64
	// Looks is how many looks in a row must be within bounds, and For how long they
	// must have been; the timeout has to leave time for both. A look counts once:
	// only newer samples make another. Default 1, and no time.
	Looks int
	For   time.Duration
	// Breaches is how many looks in a row must be out of bounds to fail. Default 1.
	Breaches int
	// Watch says how to look.
	Watch Watch
}

// Threshold is a gate that holds a metric of a release to bounds. It is safe for
// concurrent use and can decide any number of times.
type Threshold struct {
	config     ThresholdConfig
	expression *expression
	traffic    traffic
	asker      asker
}

var _ stages.Gate[stages.Release] = (*Threshold)(nil)

// NewThreshold returns the gate that config describes, without asking anything
// yet. Its error matches [stages.ErrInvalid].
func NewThreshold(config ThresholdConfig) (*Threshold, error) {
	config.Name = cmp.Or(config.Name, "metric-threshold")
	t, err := newThreshold(config)
	if err != nil {
		return nil, fmt.Errorf("metric gate %s: %w", config.Name, err)
	}
	return t, nil
}

func newThreshold(config ThresholdConfig) (*Threshold, error) {
	if err := checkBounds(config); err != nil {
		return nil, err
	}
	watch, err := config.Watch.complete()
	if err != nil {
		return nil, err
	}
	config.Watch = watch
	config.MinSeries = cmp.Or(config.MinSeries, 1)
	config.Looks = cmp.Or(config.Looks, 1)
	config.Breaches = cmp.Or(config.Breaches, 1)
	if needed := max(config.For, time.Duration(config.Looks-1)*watch.Interval); needed > watch.Timeout {
		return nil, fmt.Errorf("%w: the timeout of %s leaves no time for %d looks over %s", stages.ErrInvalid, watch.Timeout, config.Looks, needed)
	}
	t := &Threshold{config: config, asker: asker{source: config.Source, watch: watch}}
	if t.expression, err = newExpression("Expression", config.Expression, config.Vars); err != nil {
		return nil, err
	}
	if t.traffic, err = newTraffic(config.Traffic, config.MinTraffic, config.Vars); err != nil {
		return nil, err
	}
	return t, nil
}

func checkBounds(c ThresholdConfig) error {
	switch {
	case c.Source == nil:
		return fmt.Errorf("%w: Source is required", stages.ErrInvalid)
	case c.Min == nil && c.Max == nil:
		return fmt.Errorf("%w: one of Min and Max is required", stages.ErrInvalid)
	case c.Min != nil && !finite(*c.Min), c.Max != nil && !finite(*c.Max), !finite(c.MinTraffic):
		return fmt.Errorf("%w: Min, Max and MinTraffic must be finite numbers", stages.ErrInvalid)
	case c.Min != nil && c.Max != nil && *c.Min > *c.Max:
		return fmt.Errorf("%w: Min %v is above Max %v", stages.ErrInvalid, *c.Min, *c.Max)
	case c.MinSeries < 0 || c.Looks < 0 || c.Breaches < 0 || c.For < 0:
		return fmt.Errorf("%w: MinSeries, Looks, Breaches and For can't be negative", stages.ErrInvalid)
	case (c.Traffic != "") != (c.MinTraffic > 0):
		return errTraffic
	}
	return nil
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// Decide looks until the metric has been within bounds, or out of them, for as
// long as is asked for. What is out of bounds fails at once, even if other
// series of the same answer can't be decided on.
func (t *Threshold) Decide(ctx context.Context, rel stages.Release) (stages.Decision, error) {
	if err := validate(rel); err != nil {
		return stages.Decision{Gate: t.config.Name}, fmt.Errorf("metric gate %s: %w", t.config.Name, err)
	}
	run := &thresholdRun{Threshold: t, rel: rel, began: time.Now()}
	return t.config.Watch.decide(ctx, t.config.Name, run.look)
}

// thresholdRun is one decision on its way.
type thresholdRun struct {
	*Threshold
	rel   stages.Release
	began time.Time

	counted  time.Time // the newest sample of the last look that counted
	good     int       // looks in a row within bounds
	goodFrom time.Time
	bad      int  // looks in a row out of bounds
	breached bool // some look was
}

func (r *thresholdRun) look(ctx context.Context) look {
	past := window(r.rel, r.began)
	if l, enough := r.traffic.look(ctx, r.asker, r.rel, past); !enough {
		r.good = 0
		if l.sound {
			l = r.little(ctx, l, past)
		}
		l.sound = l.sound && !r.breached
		return l
	}
	text, err := r.expression.render(r.rel, past)
	if err != nil {
		return failedLook("", err)
	}
	a := r.asker.ask(ctx, question{expression: text, since: r.rel.Deployed})
	l := r.judge(a)
	l.warnings = a.warnings()
	return l
}

// little looks at what too little traffic says. It decides nothing, but what is out of
// bounds isn't to pass either.
func (r *thresholdRun) little(ctx context.Context, l look, past time.Duration) look {
	text, err := r.expression.render(r.rel, past)
	if err != nil {
		return failedLook("", err)
	}
	a := r.asker.ask(ctx, question{expression: text, since: r.rel.Deployed})
	l.warnings = addWarnings(l.warnings, a.warnings())
	if s, bad := r.outOfBounds(a); bad {
		return l.against(fmt.Sprintf("%s %s is %v, allowed is %s", short(text), s.series(), s.Value, r.bounds()))
	}
	if a.problem != nil && !saysNothing(a.problem) {
		return failedLook(nameOf(a.Result), a.problem)
	}
	return l
}

func (r *thresholdRun) judge(a answer) look {
	if out, bad := r.outOfBounds(a); bad {
		return r.breach(a, out)
	}
	problem := a.problem
	if problem == nil && len(a.sound) < r.config.MinSeries {
		problem = unusable(ErrNoData, "%s has %d series of the %d that are needed", short(a.expression), len(a.sound), r.config.MinSeries)
	}
	if problem != nil {
		r.good = 0
		return failedLook(nameOf(a.Result), problem)
	}
	return r.within(a)
}

// outOfBounds returns the first sample that is. Of a partial answer it takes none:
// what is missing from a sum or a ratio may be what would mend it.
func (r *thresholdRun) outOfBounds(a answer) (Sample, bool) {
	for _, s := range a.sound {
		if r.config.Max != nil && s.Value > *r.config.Max || r.config.Min != nil && s.Value < *r.config.Min {
			return s, !a.Partial
		}
	}
	return Sample{}, false
}

func (r *thresholdRun) breach(a answer, s Sample) look {
	if newest := a.newest(); newest.After(r.counted) {
		r.counted = newest
		r.bad++
	}
	r.good, r.breached = 0, true
	message := fmt.Sprintf("%s %s is %v, allowed is %s (%d of %d looks in a row, %d series)",
		short(a.expression), s.series(), s.Value, r.bounds(), r.bad, r.config.Breaches, len(a.sound))
	l := look{reasons: []stages.Reason{{Rule: "out-of-bounds", Subject: nameOf(a.Result), Message: message}}, status: message}
	if r.bad >= r.config.Breaches {
		l.verdict = stages.Fail
	}
	return l
}

func (r *thresholdRun) within(a answer) look {
	r.bad = 0
	if r.good == 0 {
		r.goodFrom = time.Now()
	}
	if newest := a.newest(); newest.After(r.counted) {
		r.counted = newest
		r.good++
	}
	held := time.Since(r.goodFrom)
	message := fmt.Sprintf("%s is within %s: %d of %d looks in a row, for %s of %s, %d series",
		short(a.expression), r.bounds(), r.good, r.config.Looks, held.Round(time.Second), r.config.For, len(a.sound))
	if r.good >= r.config.Looks && held >= r.config.For {
		return look{verdict: stages.Pass, status: message}
	}
	return look{
		reasons: []stages.Reason{{Rule: "not-held", Subject: nameOf(a.Result), Message: message}},
		status:  message, sound: !r.breached,
	}
}

func (r *thresholdRun) bounds() string {
	switch {
	case r.config.Min == nil:
		return fmt.Sprintf("at most %v", *r.config.Max)
	case r.config.Max == nil:
		return fmt.Sprintf("at least %v", *r.config.Min)
	}
	return fmt.Sprintf("%v to %v", *r.config.Min, *r.config.Max)
}
