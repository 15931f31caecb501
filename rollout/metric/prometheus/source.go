package prometheus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/stages"
)

// Source asks a Prometheus server. It is safe for concurrent use.
type Source struct {
	config    Config
	name      string
	api       v1.API
	transport http.RoundTripper
	secrets   *secrets
}

var (
	_ metric.Source = (*Source)(nil)
	_ stages.Closer = (*Source)(nil)
)

// New returns a source that asks the server of config, without asking it anything
// yet. Its error matches [stages.ErrInvalid].
func New(config Config) (*Source, error) {
	config, address, err := config.complete()
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	transport, err := config.transport()
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	s := &Source{config: config, name: "Prometheus " + address.String(), transport: transport, secrets: &secrets{}}
	for _, value := range config.Headers {
		s.secrets.add(value)
	}
	client, err := api.NewClient(api.Config{Address: address.String(), Client: &http.Client{
		Transport:     &authorizer{config: config, next: transport, seen: s.secrets},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}})
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", errors.Join(stages.ErrInvalid, err))
	}
	s.api = v1.NewAPI(statusClient{client})
	return s, nil
}

// Close lets go of idle connections, unless the transport is the caller's.
func (s *Source) Close() error {
	if own, ok := s.transport.(*http.Transport); ok && s.config.Transport == nil {
		own.CloseIdleConnections()
	}
	return nil
}

// Query evaluates an expression that gives an instant vector or a scalar, and
// finds out when what it reads was observed; see the package comment.
func (s *Source) Query(ctx context.Context, q metric.Query) (metric.Result, error) {
	bounded, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	result := metric.Result{Source: s.name}
	samples, err := s.query(bounded, q.Expression, q.At, &result)
	if err == nil && len(samples) > s.config.MaxSeries {
		err = &limitError{fmt.Sprintf("%d series are more than %d", len(samples), s.config.MaxSeries)}
	}
	if err == nil && len(samples) > 0 {
		result.Evaluated = samples[0].Timestamp.Time()
		result.Samples, err = s.dated(bounded, q.Expression, samples, &result)
	}
	if err != nil {
		return metric.Result{Source: s.name}, s.failure(ctx, q.Expression, err)
	}
	return result, nil
}

// query evaluates one expression, and adds what the server warns of to result.
func (s *Source) query(ctx context.Context, expression string, at time.Time, result *metric.Result) ([]*model.Sample, error) {
	value, warnings, infos, err := s.api.Query(ctx, expression, at)
	if err != nil {
		return nil, err
	}
	for _, text := range append([]string(warnings), infos...) {
		result.Warnings = append(result.Warnings, s.secrets.mask(text))
	}
	if len(warnings) > 0 && !s.config.AcceptPartial {
		result.Partial = true
	}
	var samples []*model.Sample
	switch v := value.(type) {
	case nil:
		return nil, errNoResult
	case model.Vector:
		samples = v
	case *model.Scalar:
		samples = []*model.Sample{{Value: v.Value, Timestamp: v.Timestamp}}
	default:
		return nil, &shapeError{value.Type().String()}
	}
	for _, one := range samples {
		if one == nil || one.Timestamp == 0 {
			return nil, errNoResult
		}
	}
	return samples, nil
}

// errNoResult is an answer that claims success and holds nothing, or samples
// without values, which the client reads as zeros.
var errNoResult = errors.New("the answer lacks its result or the values in it: is the URL Prometheus's own?")

// shapeError is an expression that gives something else than numbers at one time.
type shapeError struct{ got string }

func (e *shapeError) Error() string {
	return "the expression gives a " + e.got + ", needed is an instant vector or a scalar"
}

// limitError is an answer over a limit of ours.
type limitError struct{ message string }

func (e *limitError) Error() string { return e.message }

// failure classes a failed query. Its text holds no secret.
func (s *Source) failure(ctx context.Context, expression string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("query %s: %w", s.name, context.Cause(ctx))
	}
	failed := &metric.QueryError{Source: s.name, Expression: expression, Class: classOf(err)}
	switch e, ok := errors.AsType[*v1.Error](err); {
	case ok:
		// The client's error keeps the whole answer.
		failed.Err = errors.New(s.secrets.mask(e.Error()))
	default:
		failed.Err = s.masked(err)
	}
	return failed
}

// masked returns err, or its text if that has to be masked.
func (s *Source) masked(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the URL is in the name of the source, and a GET's holds the query
	}
	if text := s.secrets.mask(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}

func classOf(err error) metric.Class {
	if e, ok := errors.AsType[*v1.Error](err); ok {
		return apiClass(e)
	}
	if e, ok := errors.AsType[*statusError](err); ok {
		return statusClass(e.status)
	}
	if _, ok := errors.AsType[*shapeError](err); ok {
		return metric.BadExpression
	}
	if _, ok := errors.AsType[*credentialsError](err); ok {
		return metric.Failed
	}
	_, limited := errors.AsType[*limitError](err)
	switch {
	case limited || errors.Is(err, errTooLarge):
		return metric.TooManySeries
	case errors.Is(err, errNoResult):
		return metric.ServerError
	case errors.Is(err, context.DeadlineExceeded) || isTimeout(err):
		return metric.Timeout
	}
	return metric.Unreachable
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}

func statusClass(status int) metric.Class {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return metric.Unauthorized
	case http.StatusRequestEntityTooLarge:
		return metric.TooManySeries
	case http.StatusTooManyRequests:
		return metric.ServerError
	}
	return metric.Failed
}

func apiClass(e *v1.Error) metric.Class {
	if e.Type == v1.ErrBadResponse && strings.Contains(e.Msg, `unexpected value type "string"`) {
		return metric.BadExpression // which the client can't read
	}
	switch e.Type {
	case v1.ErrBadData:
		return metric.BadExpression
	case v1.ErrTimeout, v1.ErrCanceled:
		return metric.Timeout
	case v1.ErrExec:
		return execClass(e.Msg)
	case v1.ErrServer, v1.ErrBadResponse, "internal", "unavailable":
		return metric.ServerError
	}
	return metric.Failed
}

// execClass reads what an evaluation failed of, for which the API has no code.
func execClass(message string) metric.Class {
	switch {
	case strings.Contains(message, "too many") || strings.Contains(message, "limit"):
		return metric.TooManySeries
	case strings.Contains(message, "matching") || strings.Contains(message, "labelset"):
		return metric.BadExpression
	}
	return metric.ServerError
}
