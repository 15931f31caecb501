package prometheus

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/fairlead-dev/fairlead/rollout/metric"
)

// searched is how far back the last sample of a selector is looked for.
const searched = "15m:1m"

// selectorLabel tells the answers for several selectors apart.
const selectorLabel = "fairlead_selector"

// dated turns samples into the answer, each with the time it was observed at.
func (s *Source) dated(ctx context.Context, expression string, samples []*model.Sample, result *metric.Result) ([]metric.Sample, error) {
	at := result.Evaluated
	reads := selectors(expression)
	if len(reads) == 1 && reads[0].named && strings.TrimSpace(expression) == reads[0].text {
		times, err := s.query(ctx, "timestamp("+expression+")", at, result)
		if err != nil {
			return nil, fmt.Errorf("find out how old the answer is: %w", err)
		}
		observed := make(map[model.Fingerprint]time.Time, len(times))
		for _, t := range times {
			observed[t.Metric.Fingerprint()] = seconds(t.Value)
		}
		return convert(samples, func(m model.Metric) time.Time {
			m = m.Clone()
			delete(m, model.MetricNameLabel) // as timestamp() does
			return observed[m.Fingerprint()]
		}), nil
	}
	observed, err := s.observed(ctx, reads, at, result)
	if err != nil {
		return nil, fmt.Errorf("find out how old the answer is: %w", err)
	}
	return convert(samples, func(model.Metric) time.Time { return observed }), nil
}

// observed returns when the data behind selectors was observed; zero if nothing
// was lately, or if there are none.
func (s *Source) observed(ctx context.Context, reads []selector, at time.Time, result *metric.Result) (time.Time, error) {
	if len(reads) == 0 {
		return time.Time{}, nil
	}
	current, err := s.query(ctx, eachNewest(reads, "max(timestamp(%s))"), at, result)
	if err != nil {
		return time.Time{}, err
	}
	var oldest time.Time
	for _, t := range current {
		if newest := seconds(t.Value); oldest.IsZero() || newest.Before(oldest) {
			oldest = newest
		}
	}
	if !oldest.IsZero() {
		return oldest, nil
	}
	past, err := s.query(ctx, eachNewest(reads, "max(max_over_time(timestamp(%s)["+searched+"]))"), at, result)
	if err != nil {
		return time.Time{}, err
	}
	var latest time.Time
	for _, t := range past {
		if newest := seconds(t.Value); newest.After(latest) {
			latest = newest
		}
	}
	return latest, nil
}

// eachNewest asks the same of each selector, in one expression.
func eachNewest(reads []selector, format string) string {
	parts := make([]string, len(reads))
	for i, r := range reads {
		parts[i] = fmt.Sprintf(`label_replace(%s, "%s", "%d", "", "")`, fmt.Sprintf(format, r.text), selectorLabel, i)
	}
	return strings.Join(parts, " or ")
}

func seconds(v model.SampleValue) time.Time {
	f := float64(v)
	if math.IsNaN(f) || math.Abs(f) > math.MaxInt32*1000 {
		return time.Time{}
	}
	return time.UnixMilli(int64(math.Round(f * 1000)))
}

func convert(samples []*model.Sample, observed func(model.Metric) time.Time) []metric.Sample {
	out := make([]metric.Sample, 0, len(samples))
	for _, s := range samples {
		labels := make(map[string]string, len(s.Metric))
		for name, value := range s.Metric {
			labels[string(name)] = string(value)
		}
		out = append(out, metric.Sample{Labels: labels, Time: observed(s.Metric), Value: float64(s.Value), Histogram: histogram(s.Histogram)})
	}
	return out
}

// histogram turns a native histogram into ours.
func histogram(h *model.SampleHistogram) *metric.Histogram {
	if h == nil {
		return nil
	}
	out := &metric.Histogram{}
	for _, b := range h.Buckets {
		bucket := metric.Bucket{Lower: float64(b.Lower), Upper: float64(b.Upper), Count: float64(b.Count)}
		if bucket.Lower == 0 && bucket.Upper == 0 {
			// Of zeros alone. Ours don't hold their lower bound.
			bucket.Lower, bucket.Upper = -math.SmallestNonzeroFloat64, math.SmallestNonzeroFloat64
		}
		out.Buckets = append(out.Buckets, bucket)
	}
	return out
}

// selector is a vector selector of an expression.
type selector struct {
	text  string
	named bool // begins with the metric's name
}

// keywords that could be taken for the name of a metric.
var keywords = map[string]bool{
	"and": true, "or": true, "unless": true, "atan2": true, "bool": true, "offset": true,
	"group_left": true, "group_right": true, "on": true, "ignoring": true, "by": true, "without": true,
	"inf": true, "nan": true, "start": true, "end": true,
}

// grouping are the keywords that a list of labels follows.
var grouping = map[string]bool{"group_left": true, "group_right": true, "on": true, "ignoring": true, "by": true, "without": true}

// selectors returns the vector selectors of an expression that read the present.
// The server has understood the expression, so that its form needs no checking.
func selectors(expression string) []selector {
	var found []selector
	seen := map[string]bool{}
	for at := 0; at < len(expression); {
		end, text, named := nextToken(expression, at)
		if text != "" {
			rest := expression[skipSpace(expression, skipRange(expression, end)):]
			past := strings.HasPrefix(rest, "@") || strings.EqualFold(word(rest), "offset")
			if !past && !seen[text] {
				seen[text] = true
				found = append(found, selector{text: text, named: named})
			}
		}
		at = end
	}
	return found
}

// nextToken reads one token, and returns where it ends and, if it is a selector,
// its text.
func nextToken(e string, at int) (end int, text string, named bool) {
	switch c := e[at]; {
	case c == '"' || c == '\'' || c == '`':
		return skipString(e, at), "", false
	case c == '#':
		if line := strings.IndexByte(e[at:], '\n'); line >= 0 {
			return at + line + 1, "", false
		}
		return len(e), "", false
	case c == '[':
		return skipRange(e, at), "", false
	case c == '{':
		end = skipBraces(e, at)
		return end, e[at:end], false
	case isDigit(c) || c == '.' && at+1 < len(e) && isDigit(e[at+1]):
		for at < len(e) && (isName(e[at]) || isDigit(e[at]) || e[at] == '.') {
			at++
		}
		return at, "", false
	case isName(c):
		return nameToken(e, at)
	}
	return at + 1, "", false
}

func nameToken(e string, at int) (end int, text string, named bool) {
	name := word(e[at:])
	end = at + len(name)
	next := skipSpace(e, end)
	follows := byte(0)
	if next < len(e) {
		follows = e[next]
	}
	lower := strings.ToLower(name)
	after := strings.ToLower(word(e[min(next, len(e)):]))
	switch {
	case grouping[lower] && follows == '(':
		if list := strings.IndexByte(e[next:], ')'); list >= 0 {
			return next + list + 1, "", false
		}
		return len(e), "", false
	case follows == '(' || after == "by" || after == "without" || keywords[lower]:
		return end, "", false // a function, an aggregation or a keyword
	case follows == '{':
		end = skipBraces(e, next)
	}
	return end, e[at:end], true
}

func word(e string) string {
	n := 0
	for n < len(e) && (isName(e[n]) || n > 0 && isDigit(e[n])) {
		n++
	}
	return e[:n]
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isName(c byte) bool {
	return c == '_' || c == ':' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func skipSpace(e string, at int) int {
	for at < len(e) && strings.IndexByte(" \t\r\n", e[at]) >= 0 {
		at++
	}
	return at
}

// skipRange skips a range in brackets, if there is one.
func skipRange(e string, at int) int {
	open := skipSpace(e, at)
	if open < len(e) && e[open] == '[' {
		if end := strings.IndexByte(e[open:], ']'); end >= 0 {
			return open + end + 1
		}
		return len(e)
	}
	return at
}

func skipBraces(e string, at int) int {
	for at < len(e) && e[at] != '}' {
		if c := e[at]; c == '"' || c == '\'' || c == '`' {
			at = skipString(e, at)
		} else {
			at++
		}
	}
	return min(at+1, len(e))
}

func skipString(e string, at int) int {
	quote := e[at]
	for at++; at < len(e) && e[at] != quote; at++ {
		if e[at] == '\\' && quote != '`' {
			at++
		}
	}
	return min(at+1, len(e))
}
