package metric

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/fairlead-dev/fairlead/rollout/sequential"
	"github.com/fairlead-dev/fairlead/stages"
)

// Side are the expressions that measure one side of a [Comparison]. They ask for
// raw counters, one sample for each series: no rate, no increase, no sum, because
// the gate adds up what each series counts itself and recognises restarts.
type Side struct {
	// Requests asks for counters of all requests.
	Requests string
	// Failures asks for counters of those that failed, where they have metrics of
	// their own; see [ComparisonConfig.FailureLabel] for where they don't.
	Failures string
	// Latency asks for histograms of how long requests took, in seconds: the series
	// of classic buckets, with their label le, or native or exponential histograms.
	// Their buckets may differ, and become coarser meanwhile, if they fit in each
	// other, as those of all exponential histograms do.
	Latency string
}

// ComparisonConfig configures a [Comparison].
type ComparisonConfig struct {
	// Name names the gate in decisions. Default "canary-comparison".
	Name string
	// Source answers, required.
	Source Source
	// Canary is what is judged, required: Requests, Latency or both.
	Canary Side
	// Baseline is what the canary is compared with, measured in the same way.
	// Without one, MaxFailureRate and MaxLatency are the limits.
	Baseline Side
	// Vars are values for the expressions.
	Vars Vars
	// FailureLabel and FailurePattern say which series of Requests count failures:
	// those whose label matches the whole pattern, such as "code" and "5..". Every
	// series must have the label. It is the better choice where it is one, because
	// then a mistyped name of a metric can't look like a service without failures.
	FailureLabel, FailurePattern string
	// AbsentFailuresAreNone lets Failures have no series: many libraries make one at
	// the first failure. The expression had better be right.
	AbsentFailuresAreNone bool
	// MaxFailureRate and MaxLatency are the limits where there is no baseline: a
	// share of requests, and the quantile's latency.
	MaxFailureRate float64
	MaxLatency     time.Duration
	// Rate and Quantile say how sure the judgement has to be and what is tolerated.
	// Where both are measured, each has half of its Alpha: a harmless canary fails by
	// either with a probability of at most the mean of the two.
	Rate     sequential.RateConfig
	Quantile sequential.QuantileConfig
	// Watch says how to look.
	Watch Watch
}

// Comparison is a gate that compares a canary with its baseline while requests
// come in, by package sequential: it may look as often as it likes, and fails
// and passes as soon as the numbers say so. It is safe for concurrent use and
// can decide any number of times.
//
// Each decision counts anew, so over several the probabilities of error add up. By
// [Comparison.Series] many decisions are one: a canary's looks, package traffic's,
// go on counting throughout a step.
type Comparison struct {
	config   ComparisonConfig
	asker    asker
	canary   sideExpressions
	baseline sideExpressions
	alone    bool // no baseline
	failed   *regexp.Regexp
	rate     *sequential.Rate
	quantile *sequential.Quantile
}

var _ stages.SeriesGate[stages.Release] = (*Comparison)(nil)

// sideExpressions are the parsed expressions of a side; nil for what is not asked.
type sideExpressions struct {
	requests, failures, latency *expression
}

// NewComparison returns the gate that config describes, without asking anything
// yet. Its error matches [stages.ErrInvalid].
func NewComparison(config ComparisonConfig) (*Comparison, error) {
	config.Name = cmp.Or(config.Name, "canary-comparison")
	c, err := newComparison(config)
	if err != nil {
		return nil, fmt.Errorf("metric gate %s: %w", config.Name, err)
	}
	return c, nil
}

func newComparison(config ComparisonConfig) (*Comparison, error) {
	if err := checkComparison(config); err != nil {
		return nil, err
	}
	watch, err := config.Watch.complete()
	if err != nil {
		return nil, err
	}
	config.Watch = watch
	c := &Comparison{config: config, asker: asker{source: config.Source, watch: watch}, alone: config.Baseline == Side{}}
	if config.FailureLabel != "" {
		if c.failed, err = regexp.Compile("^(?:" + config.FailurePattern + ")$"); err != nil {
			return nil, errors.Join(stages.ErrInvalid, fmt.Errorf("parse FailurePattern: %w", err))
		}
	}
	if c.canary, err = parseSide("Canary", config.Canary, config.Vars); err != nil {
		return nil, err
	}
	if c.baseline, err = parseSide("Baseline", config.Baseline, config.Vars); err != nil {
		return nil, err
	}
	if c.rate, err = sequential.NewRate(config.Rate); err != nil {
		return nil, errors.Join(stages.ErrInvalid, err)
	}
	if c.quantile, err = sequential.NewQuantile(config.Quantile); err != nil {
		return nil, errors.Join(stages.ErrInvalid, err)
	}
	if has(config.Canary.Requests) && has(config.Canary.Latency) {
		return c, c.shareAlpha()
	}
	return c, nil
}

// shareAlpha has each of two measures take half of its Alpha, so that the probability
// that either of them fails a harmless canary is no greater than that of one.
func (c *Comparison) shareAlpha() (err error) {
	rate, quantile := c.config.Rate, c.config.Quantile
	rate.Alpha, rate.Beta = share(rate.Alpha, rate.Beta, 2)
	quantile.Alpha, quantile.Beta = share(quantile.Alpha, quantile.Beta, 2)
	if c.rate, err = sequential.NewRate(rate); err != nil {
		return errors.Join(stages.ErrInvalid, err)
	}
	if c.quantile, err = sequential.NewQuantile(quantile); err != nil {
		return errors.Join(stages.ErrInvalid, err)
	}
	return nil
}

func checkComparison(c ComparisonConfig) error {
	alone := c.Baseline == Side{}
	byLabel := c.FailureLabel != ""
	switch {
	case c.Source == nil:
		return fmt.Errorf("%w: Source is required", stages.ErrInvalid)
	case c.Canary.Requests == "" && c.Canary.Latency == "":
		return fmt.Errorf("%w: Canary needs Requests or Latency", stages.ErrInvalid)
	case !alone && (has(c.Canary.Requests) != has(c.Baseline.Requests) || has(c.Canary.Failures) != has(c.Baseline.Failures) || has(c.Canary.Latency) != has(c.Baseline.Latency)):
		return fmt.Errorf("%w: Canary and Baseline must have the same expressions", stages.ErrInvalid)
	case !alone && c.Canary == c.Baseline:
		return fmt.Errorf("%w: Canary and Baseline are the same", stages.ErrInvalid)
	case !alone && (c.MaxFailureRate != 0 || c.MaxLatency != 0):
		return fmt.Errorf("%w: MaxFailureRate and MaxLatency are for a canary without Baseline", stages.ErrInvalid)
	case byLabel != has(c.FailurePattern):
		return fmt.Errorf("%w: FailureLabel and FailurePattern go together", stages.ErrInvalid)
	case has(c.Canary.Requests) && byLabel == has(c.Canary.Failures), !has(c.Canary.Requests) && (byLabel || has(c.Canary.Failures)):
		return fmt.Errorf("%w: Requests need either Failures or FailureLabel, and those need Requests", stages.ErrInvalid)
	case alone && has(c.Canary.Requests) && !(c.MaxFailureRate > 0 && c.MaxFailureRate < 1):
		return fmt.Errorf("%w: without Baseline, MaxFailureRate must be between 0 and 1", stages.ErrInvalid)
	case alone && has(c.Canary.Latency) && c.MaxLatency <= 0:
		return fmt.Errorf("%w: without Baseline, MaxLatency is required", stages.ErrInvalid)
	}
	return nil
}

func has(expression string) bool { return expression != "" }

func parseSide(name string, s Side, vars Vars) (sideExpressions, error) {
	var out sideExpressions
	for _, e := range []struct {
		what, text string
		into       **expression
	}{
		{"Requests", s.Requests, &out.requests}, {"Failures", s.Failures, &out.failures}, {"Latency", s.Latency, &out.latency},
	} {
		if e.text == "" {
			continue
		}
		parsed, err := newExpression(name+"."+e.what, e.text, vars)
		if err != nil {
			return out, err
		}
		*e.into = parsed
	}
	return out, nil
}
