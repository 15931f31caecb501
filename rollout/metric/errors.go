package metric

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// What keeps a gate from deciding. Each is told apart from the others in errors
// and in the rules of a decision's reasons, and none ever passes.
var (
	// ErrNoData is an answer without samples, or with fewer than needed.
	ErrNoData = errors.New("no data")
	// ErrNotFinite is a value that is not a number or infinite, such as the ratio of
	// two zeros where there was no traffic.
	ErrNotFinite = errors.New("not a finite number")
	// ErrStale is a sample that is too old to say anything about the release.
	ErrStale = errors.New("stale")
	// ErrPartial is an answer from which data may be missing.
	ErrPartial = errors.New("partial answer")
	// ErrUnfit is a sample that is not what the gate needs, such as a histogram
	// where a number is expected, or buckets without bounds.
	ErrUnfit = errors.New("unfit data")
	// ErrQuery is a query that failed; a [*QueryError] says how.
	ErrQuery = errors.New("query failed")
)

// Class says how a query failed.
type Class string

// The classes.
const (
	// Unreachable: no answer could be had.
	Unreachable Class = "unreachable"
	// Unauthorized: the source doesn't know the caller or forbids the query.
	Unauthorized Class = "unauthorized"
	// BadExpression: the source doesn't understand the expression.
	BadExpression Class = "bad-expression"
	// Timeout: the answer took too long.
	Timeout Class = "timeout"
	// ServerError: the source failed.
	ServerError Class = "server-error"
	// TooManySeries: the answer, or the work for it, would be over a limit.
	TooManySeries Class = "too-many-series"
	// Failed is anything else.
	Failed Class = "failed"
)

var classRemedies = map[Class]string{
	Unreachable:   "check the address, TLS and network policies",
	Unauthorized:  "check the credentials and what they may read",
	BadExpression: "try the expression in the source's own console",
	Timeout:       "ask for less, or allow more time",
	ServerError:   "see the source's own logs",
	TooManySeries: "aggregate, or select fewer series",
	Failed:        "see the cause",
}

// lasting reports whether asking again can't help.
func (c Class) lasting() bool { return c == BadExpression || c == Unauthorized }

// QueryError is a query that failed. It matches [ErrQuery] and its cause.
type QueryError struct {
	// Source names who was asked, without secrets.
	Source string
	// Expression is what was asked.
	Expression string
	// Class says how it failed.
	Class Class
	// Err is the cause.
	Err error
}

// Error says who was asked what, how it failed and what to do.
func (e *QueryError) Error() string {
	class := e.Class
	if _, ok := classRemedies[class]; !ok {
		class = Failed
	}
	text := "query " + short(e.Expression)
	if e.Source != "" {
		text += " of " + e.Source
	}
	text += ": " + string(class)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + "; " + classRemedies[class]
}

// Unwrap returns [ErrQuery] and the cause.
func (e *QueryError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrQuery}
	}
	return []error{ErrQuery, e.Err}
}

// asQueryError makes a source's error one, whatever the source returned.
func asQueryError(expression string, err error) *QueryError {
	if failed, ok := errors.AsType[*QueryError](err); ok {
		return failed
	}
	class := Failed
	if errors.Is(err, context.DeadlineExceeded) {
		class = Timeout
	}
	return &QueryError{Expression: expression, Class: class, Err: err}
}

// dataError is data that can't be decided on.
type dataError struct {
	kind    error
	message string
}

func (e *dataError) Error() string { return e.message }
func (e *dataError) Unwrap() error { return e.kind }

func unusable(kind error, format string, args ...any) error {
	return &dataError{kind: kind, message: fmt.Sprintf(format, args...)}
}

// The rules that decisions name, beside "query-" and a [Class].
const (
	ruleNoData    = "no-data"
	ruleNotFinite = "not-finite"
	ruleStale     = "stale"
	rulePartial   = "partial-answer"
	ruleUnfit     = "unfit-data"
	ruleTemplate  = "bad-template"
	ruleQuery     = "query-"
)

func ruleOf(err error) string {
	if failed, ok := errors.AsType[*QueryError](err); ok {
		if _, known := classRemedies[failed.Class]; known {
			return ruleQuery + string(failed.Class)
		}
		return ruleQuery + string(Failed)
	}
	for rule, kind := range map[string]error{ruleNoData: ErrNoData, ruleNotFinite: ErrNotFinite, ruleStale: ErrStale, rulePartial: ErrPartial, ruleUnfit: ErrUnfit, ruleTemplate: errTemplate} {
		if errors.Is(err, kind) {
			return rule
		}
	}
	return ruleQuery + string(Failed)
}

// short quotes untrusted text, bounded in length.
func short(s string) string {
	const limit = 300
	if len(s) > limit {
		return strconv.Quote(s[:limit]) + "…"
	}
	return strconv.Quote(s)
}
