package helmx

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// rehearsal makes what is done to one object a dry run, whoever does it: every
// request that changes something is sent with dryRun=All, and the object is read
// only once, so that all that is decided on it is decided on the same state. It
// keeps what it saw. It is for one goroutine.
type rehearsal struct {
	base http.RoundTripper
	// read is the answer to the reading of the object.
	read *answer
	// verb and path are of the last request that would have changed something, wrote
	// is the answer to it.
	request *http.Request
	wrote   *answer
}

// answer is a response that was read to its end.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// RoundTrip sends a request in a way that changes nothing.
func (r *rehearsal) RoundTrip(req *http.Request) (*http.Response, error) {
	switch req.Method {
	case http.MethodGet:
		if r.read == nil {
			got, err := r.send(req)
			if err != nil {
				return nil, err
			}
			r.read = got
		}
		return r.read.response(req), nil
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		req = req.Clone(req.Context())
		query := req.URL.Query()
		query.Set("dryRun", metav1.DryRunAll)
		req.URL.RawQuery = query.Encode()
	case http.MethodDelete:
		// The options in the body are what counts, and those of the query don't.
		var err error
		if req, err = dryDelete(req); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("a plan sends no %s", req.Method)
	}
	got, err := r.send(req)
	if err != nil {
		return nil, err
	}
	r.request, r.wrote = req, got
	return got.response(req), nil
}

func dryDelete(req *http.Request) (*http.Request, error) {
	options := metav1.DeleteOptions{}
	if req.Body != nil {
		data, err := io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("read the options of a deletion: %w", err)
		}
		if err := json.Unmarshal(data, &options); err != nil {
			return nil, errors.New("the options of a deletion are not JSON, so it can't be made a dry run")
		}
	}
	options.Kind, options.APIVersion = "DeleteOptions", "v1"
	options.DryRun = []string{metav1.DryRunAll}
	data, err := json.Marshal(options)
	if err != nil {
		return nil, fmt.Errorf("write the options of a deletion: %w", err)
	}
	req = req.Clone(req.Context())
	req.Header.Set("Content-Type", "application/json")
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	return req, nil
}

func (r *rehearsal) send(req *http.Request) (*answer, error) {
	resp, err := r.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer to a dry run: %w", err)
	}
	return &answer{resp.StatusCode, resp.Header, body}, nil
}

func (a *answer) response(req *http.Request) *http.Response {
	return &http.Response{
		Status: http.StatusText(a.code), StatusCode: a.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.header.Clone(), Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body)), Request: req,
	}
}

// object returns the object that the answer consists of, or nil.
func (a *answer) object() map[string]any {
	if a == nil || a.code >= http.StatusBadRequest {
		return nil
	}
	var out map[string]any
	// Numbers come out as they do of client-go, or every one of them would differ.
	if utiljson.Unmarshal(a.body, &out) != nil || out["kind"] == "Status" {
		return nil
	}
	return out
}

// refused returns the status that the answer refuses with, or nil.
func (a *answer) refused() *metav1.Status {
	if a == nil || a.code < http.StatusBadRequest {
		return nil
	}
	status := &metav1.Status{}
	if json.Unmarshal(a.body, status) != nil || status.Kind != "Status" {
		return &metav1.Status{Code: int32(a.code), Message: http.StatusText(a.code)}
	}
	return status
}

// warnings returns what the API server warned of.
func (a *answer) warnings() []string {
	if a == nil {
		return nil
	}
	parsed, _ := utilnet.ParseWarningHeaders(a.header.Values("Warning"))
	var out []string
	for _, w := range parsed {
		out = append(out, w.Text)
	}
	return out
}
