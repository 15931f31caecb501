package helmx

import (
	"context"
	"errors"
	"fmt"

	"github.com/fairlead-dev/fairlead/stages"
)

// ChartReason classes why a chart can't be used.
type ChartReason string

// The reasons.
const (
	// ChartNotFound: there is no such chart, or no version that is acceptable.
	ChartNotFound ChartReason = "NotFound"
	// ChartMoved: the content is not what the digest, or the version, promises.
	ChartMoved ChartReason = "Moved"
	// ChartUntrusted: a required signature is missing or doesn't verify. Such an error
	// matches [stages.ErrSignature].
	ChartUntrusted ChartReason = "Untrusted"
	// ChartMalformed: the content is not a chart, is too big, or tries to get out of
	// its folder.
	ChartMalformed ChartReason = "Malformed"
	// ChartUnlocked: a dependency is neither in the charts folder nor locked.
	ChartUnlocked ChartReason = "Unlocked"
	// ChartOffline: something has to be fetched, which [New] doesn't do.
	ChartOffline ChartReason = "Offline"
	// ChartUnauthorized: the registry or repository does not accept the credentials.
	ChartUnauthorized ChartReason = "Unauthorized"
	// ChartUnavailable: the registry or repository could not be reached or could not
	// answer. This may pass with time; all other reasons match [stages.ErrInvalid].
	ChartUnavailable ChartReason = "Unavailable"
)

// ChartError is a chart, or a dependency of one, that can't be used.
type ChartError struct {
	// Chart names it, without credentials.
	Chart  string
	Reason ChartReason

	err error
}

// Error says what is wrong with which chart.
func (e *ChartError) Error() string { return fmt.Sprintf("chart %s: %s", e.Chart, e.err) }

// Unwrap returns the cause and the class.
func (e *ChartError) Unwrap() []error {
	switch e.Reason {
	case ChartUnavailable:
		return []error{e.err}
	case ChartUntrusted:
		return []error{e.err, stages.ErrInvalid, stages.ErrSignature}
	default:
		return []error{e.err, stages.ErrInvalid}
	}
}

// reasonError carries a reason to where the chart's name is known.
type reasonError struct {
	reason ChartReason
	err    error
}

func (e *reasonError) Error() string { return e.err.Error() }
func (e *reasonError) Unwrap() error { return e.err }

func because(reason ChartReason, format string, args ...any) error {
	return &reasonError{reason, fmt.Errorf(format, args...)}
}

// invalidUnlessPassing returns err as an error matching [stages.ErrInvalid], unless
// it is one that may pass: a cancel, or a host that is unavailable.
func invalidUnlessPassing(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		// What went wrong after that may be of any class, and says nothing of the chart.
		return fmt.Errorf("%w: %s", context.Cause(ctx), err) //nolint:errorlint // See above.
	case mayPass(err):
		return err
	default:
		return fmt.Errorf("%w: %w", stages.ErrInvalid, err)
	}
}

func mayPass(err error) bool {
	e, ok := errors.AsType[*ChartError](err)
	return ok && e.Reason == ChartUnavailable
}

// chartError names the chart in an error about it.
func chartError(chart string, err error) error {
	if named, ok := errors.AsType[*ChartError](err); ok {
		return named // A dependency that has said so already.
	}
	reason := ChartMalformed
	if r, ok := errors.AsType[*reasonError](err); ok {
		reason = r.reason
	}
	return &ChartError{Chart: chart, Reason: reason, err: err}
}
