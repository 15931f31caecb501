package otlp

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-dev/fairlead/rollout/metric"
	"github.com/fairlead-dev/fairlead/stages"
)

// Config configures a [Receiver].
type Config struct {
	// Keep are the names of the metrics to keep, required. Others are accepted from
	// senders and dropped.
	Keep []string
	// Name names the source in decisions. Default "OpenTelemetry".
	Name string
	// MaxBytes bounds a request's body, compressed and not. Default 4 MiB.
	MaxBytes int64
	// MaxSeries bounds the series that are kept. Default 10000.
	MaxSeries int
	// Retention is how long a series without new points is kept. It should be longer
	// than the age at which the gates take a sample for stale. Default 15 minutes.
	Retention time.Duration
}

// The defaults of [Config].
const (
	DefaultMaxBytes  = 4 << 20
	DefaultMaxSeries = 10_000
	DefaultRetention = 15 * time.Minute
)

// Receiver receives metrics as an [http.Handler], and answers questions about
// them. It is safe for concurrent use.
type Receiver struct {
	config Config
	store  *store
}

var (
	_ metric.Source = (*Receiver)(nil)
	_ http.Handler  = (*Receiver)(nil)
)

// New returns a receiver without metrics. Its error matches [stages.ErrInvalid].
func New(config Config) (*Receiver, error) {
	config.Name = cmp.Or(config.Name, "OpenTelemetry")
	config.MaxBytes = cmp.Or(config.MaxBytes, DefaultMaxBytes)
	config.MaxSeries = cmp.Or(config.MaxSeries, DefaultMaxSeries)
	config.Retention = cmp.Or(config.Retention, DefaultRetention)
	switch {
	case len(config.Keep) == 0:
		return nil, fmt.Errorf("otlp: %w: Keep is required", stages.ErrInvalid)
	case config.MaxBytes < 0 || config.MaxSeries < 0 || config.Retention < 0:
		return nil, fmt.Errorf("otlp: %w: MaxBytes, MaxSeries and Retention can't be negative", stages.ErrInvalid)
	}
	for _, name := range config.Keep {
		if s, err := parse(name); err != nil || s.name != name {
			return nil, fmt.Errorf("otlp: %w: Keep has %q, which is no name of a metric", stages.ErrInvalid, name)
		}
	}
	config.Keep = slices.Clone(config.Keep)
	return &Receiver{config: config, store: newStore(config)}, nil
}

// Query answers with the last point of each series that the expression selects.
func (r *Receiver) Query(ctx context.Context, q metric.Query) (metric.Result, error) {
	if ctx.Err() != nil {
		return metric.Result{}, fmt.Errorf("query %s: %w", r.config.Name, context.Cause(ctx))
	}
	bad := func(err error) (metric.Result, error) {
		return metric.Result{Source: r.config.Name}, &metric.QueryError{Source: r.config.Name, Expression: q.Expression, Class: metric.BadExpression, Err: err}
	}
	selected, err := parse(q.Expression)
	switch {
	case err != nil:
		return bad(err)
	case !q.At.IsZero():
		return bad(errors.New("only the last points are kept: another time can't be asked for"))
	case !slices.Contains(r.config.Keep, selected.name):
		return bad(fmt.Errorf("the metric %s is not one that is kept: add it to Config.Keep", selected.name))
	}
	return r.store.answer(selected), nil
}

// Rejected are points that were not kept although their metric is to be.
type Rejected struct {
	Points int64
	// Reason is for the sender to read.
	Reason string
}

// Take takes in metrics that were received in another way than by HTTP, such as
// by package otlpgrpc.
func (r *Receiver) Take(received []*metrics.ResourceMetrics) Rejected { return r.store.take(received) }

// The content types of OTLP/HTTP.
const (
	protobufType = "application/x-protobuf"
	jsonType     = "application/json"
)

// ServeHTTP takes in an ExportMetricsServiceRequest. It serves any path, so that
// it can be mounted anywhere.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	contentType, _, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	switch {
	case req.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "use POST", http.StatusMethodNotAllowed)
		return
	case err != nil || contentType != protobufType && contentType != jsonType:
		http.Error(w, "the content type must be "+protobufType+" or "+jsonType, http.StatusUnsupportedMediaType)
		return
	}
	received, status, err := r.read(w, req, contentType)
	if err != nil {
		http.Error(w, err.Error(), status)
		return
	}
	body, err := encode(r.Take(received.GetResourceMetrics()), contentType)
	if err != nil {
		http.Error(w, "the answer can't be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(body) //nolint:gosec // no browser reads it; the sender is gone, or isn't: there is nobody else to tell
}

func (r *Receiver) read(w http.ResponseWriter, req *http.Request, contentType string) (*metrics.MetricsData, int, error) {
	var body io.Reader = http.MaxBytesReader(w, req.Body, r.config.MaxBytes)
	switch encoding := req.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			return nil, http.StatusBadRequest, errors.New("the body is not compressed by gzip")
		}
		defer func() { _ = unzipped.Close() }() // it only gives back what was read
		body = unzipped
	default:
		return nil, http.StatusUnsupportedMediaType, fmt.Errorf("the content encoding %q is not supported, use gzip or none", encoding)
	}
	data, err := io.ReadAll(io.LimitReader(body, r.config.MaxBytes+1))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge || int64(len(data)) > r.config.MaxBytes {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("the body is larger than %d bytes", r.config.MaxBytes)
	}
	if err != nil {
		return nil, http.StatusBadRequest, errors.New("the body can't be read")
	}
	// An ExportMetricsServiceRequest is the same, but its package comes with gRPC.
	received := &metrics.MetricsData{}
	if contentType == jsonType {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, received)
	} else {
		err = proto.Unmarshal(data, received)
	}
	if err != nil {
		return nil, http.StatusBadRequest, errors.New("the body is no ExportMetricsServiceRequest in " + contentType)
	}
	return received, http.StatusOK, nil
}

// The fields of ExportMetricsServiceResponse and ExportMetricsPartialSuccess.
const (
	fieldPartialSuccess = 1
	fieldRejectedPoints = 1
	fieldErrorMessage   = 2
)

// encode writes an ExportMetricsServiceResponse.
func encode(rejected Rejected, contentType string) ([]byte, error) {
	if contentType == jsonType {
		type partialSuccess struct {
			RejectedDataPoints int64  `json:"rejectedDataPoints,string"`
			ErrorMessage       string `json:"errorMessage"`
		}
		var response struct {
			PartialSuccess *partialSuccess `json:"partialSuccess,omitempty"`
		}
		if rejected.Points > 0 {
			response.PartialSuccess = &partialSuccess{RejectedDataPoints: rejected.Points, ErrorMessage: rejected.Reason}
		}
		return json.Marshal(response)
	}
	if rejected.Points == 0 {
		return nil, nil
	}
	partial := protowire.AppendTag(nil, fieldRejectedPoints, protowire.VarintType)
	partial = protowire.AppendVarint(partial, uint64(rejected.Points))
	partial = protowire.AppendTag(partial, fieldErrorMessage, protowire.BytesType)
	partial = protowire.AppendString(partial, rejected.Reason)
	response := protowire.AppendTag(nil, fieldPartialSuccess, protowire.BytesType)
	return protowire.AppendBytes(response, partial), nil
}
