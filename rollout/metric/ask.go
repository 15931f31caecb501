package metric

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// answer is a result, and what is wrong with it.
type answer struct {
	Result
	expression string
	// fit are the samples that are finite, however old.
	fit []Sample
	// sound are those of them that are fresh.
	sound []Sample
	// problem is why the answer as a whole can't pass; nil if every sample of it is
	// sound and there is one at least.
	problem error
}

// newest returns when the newest sound sample was observed.
func (a answer) newest() time.Time {
	var t time.Time
	for _, s := range a.sound {
		if s.Time.After(t) {
			t = s.Time
		}
	}
	return t
}

// warnings are what the source wants to be known.
func (a answer) warnings() []stages.Reason {
	var out []stages.Reason
	for _, w := range a.Warnings {
		out = append(out, stages.Reason{Rule: "source-warning", Subject: a.Source, Message: w})
	}
	return out
}

// asker asks a source and judges what it says.
type asker struct {
	source Source
	watch  Watch
}

// question is a query with what its answer must meet.
type question struct {
	expression string
	// at is the time to evaluate at, zero for the present.
	at time.Time
	// since is when the release was deployed: older samples say nothing about it.
	since time.Time
	// histograms says that samples may be histograms.
	histograms bool
}

func (a asker) ask(ctx context.Context, q question) answer {
	asked := time.Now()
	bounded, cancel := context.WithTimeout(ctx, a.watch.QueryTimeout)
	defer cancel()
	result, err := a.source.Query(bounded, Query{Expression: q.expression, At: q.at})
	out := answer{Result: result, expression: q.expression}
	if err != nil {
		out.Samples = nil
		out.problem = asQueryError(q.expression, err)
		return out
	}
	meant := orTime(q.at, asked)
	now := orTime(result.Evaluated, meant)
	for _, s := range result.Samples {
		where := short(q.expression) + " " + s.series()
		err := checkValue(s, q.histograms, where)
		if err == nil {
			out.fit = append(out.fit, s)
			err = a.checkAge(s, q, now, where)
		}
		if err == nil {
			out.sound = append(out.sound, s)
		} else if out.problem == nil || errors.Is(out.problem, ErrStale) && !errors.Is(err, ErrStale) {
			out.problem = err // the first stands for the others, but stale ones can be passed over
		}
	}
	switch {
	case result.Partial:
		out.problem = unusable(ErrPartial, "%s gave a partial answer to %s: %s", nameOf(result), short(q.expression), firstOf(result.Warnings, "data may be missing"))
	case now.Sub(meant).Abs() > a.watch.MaxAge:
		out.fit, out.sound = nil, nil
		out.problem = unusable(ErrStale, "%s evaluated %s %s away from the time asked for: its clock differs, or the answer comes from a cache", nameOf(result), short(q.expression), now.Sub(meant).Abs().Round(time.Second))
	case len(result.Samples) == 0:
		out.problem = unusable(ErrNoData, "%s has no data for %s: does the release export the metric, is it scraped, do the labels match?", nameOf(result), short(q.expression))
	}
	return out
}

func (a asker) checkAge(s Sample, q question, now time.Time, where string) error {
	switch age := now.Sub(s.Time); {
	case s.Time.IsZero():
		return unusable(ErrStale, "%s: nothing behind it was observed lately", where)
	case age > a.watch.MaxAge:
		return unusable(ErrStale, "%s was observed %s before it was asked for, which is more than %s: is its target still scraped?", where, age.Round(time.Second), a.watch.MaxAge)
	case -age > a.watch.MaxAge:
		return unusable(ErrStale, "%s was observed %s after it was asked for: clocks differ", where, (-age).Round(time.Second))
	case !q.since.IsZero() && s.Time.Before(q.since):
		return unusable(ErrStale, "%s was observed before the release was deployed", where)
	}
	return nil
}

func checkValue(s Sample, histograms bool, where string) error {
	if s.Histogram == nil {
		if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
			return unusable(ErrNotFinite, "%s is %v: a ratio without traffic is not a number", where, s.Value)
		}
		return nil
	}
	if !histograms {
		return unusable(ErrUnfit, "%s is a histogram where a number is needed", where)
	}
	below := math.Inf(-1)
	for _, b := range s.Histogram.Buckets {
		switch {
		case math.IsNaN(b.Count) || math.IsInf(b.Count, 0) || math.IsNaN(b.Upper):
			return unusable(ErrNotFinite, "%s has a bucket up to %v that counts %v", where, b.Upper, b.Count)
		case b.Count < 0 || b.Upper <= b.Lower || !(b.Lower >= below):
			return unusable(ErrUnfit, "%s has buckets that overlap or that count below zero", where)
		}
		below = b.Upper
	}
	return nil
}

func nameOf(r Result) string {
	if r.Source == "" {
		return "the source"
	}
	return r.Source
}

func firstOf(list []string, otherwise string) string {
	if len(list) == 0 {
		return otherwise
	}
	return list[0]
}
