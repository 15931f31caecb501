package metric

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// BurnWindow is a pair of windows over which an error budget may burn at most
// Rate times as fast as it may in the long run. Both have to burn faster to fail:
// the long one shows that it matters, the short one that it still goes on.
//
// A release answers for what it does itself, so windows that reach back beyond its
// deployment are cut to the time since, and the short one beside it in proportion: to
// [Watch.Interval] at least, which should be no less than the time between two
// scrapes, and to more where there is no data over so short a time. Where there is none
// over less than the time since the deployment, whether it still goes on isn't known,
// and nothing is decided.
//
// The pair with the shortest long window judges a young release. Until that had
// requests for [BurnRateConfig.For], the errors so far are held to what may be in all
// of that time: a few at the start are a blip. The other pairs are for what burns
// slowly. Until the release had requests for as long as their long window, its errors
// are held to what may be in all of that: what is allowed falls and never jumps.
type BurnWindow struct {
	Long, Short time.Duration
	Rate        float64
}

// DefaultBurnWindows are those that the Google SRE workbook recommends for a
// period of 30 days: they spend 2 % of the budget in an hour, 5 % in six hours
// and 10 % in three days.
func DefaultBurnWindows() []BurnWindow {
	return []BurnWindow{
		{Long: time.Hour, Short: 5 * time.Minute, Rate: 14.4},
		{Long: 6 * time.Hour, Short: 30 * time.Minute, Rate: 6},
		{Long: 72 * time.Hour, Short: 6 * time.Hour, Rate: 1},
	}
}

// BurnRateConfig configures a [BurnRate].
type BurnRateConfig struct {
	// Name names the gate in decisions. Default "error-budget".
	Name string
	// Source answers, required. It must be able to look back.
	Source Source
	// ErrorRatio asks for the share of requests that failed, from 0 to 1, over
	// {{.Window}}, which it must contain. One sample is expected. See the package
	// comment on ratios. Of a canary it may be about the canary alone, of which nothing
	// was before, or about all that serves: then what burnt before is not its doing.
	ErrorRatio string
	// Traffic asks for the number of requests since the deployment, {{.Window}}. While
	// its samples add up to less than MinTraffic, which must be above zero then,
	// nothing is decided. Of few requests, one that fails is a high rate. Still,
	// [Watch.AllowUndecided] passes only what doesn't burn too fast, or had none at all.
	Traffic    string
	MinTraffic float64
	// Vars are values for the expressions.
	Vars Vars
	// Objective is the share of requests that is to succeed, such as 0.999, required.
	Objective float64
	// Windows are looked at; default [DefaultBurnWindows].
	Windows []BurnWindow
	// Period is what the error budget is for. With a period the gate looks at the
	// whole budget too, over all of it: 30 days are usual. None by default.
	Period time.Duration
	// AllowSpent lets a release be judged by what burns since its deployment although
	// the budget was spent, or burning, before. By default a release whose budget was
	// spent is inconclusive, and so is one that burns too fast where that was so before
	// it: it may not be to blame, and yet nobody should want to release now. It was so
	// before if it was over the short window, or over the last moments of it, as long as
	// [Watch.Interval]: what began just before fills no long one yet. A release that
	// burns more than twice as fast as the worst of these is to blame all the same.
	AllowSpent bool
	// For is how long the budget must be watched until the gate passes, from the first
	// requests after the deployment on, as Traffic counts them, or those that the ratio
	// is about. It is known to about two scrapes. Default 2 minutes; the timeout, or the
	// step of a canary, has to leave time for it.
	For time.Duration
	// Watch says how to look.
	Watch Watch
}

// DefaultBurnFor is the default of [BurnRateConfig.For].
const DefaultBurnFor = 2 * time.Minute

// BurnRate is a gate that holds a release to an error budget. It tells a budget
// that the release burns from one that burnt before. It is safe for concurrent
// use and can decide any number of times.
type BurnRate struct {
	config  BurnRateConfig
	ratio   *expression
	traffic traffic
	asker   asker
}

var _ stages.Gate[stages.Release] = (*BurnRate)(nil)

// NewBurnRate returns the gate that config describes, without asking anything
// yet. Its error matches [stages.ErrInvalid].
func NewBurnRate(config BurnRateConfig) (*BurnRate, error) {
	config.Name = cmp.Or(config.Name, "error-budget")
	b, err := newBurnRate(config)
	if err != nil {
		return nil, fmt.Errorf("metric gate %s: %w", config.Name, err)
	}
	return b, nil
}

func newBurnRate(config BurnRateConfig) (*BurnRate, error) {
	watch, err := config.Watch.complete()
	if err != nil {
		return nil, err
	}
	config.Watch = watch
	config.For = cmp.Or(config.For, DefaultBurnFor)
	if len(config.Windows) == 0 {
		config.Windows = DefaultBurnWindows()
	}
	switch {
	case config.Source == nil:
		return nil, fmt.Errorf("%w: Source is required", stages.ErrInvalid)
	case (config.Traffic != "") != (config.MinTraffic > 0) || !finite(config.MinTraffic):
		return nil, errTraffic
	case !(config.Objective > 0 && config.Objective < 1):
		return nil, fmt.Errorf("%w: Objective %v must be between 0 and 1, such as 0.999", stages.ErrInvalid, config.Objective)
	case config.For < 0 || config.For > watch.Timeout || config.Period < 0:
		return nil, fmt.Errorf("%w: For %s must fit into the timeout %s, and Period can't be negative", stages.ErrInvalid, config.For, watch.Timeout)
	}
	for _, w := range config.Windows {
		if w.Short < time.Second || w.Long <= w.Short || !(w.Rate > 0) || !finite(w.Rate) || w.Rate*(1-config.Objective) >= 1 {
			return nil, fmt.Errorf("%w: window %s and %s at rate %v: the long one must be longer than the short one, and the rate possible with an objective of %v", stages.ErrInvalid, w.Long, w.Short, w.Rate, config.Objective)
		}
	}
	config.Windows = slices.SortedStableFunc(slices.Values(config.Windows), func(a, b BurnWindow) int { return cmp.Compare(a.Long, b.Long) })
	b := &BurnRate{config: config, asker: asker{source: config.Source, watch: watch}}
	if b.traffic, err = newTraffic(config.Traffic, config.MinTraffic, config.Vars); err != nil {
		return nil, err
	}
	if b.ratio, err = newExpression("ErrorRatio", config.ErrorRatio, config.Vars); err != nil {
		return nil, err
	}
	if !b.ratio.usesWindow() {
		return nil, fmt.Errorf("%w: ErrorRatio must contain {{.Window}}, to be asked over several", stages.ErrInvalid)
	}
	return b, nil
}

// Decide looks until the budget burns too fast, or until it hasn't for as long as
// is asked for.
func (b *BurnRate) Decide(ctx context.Context, rel stages.Release) (stages.Decision, error) {
	if err := validate(rel); err != nil {
		return stages.Decision{Gate: b.config.Name}, fmt.Errorf("metric gate %s: %w", b.config.Name, err)
	}
	run := &burnRun{BurnRate: b, rel: rel, deployed: orTime(rel.Deployed, time.Now())}
	return b.config.Watch.decide(ctx, b.config.Name, run.look)
}
